"""What a context asks of the run that it stands in: the seam between the user's side and the worker."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Coroutine, Sequence
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from agentq.codec import Codec
    from agentq.journal import History
    from agentq.message import Claim, Entry, Run
    from agentq.scope import Scope
    from agentq.signal import Signal
    from agentq.step import StepSpec
    from agentq.task import Bound


class Running(Protocol):
    """A run that is being worked on. All coroutines belong to the worker's event loop."""

    claim: Claim
    history: History

    @property
    def row(self) -> Run:
        """The run as it was claimed."""
        ...

    @property
    def draining(self) -> bool:
        """Whether the run is to be handed on at its next step."""
        ...

    def adopt(self) -> None:
        """Note that the calling task works for the run, though the user's code made it: it ends with the run."""
        ...

    async def step(self, scope: Scope, spec: StepSpec, args: tuple[Any, ...], kwargs: dict[str, Any], /) -> Any:
        """Run or replay a step called on the event loop."""
        ...

    def step_from_thread(self, scope: Scope, spec: StepSpec, args: tuple[Any, ...], kwargs: dict[str, Any], /) -> Any:
        """Run or replay a step called in a task's thread."""
        ...

    def from_thread(self, scope: Scope, verb: Callable[[Scope, bool], Coroutine[Any, Any, Any]], /) -> Any:
        """Await ``verb(scope, foreign)`` on the loop while the calling thread blocks."""
        ...

    async def in_thread(self, scope: Scope, fn: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any], /) -> Any:
        """Call ``fn`` in a thread, as a step if it is one."""
        ...

    async def gather(self, scope: Scope, work: Sequence[Awaitable[Any]], limit: int | None, /) -> list[Any]:
        """Run branches side by side, each with a journal place of its own."""
        ...

    async def gather_threads(
        self, scope: Scope, work: Sequence[Callable[[], Any]], limit: int | None, /, *, foreign: bool
    ) -> list[Any]:
        """Run branches side by side in threads."""
        ...

    async def sleep(self, scope: Scope, seconds: float | None, until: float | None, /, *, foreign: bool) -> None:
        """Wait for a moment."""
        ...

    async def wait_for(
        self, scope: Scope, signal: Signal[Any], ask: str | None, timeout_s: float | None, default: Any, /, *, foreign: bool
    ) -> Any:
        """Wait for a signal; ``default`` may be `agentq.context.UNSET`."""
        ...

    async def call_many(
        self,
        scope: Scope,
        calls: Sequence[Bound[Any]],
        /,
        *,
        limit: int | None,
        tolerate: int,
        first: int | None,
        foreign: bool,
    ) -> list[Any]:
        """Run children and return their outcomes in order."""
        ...

    async def enqueue(self, scope: Scope, calls: Sequence[Bound[Any]], /) -> list[str]:
        """Submit independent runs once."""
        ...

    async def append(self, scope: Scope, name: str, codec: Codec[Any], item: Any, /, *, foreign: bool) -> Entry:
        """Append to a transcript, or read what was appended here."""
        ...

    async def save(self, scope: Scope, codec: Codec[Any], state: Any, /) -> None:
        """Keep a snapshot of this branch."""
        ...

    async def restore(self, scope: Scope, codec: Codec[Any], /) -> Any:
        """Return the snapshot of this branch, or `agentq.context.UNSET`."""
        ...

    async def now(self, scope: Scope, /, *, foreign: bool) -> float:
        """Wall time as it was when this was first asked."""
        ...

    async def spend(self, scope: Scope, tokens: int, cost_nanos: int, /, *, foreign: bool) -> None:
        """Count usage with the step it happens in, or as an entry of its own."""
        ...

    def progress(self, scope: Scope, fraction: float | None, note: str, /) -> None:
        """Show how far it is."""
        ...

    def emit(self, scope: Scope, topic: str, payload: bytes, /) -> None:
        """Stream a piece to whoever watches."""
        ...

    def fetched(self, entry: Entry, /) -> bytes:
        """The value of an entry whose blob was fetched."""
        ...

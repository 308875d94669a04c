"""The verbs of a context, each handed to the room of the run that it belongs to."""

from __future__ import annotations

import functools
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from typing import TYPE_CHECKING, Any

from agentq.codec import Codec
from agentq.message import Entry
from agentq.scope import Scope
from agentq.signal import Signal
from agentq.step import spec_of
from agentq.worker.branches import Work, side_by_side
from agentq.worker.execution import Execution
from agentq.worker.steps import call_here
from agentq.worker.threads import Invoker, call_on_loop

if TYPE_CHECKING:
    from agentq.step import StepSpec
    from agentq.task import Bound

GATHER = "ctx.gather"


class LiveRun(Execution):
    """A claimed run at work, with the verbs of a context: what `agentq.running.Running` promises."""

    async def step(self, scope: Scope, spec: StepSpec, args: tuple[Any, ...], kwargs: dict[str, Any], /) -> Any:
        """Run or replay a step called on the event loop."""
        return await self.steps.step(scope, spec, args, kwargs, call_here, foreign=scope.foreign())

    def step_from_thread(self, scope: Scope, spec: StepSpec, args: tuple[Any, ...], kwargs: dict[str, Any], /) -> Any:
        """Run or replay a step called in a task's thread; its body runs in that thread."""

        def start(foreign: bool, invoke: Invoker) -> Coroutine[Any, Any, Any]:  # noqa: FBT001 - a callback's shape
            return self.steps.step(scope, spec, args, kwargs, invoke, foreign=foreign)

        return call_on_loop(self.loop, scope, start, self.track)

    def from_thread(self, scope: Scope, verb: Callable[[Scope, bool], Coroutine[Any, Any, Any]], /) -> Any:
        """Await a verb on the loop while the calling thread blocks."""
        return call_on_loop(self.loop, scope, lambda foreign, _: verb(scope, foreign), self.track)

    async def in_thread(self, scope: Scope, fn: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any], /) -> Any:
        """Call ``fn`` in a thread, as a step if it is one."""
        spec = spec_of(fn)
        if spec is None:
            return await self.line(functools.partial(fn, *args, **kwargs), scope, owner=False).run()
        bound_self = getattr(fn, "__self__", None)
        if bound_self is not None:
            args = (bound_self, *args)
        return await self.steps.step(scope, spec, args, kwargs, self._call_in_thread, foreign=scope.foreign())

    async def _call_in_thread(
        self, fn: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any], inside: Scope
    ) -> Any:
        return await self.line(functools.partial(fn, *args, **kwargs), inside, owner=True).run()

    async def gather(self, scope: Scope, work: Sequence[Awaitable[Any]], limit: int | None, /) -> list[Any]:
        """Run branches side by side."""

        def each(awaitable: Awaitable[Any]) -> Work:
            async def run(_: Scope) -> Any:
                return await awaitable

            return run

        try:
            if self.stopping is not None:
                await self.park(scope)
            foreign = scope.foreign()
            return await side_by_side(
                self,
                self.waits,
                scope,
                self._stems(scope, [each(item) for item in work], foreign=foreign),
                limit=limit,
                foreign=foreign,
            )
        finally:
            for item in work:
                if isinstance(item, Coroutine):
                    item.close()

    async def gather_threads(
        self, scope: Scope, work: Sequence[Callable[[], Any]], limit: int | None, /, *, foreign: bool
    ) -> list[Any]:
        """Run branches side by side in threads."""
        if self.stopping is not None:
            await self.park(scope)

        def each(fn: Callable[[], Any]) -> Work:
            async def run(branch: Scope) -> Any:
                return await self.line(fn, branch, owner=True).run()

            return run

        stems = self._stems(scope, [each(fn) for fn in work], foreign=foreign)
        return await side_by_side(self, self.waits, scope, stems, limit=limit, foreign=foreign)

    def _stems(self, scope: Scope, work: list[Work], *, foreign: bool) -> list[tuple[str, Work]]:
        branch, _, occurrence = scope.place(GATHER, str(len(work)), foreign=foreign)
        return [(f"{branch}/{occurrence}.{number}", each) for number, each in enumerate(work)]

    async def sleep(self, scope: Scope, seconds: float | None, until: float | None, /, *, foreign: bool) -> None:
        """Wait for a moment."""
        await self.mailbox.sleep(scope, seconds, until, foreign=foreign)

    async def wait_for(
        self, scope: Scope, signal: Signal[Any], ask: str | None, timeout_s: float | None, default: Any, /, *, foreign: bool
    ) -> Any:
        """Wait for a signal."""
        return await self.mailbox.wait_for(scope, signal, ask, timeout_s, default, foreign=foreign)

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
        return await self.children.call_many(scope, calls, limit=limit, tolerate=tolerate, first=first, foreign=foreign)

    async def enqueue(self, scope: Scope, calls: Sequence[Bound[Any]], /) -> list[str]:
        """Submit independent runs once."""
        return await self.children.enqueue(scope, calls, foreign=scope.foreign())

    async def append(self, scope: Scope, name: str, codec: Codec[Any], item: Any, /, *, foreign: bool) -> Entry:
        """Append to a transcript, or read what was appended here."""
        return await self.memory.append(scope, name, codec, item, foreign=foreign)

    async def save(self, scope: Scope, codec: Codec[Any], state: Any, /) -> None:
        """Keep a snapshot of this branch."""
        await self.memory.save(scope, codec, state)

    async def restore(self, scope: Scope, codec: Codec[Any], /) -> Any:
        """Return the snapshot of this branch, or `agentq.context.UNSET`."""
        return await self.memory.restore(scope, codec)

    async def now(self, scope: Scope, /, *, foreign: bool) -> float:
        """Wall time as it was when this was first asked."""
        return await self.memory.now(scope, foreign=foreign)

    async def spend(self, scope: Scope, tokens: int, cost_nanos: int, /, *, foreign: bool) -> None:
        """Count usage."""
        await self.memory.spend(scope, tokens, cost_nanos, foreign=foreign)

    def progress(self, scope: Scope, fraction: float | None, note: str, /) -> None:
        """Show how far it is."""
        if self._live(scope):
            self.at_loop(self.ledger.progress, fraction, note)

    def emit(self, scope: Scope, topic: str, payload: bytes, /) -> None:
        """Stream a piece to whoever watches."""
        if self._live(scope):
            self.at_loop(self.ledger.stream, topic, payload, scope.branch)

    def fetched(self, entry: Entry, /) -> bytes:
        """The value of an entry whose blob was fetched."""
        return self.memory.fetched(entry)

    def _live(self, scope: Scope) -> bool:
        return scope.frame is not None or not self.history.replaying(scope.branch)

"""What the rooms of a run (steps, waits, children, memory) may ask of the run as a whole."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Coroutine, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol

from agentq.clock import Clock
from agentq.message import Entry
from agentq.running import Running
from agentq.scope import Frame, Scope
from agentq.stores.base import Store
from agentq.worker.ledger import Ledger, Stop
from agentq.worker.presence import Presence

if TYPE_CHECKING:
    from agentq.step import StepSpec
    from agentq.task import Task

LINGER_S = 0.25
"""A wait that ends within this keeps its slot."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ExecutionOptions:
    """What a worker or a test varies. Times are in seconds."""

    grace_s: float = 10.0
    """For code to end after it was cancelled."""
    linger_s: float = LINGER_S
    fakes: Mapping[StepSpec | str, Callable[..., Any]] = field(default_factory=dict)
    """Functions that tests run instead of steps' own; by declaration, or by name for calls of ``ctx.step``."""
    sleep: Callable[[float], Awaitable[None]] = asyncio.sleep
    """How a step waits for its next try."""
    watch_body: Callable[[Frame, str], None] | None = None
    """Told of every step body that is about to run, with the run's id."""


class Host(Running, Protocol):
    """A run, as its rooms see it."""

    task: Task[..., Any]
    store: Store
    clock: Clock
    ledger: Ledger
    presence: Presence
    options: ExecutionOptions
    stopping: Stop | None
    """Why the code is being stopped, if it is."""
    unwinding: bool
    """Whether the stop has reached the code as cancellation."""

    @property
    def root(self) -> asyncio.Task[Any] | None:
        """The task that runs the task's function, once it has been started."""
        ...

    def stop(self, stop: Stop, reason: str) -> None:
        """End the code."""
        ...

    async def park(self, scope: Scope | None = None) -> None:
        """Stand still until the stop reaches the caller as cancellation; inside a step's body go on, so that it can end."""
        ...

    def step_ended(self) -> None:
        """Called when a step body's result is committed, or the body is over without one."""
        ...

    def replacement(self, spec: StepSpec) -> Callable[..., Any]:
        """The function to call for a step."""
        ...

    def background(self, work: Coroutine[Any, Any, Any]) -> None:
        """Do something for the run that nobody waits for; it ends before the run is settled."""
        ...

    async def fetch(self, entry: Entry) -> bytes:
        """The value of an entry, wherever it is kept."""
        ...

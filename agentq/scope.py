"""Where in a run the calling code stands: its run, its branch and its counters, carried by a context variable."""

from __future__ import annotations

import asyncio
import threading
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from agentq.running import Running


@dataclass(slots=True, eq=False)
class Frame:
    """A step body that is running: what it may pass on, and what it spends."""

    step: str
    key: str
    """Idempotency key, stable over tries, attempts and takeovers."""
    attempt: int
    """Number of this try, from 1."""
    tokens: int = 0
    cost_nanos: int = 0
    connection: Any = None
    """The driver's connection that a transactional step works on."""


@dataclass(slots=True, eq=False)
class Scope:
    """One sequential line of code of a run: the root, a branch of a gather, or the inside of a step's body."""

    run: Running
    branch: str
    owner: object = None
    """The asyncio task or the thread whose calls are counted by position; others are told apart by their arguments."""
    frame: Frame | None = None
    counters: dict[str, int] = field(default_factory=dict)

    def foreign(self) -> bool:
        """Whether the caller is a task or thread that agentq did not create."""
        return caller() is not self.owner

    def place(self, name: str, digest: str, *, foreign: bool) -> tuple[str, str, int]:
        """Identity of the next call of ``name`` here.

        A call from the owner is (branch, name, n-th call of that name); a foreign one is (branch ~ digest, name, n-th call
        with that digest), because tasks that agentq did not create interleave as they please.
        """
        if foreign:
            self.run.adopt()
            branch = f"{self.branch}~{digest}"
            key = f"{name}~{digest}"
        else:
            branch, key = self.branch, name
        count = self.counters.get(key, 0)
        self.counters[key] = count + 1
        return (branch, name, count)


def caller() -> object:
    """The asyncio task that is running, or the thread outside a loop."""
    try:
        task = asyncio.current_task()
    except RuntimeError:
        task = None
    return task or threading.current_thread()


_scope: ContextVar[Scope | None] = ContextVar("agentq_scope", default=None)

current_scope = _scope.get
enter_scope = _scope.set
leave_scope = _scope.reset

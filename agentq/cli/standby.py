"""A worker's place in its process while its store is down: probes and signals are answered, and the store is asked again."""

from __future__ import annotations

import asyncio
import contextlib
import os
import time
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager, AsyncExitStack
from typing import TYPE_CHECKING, Any, Final

from agentq.errors import StoreError, StoreUnavailable
from agentq.telemetry import emit

if TYPE_CHECKING:
    from agentq.app import AgentQ
    from agentq.settings import WorkerSettings
    from agentq.worker import Worker

_FIRST_S: Final = 0.2
_LONGEST_S: Final = 5.0
"""Between two attempts to open the store: at first, and at most."""
_SAY_S: Final = 10.0
"""Between two events that say the same."""


class Standby:
    """Stands for a worker from the start of its process on, and passes everything on once the worker is there."""

    def __init__(self, app: AgentQ, limits: WorkerSettings, *, where: str) -> None:
        """``where`` names the store for people, free of secrets."""
        self.worker: Worker | None = None
        self._app = app
        self._limits = limits
        self._where = where
        self._error = ""
        self._told = ""
        self._interrupt: Callable[[], object] | None = None

    async def open(self, stack: AsyncExitStack, opening: Callable[[], AbstractAsyncContextManager[Any]]) -> bool:
        """Enter what ``opening`` makes into ``stack``, again and again while the store is down.

        Returns False if it was told to drain meanwhile; nothing is open then.

        Raises:
            AgentQError: what waiting cannot mend, such as `StoreIncompatible`, `InvalidArgument` and rights that are missing.
        """
        task = asyncio.current_task()
        assert task is not None  # noqa: S101 - a coroutine runs in a task; for mypy
        self._interrupt = task.cancel
        began, said, pause = time.monotonic(), 0.0, _FIRST_S
        try:
            while not self._told:
                try:
                    await _check_rights(await stack.enter_async_context(opening()))
                except StoreUnavailable as error:
                    self._error, now = str(error), time.monotonic()
                    if not said or now - said >= _SAY_S:
                        said = now
                        emit("store.unavailable", store=self._where, verb="open", error=self._error)
                    await asyncio.sleep(pause)
                    pause = min(pause * 2, _LONGEST_S)
                else:
                    if self._error:
                        emit("store.recovered", store=self._where, duration_s=time.monotonic() - began)
                    return True
        except asyncio.CancelledError:
            if not self._told:
                raise
            task.uncancel()
        finally:
            self._interrupt = None
        emit("worker.stopped", reason=self._told, runs=0)
        return False

    def drain(self, reason: str) -> None:
        """Let the worker drain, or end the waiting for the store. Called on the event loop."""
        first, self._told = not self._told, self._told or reason
        if self.worker is not None:
            self.worker.drain(reason)
            return
        if first:
            emit("worker.draining", reason=reason, busy=0)
        if self._interrupt is not None:
            interrupt, self._interrupt = self._interrupt, None
            interrupt()

    def abort(self) -> None:
        """Let the worker stop at once."""
        if self.worker is not None:
            self.worker.abort()

    @property
    def ready(self) -> bool:
        """Whether the worker is there and ready."""
        return self.worker is not None and self.worker.ready

    def alive(self) -> tuple[bool, str]:
        """A store that is down is no reason to begin anew."""
        return self.worker.alive() if self.worker is not None else (True, "waiting for the store")

    def status(self) -> dict[str, Any]:
        """The worker's status; before it is there, the same without what only it knows."""
        if self.worker is not None:
            return self.worker.status()
        return {
            "app": self._app.name,
            "pool": self._limits.pool,
            "pid": os.getpid(),
            "state": "draining" if self._told else "starting",
            "ready": False,
            "slots": self._limits.concurrency,
            "busy": 0,
            "store": {"where": self._where, "ok": False, "error": self._error},
        }


async def _check_rights(opened: Any) -> None:
    """Refuse to work where the store says that we may not; a worker would try again and again."""
    ask = getattr(getattr(opened, "store", None), "lacking", None)
    with contextlib.suppress(StoreUnavailable):  # the worker waits for it
        if ask is not None and (said := await ask()):
            raise StoreError(said)

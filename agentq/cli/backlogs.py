"""What lies in a worker's broker, for its metrics: read on the app's event loop, kept for the threads that ask."""

from __future__ import annotations

import asyncio
import contextlib
import threading
import time
from collections.abc import Sequence
from concurrent.futures import CancelledError, Future
from typing import TYPE_CHECKING, Final

from agentq.errors import NotOpen
from agentq.telemetry.families import Seen

if TYPE_CHECKING:
    from agentq.app import AgentQ
    from agentq.brokers.base import Backlog, Broker

_FRESH_S: Final = 10.0
"""Figures younger than this are not asked for again: a broker's are minutes behind anyway, and each look is a request."""
_ANSWER_S: Final = 30.0
"""After so long without an answer a look has failed."""


class BacklogWatch:
    """Looks into the broker of an app when it is asked to; `agentq.telemetry.metrics.BacklogSource`."""

    def __init__(self, app: AgentQ) -> None:
        """Made on the event loop that the app is opened on; nothing is read yet."""
        self._app = app
        self._loop = asyncio.get_running_loop()
        self._lock = threading.Lock()
        self._looking: Future[None] | None = None
        self._asked_at = float("-inf")
        self._known: dict[str, tuple[Backlog, float]] = {}
        self._failing: set[str] = set()

    def refresh(self) -> None:
        """Begin to look, unless that was done just now. Callable from any thread; never blocks."""
        try:
            broker = self._app.broker
        except NotOpen:
            return
        with self._lock:
            busy = self._looking is not None and not self._looking.done()
            if broker is None or busy or time.monotonic() - self._asked_at < _FRESH_S:
                return
            look = self._look(broker, self._app.queues)
            try:
                self._looking = asyncio.run_coroutine_threadsafe(look, self._loop)
            except RuntimeError:  # the loop has closed: the process ends
                look.close()
            self._asked_at = time.monotonic()

    def seen(self, wait_s: float) -> Sequence[Seen]:
        """Return the newest figures, after waiting up to ``wait_s`` for those that are being read."""
        looking = self._looking
        if looking is not None:
            with contextlib.suppress(TimeoutError, CancelledError):  # then what is known stands, and says how old it is
                looking.result(wait_s)
        now = time.monotonic()
        with self._lock:
            late = looking is not None and not looking.done()
            return [self._one(queue, now, late=late) for queue in sorted({*self._known, *self._failing})]

    def _one(self, queue: str, now: float, *, late: bool) -> Seen:
        backlog, at = self._known.get(queue, (None, now))
        return Seen(queue, backlog, now - at, failing=queue in self._failing or late)

    async def _look(self, broker: Broker, queues: Sequence[str]) -> None:
        try:
            rows = await asyncio.wait_for(broker.backlog(queues), _ANSWER_S)
        except Exception:  # noqa: BLE001 - whatever it is: the figures that stand are told as old
            with self._lock:
                self._failing.update(queues)
            return
        now = time.monotonic()
        with self._lock:
            for row in rows:
                if row.error:
                    self._failing.add(row.queue)
                else:
                    self._failing.discard(row.queue)
                    self._known[row.queue] = (row, now)

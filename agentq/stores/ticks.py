"""Ticks of one process: a count per topic, and who waits for the next, in whichever event loop."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from typing import Final

WORK: Final = "work"
"""Something may be claimable, or a command is there for a worker."""
NEWS: Final = "news"
"""Something that a reader may want to look at."""


class Ticks:
    """Counts per topic, and who waits for the next, in whichever event loop."""

    def __init__(self) -> None:
        """Start at 0."""
        self._lock = threading.Lock()
        self._counts = {WORK: 0, NEWS: 0}
        self._waiting: dict[str, dict[asyncio.Future[None], asyncio.AbstractEventLoop]] = {WORK: {}, NEWS: {}}

    @property
    def watched(self) -> bool:
        """Whether anybody waits."""
        return any(self._waiting.values())

    def bump(self, topic: str) -> None:
        """One more; wakes everybody who waits for the topic."""
        with self._lock:
            self._counts[topic] += 1
            waiting, self._waiting[topic] = self._waiting[topic], {}
        for future, loop in waiting.items():
            with contextlib.suppress(RuntimeError):  # its loop was closed
                loop.call_soon_threadsafe(_done, future)

    async def watch(self, topic: str, seen: int, wait_s: float) -> int:
        """See `ReaderStore.watch`; real seconds, whatever the store's clock."""
        loop = asyncio.get_running_loop()
        with self._lock:
            if self._counts[topic] != seen or wait_s <= 0:
                return self._counts[topic]
            future: asyncio.Future[None] = loop.create_future()
            self._waiting[topic][future] = loop
        timer = loop.call_later(wait_s, _done, future)
        try:
            await future
        finally:
            timer.cancel()
            with self._lock:
                self._waiting[topic].pop(future, None)
        return self._counts[topic]


def _done(future: asyncio.Future[None]) -> None:
    if not future.done():
        future.set_result(None)

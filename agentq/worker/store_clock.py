"""A worker's clock that goes by the store where this machine's is wrong: timers are compared with the time of its server."""

from __future__ import annotations

import asyncio
import contextlib
import time
from typing import TYPE_CHECKING, Any, Final

from agentq.clock import SystemClock
from agentq.errors import StoreError
from agentq.telemetry import emit

if TYPE_CHECKING:
    from agentq.stores.base import Store

APART_S: Final = 5.0
"""What two clocks may differ by and still count as the same: more than NTP ever leaves, and than an answer takes."""
LOOK_S: Final = 60.0
_PATIENCE_S: Final = 2.0


class StoreClock(SystemClock):
    """The machine's clocks, its wall time corrected once it proved to be wrong."""

    def __init__(self) -> None:
        """Trust the machine."""
        self._apart_s = 0.0

    def wall(self) -> float:
        """Seconds since the Unix epoch, as the store's server has it."""
        return time.time() + self._apart_s

    async def compare(self, store: Store, worker: str = "") -> None:
        """Ask what time it is there, if ``store`` can tell; say it where the answer is another than before."""
        ask: Any = getattr(store, "now", None)
        if ask is None:
            return
        with contextlib.suppress(StoreError, TimeoutError):
            async with asyncio.timeout(_PATIENCE_S):
                before = time.time()
                there = float(await ask())
                after = time.time()
            apart = there - (before + after) / 2
            wrong = abs(apart) > APART_S
            if abs(apart - self._apart_s) > APART_S:
                emit("worker.clock", worker=worker, store=store.where, apart_s=round(apart, 1) if wrong else 0.0)
                self._apart_s = apart if wrong else 0.0

    async def keep(self, store: Store, worker: str) -> None:
        """Compare now and again, for ever."""
        while True:
            await asyncio.sleep(LOOK_S)
            await self.compare(store, worker)

"""The end of a worker: take no more, stop each run at its next step, hand it back; and what to do when that takes too long."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import TYPE_CHECKING

from agentq.worker.ledger import Stop

if TYPE_CHECKING:
    from agentq.worker.pool import Pool, Working


class Drain:
    """The drain of one worker. All methods belong to its event loop."""

    def __init__(self, drain_s: float) -> None:
        """Step bodies get ``drain_s`` seconds to end before they are cancelled."""
        self._drain_s = drain_s
        self._pool: Pool | None = None
        self._stir: Callable[[], None] = lambda: None
        self._stop: Stop | None = None
        self._hurried = False
        self._timer: asyncio.TimerHandle | None = None
        self.requested = False
        """Whether nothing more is claimed."""
        self.reason = ""

    @property
    def handing_over(self) -> bool:
        """Whether runs are stopped, and not only finished."""
        return self._stop is not None

    def join(self, working: Working) -> None:
        """A run that was claimed while the drain began is stopped like the others."""
        if self._stop is not None:
            working.stop(self._stop, self.reason)
        if self._hurried:
            working.hurry()

    def attach(self, pool: Pool, stir: Callable[[], None]) -> None:
        """Drain this pool; ``stir`` wakes what waits for the request."""
        self._pool, self._stir = pool, stir
        if self.requested:
            self._begin()

    def request(self, reason: str, *, stop: Stop | None) -> None:
        """End the worker: with ``stop`` its runs are stopped at their next step, without they are finished."""
        first = not self.requested
        if first:
            self.requested, self.reason = True, reason
        if stop is not None and self._stop is None:
            self._stop, self.reason = stop, reason
            self._begin()
        self._stir()

    def hurry(self) -> None:
        """Cancel step bodies now."""
        self._hurried = True
        if self._pool is not None:
            self._pool.hurry_all()

    async def finish(self) -> None:
        """Wait until every run has been settled, handed back or abandoned."""
        if self._pool is not None:
            await self._pool.empty()
        if self._timer is not None:
            self._timer.cancel()

    def _begin(self) -> None:
        if self._pool is None or self._stop is None:
            return
        self._pool.stop_all(self._stop, self.reason)
        if self._hurried:
            self._pool.hurry_all()
        elif self._timer is None:
            self._timer = asyncio.get_running_loop().call_later(self._drain_s, self.hurry)

"""The last write of a claim: sent until the store has answered, or until there is no use in waiting for that."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

from agentq.message import Verdict

if TYPE_CHECKING:
    from agentq.message import Entry, Settlement
    from agentq.worker.ledger import Ledger


class Settling:
    """Writes a run's outcome."""

    def __init__(self, ledger: Ledger) -> None:
        """Write through ``ledger``."""
        self._ledger = ledger
        self._job: asyncio.Task[Any] | None = None
        self._given_up = False

    async def settle(self, settlement: Settlement, running_s: float, *entries: Entry) -> Verdict:
        """See `Ledger.settle`; given up, it counts as fenced."""
        self._job = job = asyncio.current_task()
        try:
            return await self._ledger.settle(settlement, running_s, *entries)
        except asyncio.CancelledError:
            if job is None or not self._given_up:
                raise
            job.uncancel()
            self._ledger.close()
            return Verdict.FENCED
        finally:
            self._job = None

    def give_up(self) -> None:
        """Wait no longer for the store's word: the claim is unsafe, and whoever takes it next does the rest again."""
        if self._job is not None:
            self._given_up = True
            self._job.cancel()

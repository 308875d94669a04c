"""Deleting what is past its retention, now and then."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from agentq import settings
from agentq.errors import StoreError
from agentq.telemetry.outage import outage_of

if TYPE_CHECKING:
    from agentq.stores.base import Store

SWEEP_S = 600.0
"""Between looks for final runs past their retention."""


async def sweep(store: Store, worker: str) -> None:
    """Look for ever."""
    retention = settings.load().store.retention_s
    while True:
        try:
            while await store.sweep(retention_s=retention) > 0:  # noqa: ASYNC110 - not a wait: work in slices
                await asyncio.sleep(1.0)
        except StoreError as error:
            outage_of(store).met(error, verb="sweep", worker=worker)
        await asyncio.sleep(SWEEP_S)

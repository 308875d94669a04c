"""What every store must do, clause by clause; anybody who writes a store can run it.

With pytest::

    @pytest.mark.parametrize("clause", conformance.CLAUSES, ids=str)
    async def test_my_store(clause):
        clock = SimulatedClock()
        async with MyStore(clock=clock) as store:
            await clause(store, clock)

Without: ``await conformance.check(lambda clock: MyStore(clock=clock))`` answers what failed. Each clause wants an empty store.
Where a second handle on the same data can be opened (another process's view), pass it as ``other``; some clauses then use it
for the second worker.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from agentq.testing.clock import SimulatedClock
from agentq.testing.conformance import (
    arriving,
    burying,
    claiming,
    dying,
    following,
    journal,
    ordering,
    ownership,
    reading,
    ringing,
    steering,
    submitting,
    waiting,
    waking,
)
from agentq.testing.conformance.bench import Clause

if TYPE_CHECKING:
    from collections.abc import Callable
    from contextlib import AbstractAsyncContextManager

    from agentq.clock import Clock
    from agentq.stores.base import Store

__all__ = ["CLAUSES", "Clause", "check"]

_MODULES = (
    submitting, arriving, ownership, claiming, ordering, following, dying, journal, waiting, waking, steering, reading, burying,
    ringing,
)  # fmt: skip

CLAUSES: tuple[Clause, ...] = tuple(
    clause for module in _MODULES for clause in vars(module).values() if isinstance(clause, Clause)
)


async def check(open_store: Callable[[Clock], AbstractAsyncContextManager[Store]]) -> dict[str, BaseException]:
    """Run every clause on a store that ``open_store(clock)`` opens empty; answer those that failed, by name."""
    failed: dict[str, BaseException] = {}
    for clause in CLAUSES:
        clock = SimulatedClock()
        try:
            async with open_store(clock) as store:
                await clause(store, clock)
        except Exception as error:  # noqa: BLE001 - whatever a clause raises is its result
            failed[str(clause)] = error
    return failed

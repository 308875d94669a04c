"""Every broker passes every clause that applies to it."""

from __future__ import annotations

import uuid
from typing import TYPE_CHECKING, Any

import pytest

from agentq.testing.broker import MemoryBroker
from agentq.testing.clock import SimulatedClock
from agentq.testing.conformance.brokers import CLAUSES, Clause, Setting, check

if TYPE_CHECKING:
    from collections.abc import Callable

GIVE_UP_AFTER = 5


def memory(**kind: Any) -> Setting:
    clock, name = SimulatedClock(), uuid.uuid4().hex

    def make() -> MemoryBroker:
        return MemoryBroker(name, clock=clock, give_up_after=GIVE_UP_AFTER, wait_s=0.05, **kind)

    keeper = make()

    def unreachable() -> MemoryBroker:
        broker = MemoryBroker(clock=clock, **kind)
        broker.trouble.down = True
        return broker

    async def pass_time(seconds: float) -> None:
        clock.advance(seconds)

    async def stop() -> None:
        keeper.trouble.down = True

    async def start() -> None:
        keeper.trouble.down = False

    return Setting(
        open=make,
        pass_time=pass_time,
        wall=clock.wall,
        quiet_s=0.05,
        give_up_after=GIVE_UP_AFTER,
        queues_are_made=False,
        unreachable=unreachable,
        stop=stop,
        start=start,
    )


MEMORY: dict[str, Callable[[], Setting]] = {
    "memory": memory,
    "memory in order": lambda: memory(ordering=True),
    "memory log": lambda: memory(partitions=3),
}


@pytest.fixture(params=MEMORY)
def setting(request):
    return MEMORY[request.param]()


@pytest.mark.parametrize("clause", CLAUSES, ids=str)
async def test_broker(clause: Clause, setting: Setting):
    if why := clause.does_not_apply(setting):
        pytest.skip(why)
    await clause(setting)


async def test_the_suite_runs_without_pytest():
    assert await check(memory()) == {}


def test_clauses_are_told_apart_by_name():
    names = [str(clause) for clause in CLAUSES]
    assert len(names) == len(set(names)) >= 40

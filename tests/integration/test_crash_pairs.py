"""Runs that come through a broker, killed, paused and stuttered at every operation of their intake and of their own.

The brokers in memory follow the simulated clock and get every fault; real ones do not, so no worker of theirs stands still for
longer than its lease, and only the faults around intake are tried.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path

import pytest

from agentq import AgentQ, Context, Signal, testing
from agentq.brokers.base import Broker
from agentq.stores import open_store
from agentq.stores.base import Store
from agentq.testing import FaultKind, MemoryBroker, SimulatedClock
from tests.helpers.postgres import connected, with_schema

aq = AgentQ("pairs")
approved = Signal("approved", bool)


@aq.step
async def ask(prompt: str) -> str:
    return prompt.upper()


@aq.task(queue="notes")
async def note(ctx: Context, text: str) -> str:
    return await ask(text)


@aq.task(queue="reports")
async def report(ctx: Context, topic: str) -> list[object]:
    first = await ask(topic)
    handle = await note.enqueue(topic)
    published = await ctx.wait_for(approved, timeout=timedelta(days=1))
    return [first, handle.id != ctx.run_id, published, await ctx.call(note, first)]


CALL = report.options(key="k", tenant="acme").bind("hi")
SIGNALS = {approved: True}

MEMORY_BROKERS: dict[str, Callable[[SimulatedClock], Broker]] = {
    "queue": lambda clock: MemoryBroker(clock=clock, wait_s=0),
    "ordered queue": lambda clock: MemoryBroker(clock=clock, wait_s=0, ordering=True),
    "log": lambda clock: MemoryBroker(clock=clock, wait_s=0, partitions=3),
}


def sqlite_stores(folder: Path) -> Callable[[SimulatedClock], Store]:
    numbers = itertools.count()
    return lambda clock: open_store(f"sqlite:///{folder}/{next(numbers)}.db", clock=clock)


@pytest.fixture
async def postgres_stores(postgres_url: str):
    """Makes stores in fresh schemas."""
    made: list[str] = []

    def make(clock: SimulatedClock) -> Store:
        made.append(f"crash_{id(made):x}_{len(made)}")
        return open_store(with_schema(postgres_url, made[-1]), clock=clock)

    yield make
    async with connected(postgres_url) as connection:
        for schema in made:
            await connection.execute(f"drop schema if exists {schema} cascade")


@pytest.mark.parametrize("broker", MEMORY_BROKERS.values(), ids=MEMORY_BROKERS)
async def test_it_comes_out_the_same_on_a_store_in_memory(broker) -> None:
    found = await testing.crash_everywhere(CALL, signals=SIGNALS, broker=broker, pairs=100, seed=2)
    assert found.scenarios == found.operations * len(FaultKind) + 100
    assert set(found.by_kind) == set(FaultKind)


TELLING = {
    "queue": {FaultKind.DIE_AFTER, FaultKind.NO_REPLY, FaultKind.PAUSE, FaultKind.TWICE},
    "log": {FaultKind.DIE_AFTER, FaultKind.PAUSE},
}
"""Kinds in which stores can differ; for each play of a scene a store is made from nothing, which takes its time."""


@pytest.mark.parametrize("name", TELLING)
async def test_it_comes_out_the_same_on_sqlite(name, tmp_path) -> None:
    found = await testing.crash_everywhere(
        CALL, signals=SIGNALS, broker=MEMORY_BROKERS[name], store=sqlite_stores(tmp_path), kinds=TELLING[name]
    )
    assert set(found.by_kind) == TELLING[name]


@pytest.mark.parametrize("name", TELLING)
async def test_it_comes_out_the_same_on_postgresql(name, postgres_stores) -> None:
    found = await testing.crash_everywhere(
        CALL, signals=SIGNALS, broker=MEMORY_BROKERS[name], store=postgres_stores, kinds=TELLING[name]
    )
    assert set(found.by_kind) == TELLING[name]

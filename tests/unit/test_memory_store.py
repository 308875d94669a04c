"""What the in-memory store has of its own, beside the contract."""

from __future__ import annotations

from agentq.message import RunQuery
from agentq.stores.memory import MemoryStore
from agentq.testing.clock import SimulatedClock
from agentq.testing.conformance.bench import Bench


def bench(store: MemoryStore) -> Bench:
    return Bench(store, SimulatedClock(), store)


async def test_stores_of_one_name_share_their_runs_while_one_of_them_lives():
    first, second, other = MemoryStore("shared"), MemoryStore("shared"), MemoryStore("else")
    await bench(first).submit("run-a")
    assert [run.id for run in await second.runs(RunQuery())] == ["run-a"]
    assert await other.runs(RunQuery()) == []
    del first, second
    assert await MemoryStore("shared").runs(RunQuery()) == []


async def test_stores_without_a_name_share_nothing():
    first, second = MemoryStore(), MemoryStore()
    await bench(first).submit("run-a")
    assert await second.runs(RunQuery()) == []


def test_a_memory_store_says_what_it_is():
    assert (MemoryStore().where, MemoryStore("x").where) == ("memory", "memory:x")
    assert not MemoryStore().shared

"""Runs that come through a broker, killed, paused and stuttered at every operation of their intake and of their own.

The brokers in memory follow the simulated clock and get every fault; real ones do not, so no worker of theirs stands still for
longer than its lease, and only the faults around intake are tried.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from contextlib import asynccontextmanager
from datetime import timedelta
from pathlib import Path

import pytest

from agentq import AgentQ, Context, Signal, testing
from agentq.brokers.base import Broker, Delivery, Finding
from agentq.message import Admission, Submitted
from agentq.stores import open_store
from agentq.stores.base import Store
from agentq.stores.memory import MemoryStore
from agentq.testing import Broken, FaultKind, MemoryBroker, SimulatedClock
from tests.helpers import kafka
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


INTAKE = {"receive", "admit", "acknowledge", "send"}
OUTLIVED = {FaultKind.DIE_AFTER, FaultKind.NO_REPLY, FaultKind.TWICE}


async def test_it_comes_out_the_same_through_sqs_on_postgresql(elasticmq_url, postgres_stores, monkeypatch) -> None:
    pytest.importorskip("aiobotocore")
    from agentq.brokers.sqs import SQSBroker  # noqa: PLC0415 - the client is an extra
    from tests.helpers import sqs  # noqa: PLC0415 - as above

    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, "testing")

    class Brief(SQSBroker):
        """Its queues hide what was delivered for a second only."""

        async def inspect(self, queues: Sequence[str], *, fix: bool = False) -> Sequence[Finding]:
            found = await super().inspect(queues, fix=fix)
            for queue in queues:
                name = self._address.name(queue)
                await self._clients.ask("set_queue_attributes", name, Attributes={"VisibilityTimeout": "1"})
            return found

    def broker(_: SimulatedClock) -> Broker:
        return Brief(sqs.url(elasticmq_url), app=sqs.new_app())

    found = await testing.crash_everywhere(
        CALL, signals=SIGNALS, broker=broker, store=postgres_stores, at=INTAKE, kinds=OUTLIVED
    )
    assert set(found.by_kind) == OUTLIVED


async def test_it_comes_out_the_same_through_kafka_on_postgresql(kafka_address, postgres_stores) -> None:
    pytest.importorskip("aiokafka")
    from agentq.brokers.kafka import KafkaBroker  # noqa: PLC0415 - the client is an extra

    def broker(_: SimulatedClock) -> Broker:
        return KafkaBroker(f"kafka://{kafka_address}?partitions=2", app=kafka.fresh())

    found = await testing.crash_everywhere(
        CALL, signals=SIGNALS, broker=broker, store=postgres_stores, at=INTAKE, kinds=OUTLIVED
    )
    assert set(found.by_kind) == OUTLIVED


class _Hasty(MemoryBroker):
    """A broker that drops what it delivers, as if it were acknowledged."""

    @asynccontextmanager
    async def _inbox(self, queues, positions, *, dead):
        async with super()._inbox(queues, positions, dead=dead) as inbox:
            receive = inbox.receive

            async def hasty(room: int) -> Sequence[Delivery]:
                found = await receive(room)
                await inbox.acknowledge(found)
                return found

            inbox.receive = hasty
            yield inbox


async def test_a_broker_that_drops_what_it_delivers_is_found_out() -> None:
    with pytest.raises(Broken, match="neither a row nor a message after receive"):
        await testing.crash_everywhere(CALL, signals=SIGNALS, broker=lambda clock: _Hasty(clock=clock, wait_s=0))


class _Forgetful(MemoryStore):
    """A store that answers an admission before it is in."""

    async def admit(self, admission: Admission) -> list[Submitted]:
        return [Submitted(id=each.id, created=True) for each in admission.envelopes]


async def test_a_store_that_answers_too_early_is_found_out() -> None:
    with pytest.raises(Broken, match="neither a row nor a message after acknowledge"):
        await testing.crash_everywhere(
            CALL, signals=SIGNALS, broker=MEMORY_BROKERS["queue"], store=lambda clock: _Forgetful(clock=clock)
        )

"""Several inboxes of one group: they share, they take over, and a full one keeps its place."""

import asyncio
import os
import sys
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from agentq.brokers.base import Delivery, Inbox
from agentq.testing.wait import wait_until
from tests.helpers import kafka_reader
from tests.helpers.kafka_lab import Lab, messages, send, take


@pytest.fixture
def lab(kafka_address: str) -> Any:
    lab = Lab(kafka_address)
    with lab.listening():
        yield lab


class Reader:
    """Receives, admits and acknowledges beside the test."""

    def __init__(self, lab: Lab, inbox: Inbox) -> None:
        self.lab = lab
        self.inbox = inbox
        self.room = 100
        self.taken: list[Delivery] = []

    async def run(self) -> None:
        while True:
            deliveries = await self.inbox.receive(self.room)
            self.lab.store.admit(deliveries)
            await self.inbox.acknowledge(deliveries)
            self.taken += deliveries

    def partitions(self) -> set[int]:
        return {place.partition for place in self.inbox._readings} - {place.partition for place in self.inbox._unplaced}  # type: ignore[attr-defined]


@asynccontextmanager
async def reader(lab: Lab) -> AsyncIterator[Reader]:
    async with lab.inbox() as (_, inbox):
        one = Reader(lab, inbox)
        task = asyncio.create_task(one.run())
        try:
            yield one
        finally:
            task.cancel()
            await asyncio.wait({task})
    if not task.cancelled():
        task.result()


async def test_two_share_the_partitions_and_one_takes_over(lab: Lab) -> None:
    await lab.create(6)
    async with lab.broker() as broker, reader(lab) as first:
        await wait_until("one has all", lambda: len(first.partitions()) == 6, timeout_s=20)
        await send(broker, *messages(0, 60))
        async with reader(lab) as second:
            await wait_until("each has a half", lambda: len(first.partitions()) == len(second.partitions()) == 3, timeout_s=20)
            assert first.partitions() | second.partitions() == set(range(6))
            await send(broker, *messages(60, 120))
            await wait_until("all are admitted", lambda: len(lab.store.admitted) == 120)
            await wait_until("the second had its share", lambda: second.taken)
        # It left; else its session would have to end first, after 45 s.
        await wait_until("one has all again", lambda: len(first.partitions()) == 6, timeout_s=20)
        await send(broker, *messages(120, 130))
        await wait_until("all are admitted", lambda: len(lab.store.admitted) == 130)

        async def nothing_left() -> bool:
            [backlog] = await broker.backlog(["q"])
            return backlog.partitions == (0,) * 6

        await wait_until("all are acknowledged", nothing_left)


async def test_partitions_that_stay_are_read_on_without_a_seam(lab: Lab) -> None:
    await lab.create(4)
    async with lab.broker() as broker, lab.inbox() as (_, inbox):
        await send(broker, *messages(0, 40))
        taken = await take(inbox, 40)  # on their way into the store
        async with reader(lab) as other:

            async def shared() -> bool:
                found.extend(await inbox.receive(100))
                return len(other.partitions()) == 2

            found: list[Delivery] = []
            await wait_until("each has a half", shared, timeout_s=20)
            await wait_until("the other has read its half", lambda: {d.id for d in other.taken} != set())
            kept = [d for d in taken if d.position and d.position.partition not in other.partitions()]
            lab.store.admit(kept)
            await inbox.acknowledge(taken)
            await send(broker, *messages(40, 80))
            deadline = asyncio.get_running_loop().time() + 20
            while len({*lab.store.admitted} | {d.id for d in found}) < 80 and asyncio.get_running_loop().time() < deadline:
                found += await inbox.receive(100)
    ids = [delivery.id for delivery in found]
    assert len({*lab.store.admitted, *ids}) == 80
    assert not set(ids) & {delivery.id for delivery in kept}


async def test_without_room_the_membership_is_kept(kafka_address: str) -> None:
    lab = Lab(kafka_address, parameters="poll_interval=1s")
    await lab.create(2)
    with lab.listening():
        async with lab.broker() as broker, reader(lab) as one:
            await wait_until("it reads", lambda: len(one.partitions()) == 2, timeout_s=20)
            one.room = 0
            await send(broker, *messages(0, 10))
            full_since = time.monotonic()
            await wait_until("it had no room for thrice the poll interval", lambda: time.monotonic() - full_since > 3)
            assert len(one.taken) <= 10
            assert len(lab.told("broker.assigned")) == 1
            one.room = 100
            await wait_until("all came", lambda: len(one.taken) == 10)
            assert len(lab.told("broker.assigned")) == 1


async def test_who_polls_no_more_loses_the_partitions(kafka_address: str) -> None:
    lab = Lab(kafka_address, parameters="poll_interval=1s&session=3s")
    await lab.create(2)
    async with lab.broker() as broker, lab.inbox() as (_, stuck):
        await send(broker, *messages(0, 10, group="g"))
        await take(stuck, 10)
        async with reader(lab) as other:
            await wait_until("the other has all", lambda: len(other.partitions()) == 2, timeout_s=30)
            await wait_until("…and what was not admitted", lambda: len(lab.store.admitted) == 10)
        found = await stuck.receive(100)  # it comes back by itself
        async with asyncio.timeout(30):
            await send(broker, *messages(10, 12))
            while len(found) < 2:
                found = [*found, *await stuck.receive(100)]
    assert {delivery.body for delivery in found} == {b"10", b"11"}


async def test_a_killed_worker_s_messages_are_taken_over(kafka_address: str) -> None:
    lab = Lab(kafka_address, parameters="session=2s")
    await lab.create(2)
    async with lab.broker() as broker:
        await send(broker, *messages(0, 10))
        environment = os.environ | {"PYTHONPATH": str(Path(__file__).parents[2])}
        process = await asyncio.create_subprocess_exec(
            sys.executable, kafka_reader.__file__, lab.url, lab.app, stdout=asyncio.subprocess.PIPE, env=environment
        )
        assert process.stdout is not None
        lost = {(await process.stdout.readline()).decode().strip() for _ in range(10)}
        process.kill()
        await process.wait()
        async with lab.inbox() as (_, inbox):
            found = await lab.admit(inbox, 10)
    assert {delivery.id for delivery in found} == lost


async def test_a_blocked_event_loop_comes_back_by_itself(kafka_address: str) -> None:
    lab = Lab(kafka_address, parameters="session=1s")
    await lab.create(2)
    async with lab.broker() as broker, lab.inbox() as (_, inbox):
        await send(broker, *messages(0, 10))
        await lab.admit(inbox, 10)
        taken = await send_and_take(lab, broker, inbox)
        time.sleep(3)  # noqa: ASYNC251 - what a user's code does
        await lab.admit(inbox, 0)
        lab.store.admit(taken)
        await inbox.acknowledge(taken)
        await send(broker, *messages(20, 30))
        await wait_until("all came", lambda: _more(lab, inbox, 30), timeout_s=30)


async def send_and_take(lab: Lab, broker: Any, inbox: Inbox) -> list[Delivery]:
    await send(broker, *messages(10, 20))
    return await take(inbox, 10)


async def _more(lab: Lab, inbox: Inbox, number: int) -> bool:
    deliveries = await inbox.receive(100)
    lab.store.admit(deliveries)
    await inbox.acknowledge(deliveries)
    return len(lab.store.admitted) == number

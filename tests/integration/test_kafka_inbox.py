"""Where Kafka's messages are read on from, and that none is passed over, on a real broker."""

import asyncio
import time
from typing import Any

import pytest
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition

from agentq.brokers.base import Outgoing
from agentq.brokers.kafka import inbox as inbox_module
from agentq.errors import BrokerError
from agentq.testing.wait import wait_until
from tests.helpers import kafka
from tests.helpers.kafka_lab import Lab, messages, send, take


@pytest.fixture
def lab(kafka_address: str) -> Any:
    lab = Lab(kafka_address)
    with lab.listening():
        yield lab


async def forget_committed(lab: Lab, partitions: int = 1) -> None:
    """What a group that was empty for a week finds: nothing it committed."""
    consumer = AIOKafkaConsumer(bootstrap_servers=lab.address, group_id=f"agentq.{lab.app}", enable_auto_commit=False)
    await consumer.start()
    try:
        places = [TopicPartition(lab.topic(), number) for number in range(partitions)]
        consumer.assign(places)
        await consumer.commit(dict.fromkeys(places, 0))
    finally:
        await consumer.stop()


async def test_a_message_comes_whole(lab: Lab) -> None:
    await lab.create()
    async with lab.inbox() as (broker, inbox):
        await send(broker, Outgoing(id="r", queue="q", body=b"{}", group="k", attributes={"tenant": "é"}))
        [delivery] = await take(inbox, 1)
        assert (delivery.queue, delivery.body, delivery.attributes) == ("q", b"{}", {"tenant": "é"})
        assert delivery.position is not None
        assert delivery.position.source.startswith("kafka:")
        assert delivery.position.offset == 1
        assert delivery.id == f"{delivery.position.source}/0/0"
        assert delivery.sent_at is None, "a producer's clock is nobody's word"


async def test_when_a_message_came_is_the_brokers_word(lab: Lab) -> None:
    await lab.create(message_timestamp_type="LogAppendTime")
    async with lab.inbox() as (broker, inbox):
        before = time.time()
        await send(broker, Outgoing(id="r", queue="q", body=b"{}"))
        [delivery] = await take(inbox, 1)
        assert delivery.sent_at is not None
        assert abs(delivery.sent_at - before) < 60


@pytest.mark.parametrize("codec", ["gzip", "snappy", "lz4", "zstd"])
async def test_it_is_read_however_it_was_compressed(lab: Lab, codec: str) -> None:
    await lab.create(compression_type=codec)
    async with lab.inbox() as (broker, inbox):
        await send(broker, *messages(0, 3))
        await lab.admit(inbox, 3)
    assert lab.bodies == ["0", "1", "2"]


async def test_what_cannot_be_uncompressed_here_says_what_to_install(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("aiokafka.codec.has_zstd", lambda: False)
    monkeypatch.setattr("aiokafka.codec.cramjam", None)
    await lab.create(compression_type="zstd")
    async with lab.inbox() as (broker, inbox):
        await send(broker, *messages(0, 3))
        with pytest.raises(BrokerError, match=r"zstd.*pip install 'agentq\[kafka\]'") as refused:
            await take(inbox, 1)
        assert type(refused.value) is BrokerError


async def test_it_reads_on_where_the_store_stands(lab: Lab) -> None:
    await lab.create()
    async with lab.inbox() as (broker, inbox):
        await send(broker, *messages(0, 5))
        await lab.admit(inbox, 5)
    await forget_committed(lab)
    async with lab.inbox() as (broker, inbox):
        await send(broker, *messages(5, 7))
        await lab.admit(inbox, 2)
        assert lab.bodies == [str(n) for n in range(7)]
        [backlog] = await broker.backlog(["q"])
        assert backlog.ready == 0  # and the group learns it


async def test_a_store_that_knows_nothing_reads_on_where_the_group_stands(lab: Lab) -> None:
    await lab.create()
    async with lab.inbox() as (broker, inbox):
        await send(broker, *messages(0, 3))
        await lab.admit(inbox, 3)
    lab.store.read.clear()
    async with lab.inbox() as (broker, inbox):
        await send(broker, *messages(3, 4))
        await lab.admit(inbox, 1)
    assert lab.bodies == ["0", "1", "2", "3"]


async def test_what_was_not_acknowledged_comes_again(lab: Lab) -> None:
    await lab.create()
    async with lab.inbox() as (broker, inbox):
        await send(broker, *messages(0, 4))
        taken = await take(inbox, 4)
        await inbox.acknowledge(taken[2:])  # a hole before them
        [backlog] = await broker.backlog(["q"])
        assert backlog.ready == 4
    async with lab.inbox() as (_, inbox):
        again = await take(inbox, 4)
    assert [delivery.id for delivery in again] == [delivery.id for delivery in taken]


async def test_released_messages_come_at_once_and_in_order(lab: Lab) -> None:
    await lab.create()
    async with lab.inbox() as (broker, inbox):
        await send(broker, *messages(0, 6))
        taken = await take(inbox, 6)
        lab.store.admit(taken[:2])
        await inbox.acknowledge(taken[:2])
        await inbox.release(taken[2:])
        again = await lab.admit(inbox, 4)
        assert [delivery.id for delivery in again] == [delivery.id for delivery in taken[2:]]
        assert (await broker.backlog(["q"]))[0].ready == 0


async def test_a_topic_made_anew_is_read_from_its_start(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(inbox_module, "LOOK_S", 0.5)
    monkeypatch.setattr(inbox_module, "SILENCE_S", 0.5)
    await lab.create()
    async with lab.inbox() as (broker, inbox):
        await send(broker, *messages(0, 3))
        await lab.admit(inbox, 3)
    await kafka.delete(lab.address, lab.topic())
    await _gone(lab)
    await lab.create()
    async with lab.broker() as other:
        await send(other, *messages(10, 15))
    async with lab.inbox() as (_, inbox):
        await lab.admit(inbox, 5)
    assert lab.bodies == ["0", "1", "2", "10", "11", "12", "13", "14"]
    assert len(lab.store.read) == 2


async def test_a_topic_made_anew_under_a_reader(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(inbox_module, "LOOK_S", 0.2)
    monkeypatch.setattr(inbox_module, "SILENCE_S", 0.2)
    await lab.create()
    async with lab.inbox() as (broker, inbox):
        await send(broker, *messages(0, 3))
        await lab.admit(inbox, 3)
        await kafka.delete(lab.address, lab.topic())

        async def refused() -> bool:
            try:
                await inbox.receive(10)
            except BrokerError as error:
                return "doctor --fix" in str(error)
            return False

        await wait_until("the topic is missed", refused, timeout_s=20)
        await lab.create()
        async with lab.broker() as other:
            await send(other, *messages(10, 15))

        async def arrived() -> bool:
            try:
                deliveries = await inbox.receive(10)
            except BrokerError:
                return False
            lab.store.admit(deliveries)
            await inbox.acknowledge(deliveries)
            lab.bodies += [delivery.body.decode() for delivery in deliveries]
            return lab.bodies[-1] == "14"

        await wait_until("the new topic was read", arrived, timeout_s=30)
    assert lab.bodies == ["0", "1", "2", "10", "11", "12", "13", "14"]
    assert [event["queue"] for event in lab.told("broker.refused")] == ["q"]


async def _gone(lab: Lab) -> None:
    async def missing() -> bool:
        async with kafka.admin(lab.address) as client:
            return lab.topic() not in await client.list_topics()

    await wait_until("the topic is gone", missing)


async def test_what_retention_ate_is_told(lab: Lab) -> None:
    await lab.create()
    async with lab.inbox() as (broker, inbox):
        await send(broker, *messages(0, 3))
        await lab.admit(inbox, 3)
    async with lab.broker() as broker:
        await send(broker, *messages(3, 10))
    await kafka.trim(lab.address, lab.topic(), 0, 8)
    async with lab.inbox() as (_, inbox):
        await lab.admit(inbox, 2)
    assert lab.bodies == ["0", "1", "2", "8", "9"]
    [gap] = lab.told("broker.gap")
    assert (gap["queue"], gap["partition"], gap["expected"], gap["found"]) == ("q", 0, 3, 8)
    assert "5 messages" in gap["reason"]


async def test_what_retention_ate_under_a_reader_is_told(lab: Lab) -> None:
    await lab.create()
    async with lab.inbox() as (broker, inbox):
        await send(broker, *messages(0, 3))
        await lab.admit(inbox, 3, room=1)
        assert not await inbox.receive(0)
        await send(broker, *messages(3, 10))
        taken = await take(inbox, 1)
        await inbox.release(taken)
        await kafka.trim(lab.address, lab.topic(), 0, 8)
        await lab.admit(inbox, 2)
    assert lab.bodies[-2:] == ["8", "9"]
    assert [gap["found"] for gap in lab.told("broker.gap")] == [8]


async def test_marks_of_transactions_leave_no_lag(lab: Lab) -> None:
    await lab.create()
    producer = AIOKafkaProducer(bootstrap_servers=lab.address, transactional_id=lab.app)
    await producer.start()
    try:
        async with producer.transaction():
            await producer.send_and_wait(lab.topic(), b"kept")
        await producer.begin_transaction()
        await producer.send_and_wait(lab.topic(), b"aborted")
        await producer.abort_transaction()
    finally:
        await producer.stop()
    async with lab.inbox() as (broker, inbox):
        await lab.admit(inbox, 1)

        async def read() -> bool:
            assert not await inbox.receive(10)
            return (await broker.backlog(["q"]))[0].ready == 0

        await wait_until("the position passed the marks", read)
    assert lab.bodies == ["kept"]


async def test_a_message_without_a_value_is_delivered_empty(lab: Lab) -> None:
    await lab.create()
    producer = AIOKafkaProducer(bootstrap_servers=lab.address)
    await producer.start()
    try:
        await producer.send_and_wait(lab.topic(), None, key=b"k", headers=[("odd", b"\xff"), ("none", None)])
    finally:
        await producer.stop()
    async with lab.inbox() as (_, inbox):
        [delivery] = await take(inbox, 1)
    assert delivery.body == b""
    assert delivery.attributes == {"odd": "�", "none": ""}


async def test_one_group_keeps_its_order_over_many_partitions(lab: Lab) -> None:
    await lab.create(8)
    async with lab.inbox() as (broker, inbox):
        await send(broker, *(one for n in range(50) for g in "ab" for one in messages(n, n + 1, group=g)))
        taken = await take(inbox, 100)
    places = {delivery.position.partition for delivery in taken if delivery.position}
    assert len(places) <= 2
    for place in places:
        offsets = [d.position.offset for d in taken if d.position and d.position.partition == place]
        assert offsets == sorted(offsets)


async def test_one_queue_without_a_topic_does_not_stop_the_other(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(inbox_module, "SILENCE_S", 0.2)
    await lab.create()
    async with lab.inbox("q", "later") as (broker, inbox):
        await send(broker, *messages(0, 2))
        await lab.admit(inbox, 2)
        assert [event["queue"] for event in lab.told("broker.refused")] == ["later"]
        await lab.create(queue="later")
        await send(broker, *messages(2, 3, queue="later"))
        await lab.admit(inbox, 1)
    assert lab.bodies == ["0", "1", "2"]


async def test_without_any_topic_it_says_what_to_do(lab: Lab) -> None:
    async with lab.inbox() as (_, inbox):
        with pytest.raises(BrokerError, match="doctor --fix"):
            await inbox.receive(1)


async def test_a_store_that_does_not_say_where_is_asked_again(lab: Lab) -> None:
    await lab.create()
    down = True

    async def positions(source: str) -> dict[int, int]:
        if down:
            raise ConnectionError("no store")
        return {}

    async with lab.broker() as broker, broker.inbox(["q"], positions) as inbox:
        await send(broker, *messages(0, 2))

        async def refused() -> bool:
            try:
                assert not await inbox.receive(10)
            except ConnectionError:
                return True
            return False

        await wait_until("the store was asked", refused)
        assert not await inbox.receive(0)
        down = False
        assert len(await take(inbox, 2)) == 2


async def test_receive_that_is_cancelled_loses_nothing(lab: Lab) -> None:
    await lab.create(3)
    async with lab.inbox() as (broker, inbox):
        await send(broker, *messages(0, 300))
        found: list[str] = []
        for turns in range(2000):
            task = asyncio.create_task(inbox.receive(7))
            for _ in range(turns % 9):
                await asyncio.sleep(0)
            if turns % 2:
                task.cancel()
            await asyncio.wait({task})
            if not task.cancelled():
                found += [delivery.id for delivery in task.result()]
            if len(found) >= 300:
                break
        assert len(set(found)) == len(found) == 300


async def test_kafka_gives_nothing_up(lab: Lab) -> None:
    async with lab.broker() as broker, broker.inbox(["q"], lab.store.positions, dead=True) as inbox:
        assert await inbox.receive(10) == ()

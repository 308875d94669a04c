"""What becomes of each message that is sent."""

import asyncio

import pytest

from agentq.brokers.base import Outgoing
from agentq.errors import BrokerError
from tests.helpers import kafka
from tests.helpers.kafka_lab import Lab, messages, send, take


async def test_each_message_is_answered_for_itself(kafka_address: str) -> None:
    lab = Lab(kafka_address)
    await lab.create()
    async with lab.inbox() as (broker, inbox):
        large = Outgoing(id="large", queue="q", body=b"x" * 2_000_000)
        answers = await broker.send([*messages(0, 1), large, *messages(1, 2, queue="none"), *messages(2, 3)])
        assert answers[0] is answers[3] is None
        assert "max.message.bytes" in str(answers[1])
        assert "doctor --fix" in str(answers[2])
        assert all(type(answer) is BrokerError for answer in answers[1:3])
        assert [delivery.body for delivery in await take(inbox, 2)] == [b"0", b"2"]


async def test_what_the_topic_refuses_breaks_nothing_after_it(kafka_address: str) -> None:
    lab = Lab(kafka_address)
    await lab.create(max_message_bytes="2000")
    async with lab.inbox() as (broker, inbox):
        [answer] = await broker.send([Outgoing(id="large", queue="q", body=b"x" * 5000)])
        assert type(answer) is BrokerError
        assert "max.message.bytes" in str(answer)
        await send(broker, *messages(0, 3))
        assert len(await take(inbox, 3)) == 3
        [finding] = [each for each in await broker.inspect(["q"]) if not each.ok and "max.message.bytes" in each.text]
        assert "set it to 1001024" in finding.text


async def test_the_largest_message_arrives(kafka_address: str) -> None:
    lab = Lab(kafka_address)
    await lab.create()
    async with lab.inbox() as (broker, inbox):
        size = broker.capabilities("q").max_bytes
        await send(broker, Outgoing(id="large", queue="q", body=b"x" * (size - 20), attributes={"tenant": "t"}))
        [delivery] = await take(inbox, 1)
        assert len(delivery.body) == size - 20


async def test_many_senders_share_requests_and_lose_nothing(kafka_address: str) -> None:
    lab = Lab(kafka_address)
    await lab.create(4)
    async with lab.inbox() as (broker, inbox):
        await asyncio.gather(*(send(broker, *messages(n, n + 1)) for n in range(500)))
        taken = await take(inbox, 500)
    assert {int(delivery.body) for delivery in taken} == set(range(500))


async def test_what_was_handed_in_is_sent_before_it_closes(kafka_address: str) -> None:
    lab = Lab(kafka_address, parameters="linger=50ms")
    await lab.create()
    async with lab.broker() as broker:
        sending = asyncio.create_task(broker.send(messages(0, 10)))
        while not broker._sender._producer:
            await asyncio.sleep(0)
    assert await sending == [None] * 10


async def test_doctor_creates_a_topic(kafka_address: str) -> None:
    lab = Lab(kafka_address, parameters="partitions=3")
    async with lab.broker() as broker:
        before = await broker.inspect(["q"])
        assert [each.ok for each in before] == [True, False, True]
        assert "doctor --fix" in before[1].text
        fixed = await broker.inspect(["q"], fix=True)
        assert [each.fixed for each in fixed] == [False, True, False]
        after = await broker.inspect(["q"], fix=True)
        assert all(each.ok and not each.fixed for each in after)
        assert "3 partitions" in after[1].text
        await send(broker, *messages(0, 1))


async def test_doctor_names_settings_that_lose_messages(kafka_address: str) -> None:
    lab = Lab(kafka_address)
    await lab.create(cleanup_policy="compact", retention_ms="3600000", retention_bytes="1000")
    async with lab.broker() as broker:
        texts = [each.text for each in await broker.inspect(["q"]) if not each.ok]
    assert [text.split(" is ")[0] for text in texts] == ["cleanup.policy", "retention.ms", "retention.bytes"]


async def test_the_backlog_is_counted_partition_by_partition(kafka_address: str) -> None:
    lab = Lab(kafka_address)
    await lab.create(3)
    await lab.create(queue="empty")
    async with lab.inbox() as (broker, inbox):
        await send(broker, *messages(0, 30))
        some, none, missing = await broker.backlog(["q", "empty", "missing"])
        assert (some.ready, sum(some.partitions), len(some.partitions)) == (30, 30, 3)
        assert some.oldest_age_s is not None
        assert 0 <= some.oldest_age_s < 60
        assert (none.ready, none.oldest_age_s, none.error) == (0, None, "")
        assert "doctor --fix" in missing.error
        taken = await take(inbox, 30)
        lab.store.admit(taken[:10])
        await inbox.acknowledge(taken[:10])
        assert (await broker.backlog(["q"]))[0].ready == 20


async def test_messages_that_will_be_deleted_unread_are_told(kafka_address: str) -> None:
    from aiokafka import AIOKafkaProducer  # noqa: PLC0415 - it writes the past

    lab = Lab(kafka_address)
    await lab.create(retention_ms="1000000000", message_timestamp_before_max_ms="9000000000")
    producer = AIOKafkaProducer(bootstrap_servers=kafka_address)
    await producer.start()
    try:
        import time  # noqa: PLC0415

        past = int(time.time() * 1000) - 900_000_000
        await producer.send_and_wait(lab.topic(), b"old", timestamp_ms=past)
    finally:
        await producer.stop()
    with lab.listening():
        async with lab.broker() as broker:
            [backlog] = await broker.backlog(["q"])
            await broker.backlog(["q"])
            findings = await broker.inspect(["q"])
    assert backlog.oldest_age_s == pytest.approx(900_000, abs=60)
    [told] = lab.told("broker.expiring")
    assert (told["queue"], told["retention_s"]) == ("q", 1_000_000)
    assert any("start workers" in each.text and not each.ok for each in findings)


async def test_queues_that_share_a_topic(kafka_address: str) -> None:
    lab = Lab(kafka_address)
    lab.url = f"kafka://{kafka_address}/{{app}}.all"
    await kafka.create(kafka_address, f"{lab.app}.all")
    async with lab.broker() as broker, broker.inbox(["a", "b"], lab.store.positions) as inbox:
        await send(broker, *messages(0, 2, queue="a"), *messages(2, 4, queue="b"))
        assert [each.ready for each in await broker.backlog(["a", "b"])] == [4, 0]
        assert len(await take(inbox, 4)) == 4

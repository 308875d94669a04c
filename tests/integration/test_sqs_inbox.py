"""Polls: finished and never cancelled, more of them while there is much, none without room."""

import asyncio

import pytest

pytest.importorskip("aiobotocore")

from agentq.brokers.sqs import SQSBroker
from agentq.brokers.sqs import inbox as polling
from agentq.errors import BrokerUnavailable
from agentq.telemetry import add_sink, remove_sink
from agentq.testing.wait import wait_until
from tests.helpers.sqs import message, new_app, nowhere, opened, sent, url


@pytest.fixture
def events():
    """What is told, as (name, fields)."""
    told: list[tuple[str, dict]] = []

    def sink(event, fields):
        told.append((event, fields))

    add_sink(sink)
    yield told
    remove_sink(sink)


async def taken(broker, queue: str = "work") -> int:
    [backlog] = await broker.backlog([queue])
    return backlog.taken


async def test_a_poll_under_way_is_finished_when_the_inbox_is_left_and_strands_nothing(elasticmq_url):
    async with opened(elasticmq_url, "work", wait=20) as broker:

        async def listen() -> None:
            async with broker.inbox(["work"], nowhere) as inbox:
                await inbox.receive(10)

        listening = asyncio.create_task(listen())
        await wait_until("a poll is under way", lambda: broker.requests >= 5 and any(box._tasks for box in broker._inboxes))
        listening.cancel()
        await asyncio.sleep(0)
        assert not listening.done(), "it waits for its poll"
        await sent(broker, [message()])
        with pytest.raises(asyncio.CancelledError):
            await listening
        async with asyncio.timeout(5), broker.inbox(["work"], nowhere) as other:  # the visibility timeout is 60 s
            [delivery] = await other.receive(1)
        assert delivery.receives == 2, "the poll that was left had it, and handed it back"


async def test_receive_that_is_cancelled_loses_nothing(elasticmq_url):
    async with opened(elasticmq_url, "work", wait=20) as broker, broker.inbox(["work"], nowhere) as inbox:
        receiving = asyncio.create_task(inbox.receive(10))
        await wait_until("a poll is under way", lambda: inbox._tasks)
        receiving.cancel()
        await asyncio.wait({receiving})
        await sent(broker, [message()])
        [delivery] = await inbox.receive(10)
        assert delivery.receives == 1
        await inbox.acknowledge([delivery])


async def test_an_idle_queue_costs_one_long_poll_however_often_it_is_asked(elasticmq_url, monkeypatch):
    monkeypatch.setattr(polling, "_PATIENCE_S", 0.02)
    async with opened(elasticmq_url, "work", wait=2) as broker, broker.inbox(["work"], nowhere) as inbox:
        assert await inbox.receive(10) == ()
        await wait_until("its poll is under way", lambda: broker._clients._urls and inbox._tasks)
        before = broker.requests
        for _ in range(10):
            assert await inbox.receive(10) == ()
        assert broker.requests - before <= 1


async def test_without_room_nothing_is_taken_and_what_a_poll_still_brings_goes_back(elasticmq_url):
    async with opened(elasticmq_url, "work", "idle") as broker:
        await sent(broker, [message()])
        async with broker.inbox(["work"], nowhere) as inbox:
            assert await inbox.receive(0) == ()
            assert not inbox._tasks
            assert await taken(broker) == 0
        patient = SQSBroker(url(elasticmq_url, wait=20), app=broker._address.app)
        async with patient, patient.inbox(["idle", "work"], nowhere) as inbox:
            [first] = await inbox.receive(1)  # the poll of the other queue goes on
            assert inbox._tasks
            await inbox.receive(0)
            await sent(broker, [message("idle")])
            await wait_until("the poll brought it", lambda: not inbox._tasks)
            assert await taken(broker, "idle") == 0
            await inbox.acknowledge([first])


async def test_what_nobody_fetches_is_not_kept_from_others(elasticmq_url):
    async with opened(elasticmq_url, "work", "idle", wait=20) as broker, broker.inbox(["idle", "work"], nowhere) as inbox:
        await sent(broker, [message()])
        [first] = await inbox.receive(10)
        await sent(broker, [message("idle")])
        await wait_until("the poll brought it", lambda: inbox._arrived)
        await wait_until("it went back", lambda: not inbox._arrived and not inbox._tasks)
        assert await taken(broker, "idle") == 0
        await inbox.acknowledge([first])


async def test_no_more_is_taken_than_there_is_room_for(elasticmq_url):
    async with opened(elasticmq_url, "work") as broker, broker.inbox(["work"], nowhere) as inbox:
        await sent(broker, [message() for _ in range(40)])
        for room in (1, 3, 10, 12):
            got = await inbox.receive(room)
            assert 1 <= len(got) <= room
            await inbox.acknowledge(got)
        assert await taken(broker) <= 2  # of the 12, what a poll of ten did not bring


async def test_many_full_queues_bring_little_more_than_there_is_room_for(elasticmq_url):
    queues = [f"q{number}" for number in range(6)]
    async with opened(elasticmq_url, *queues) as broker:
        await sent(broker, [message(queue) for queue in queues for _ in range(10)])
        async with broker.inbox(queues, nowhere) as inbox:
            got = list(await inbox.receive(8))
            await wait_until("all polls have answered", lambda: not inbox._tasks)
            got += inbox._arrived
        assert len(got) <= 8 + 6


async def test_an_inbox_that_is_left_polls_no_more(elasticmq_url):
    async with opened(elasticmq_url, "work") as broker:
        async with broker.inbox(["work"], nowhere) as inbox:
            receiving = asyncio.create_task(inbox.receive(1))
            await wait_until("a poll is under way", lambda: inbox._tasks)
        assert await receiving == ()
        assert not inbox._tasks


async def test_full_batches_bring_more_polls_and_few_requests(elasticmq_url):
    async with opened(elasticmq_url, "work") as broker:
        before = broker.requests
        await sent(broker, [message() for _ in range(600)])
        seen: set[str] = set()
        most = 0
        async with broker.inbox(["work"], nowhere) as inbox:
            while len(seen) < 600:
                got = await inbox.receive(200)
                most = max(most, len(inbox._tasks))
                await inbox.acknowledge(got)
                seen |= {each.id for each in got}
                if len(seen) == 600:
                    used = broker.requests - before
        assert most > 3
        assert used / 600 <= 0.35, f"{used} requests"


async def test_a_queue_that_is_missing_does_not_hold_up_the_others(elasticmq_url, events):
    async with opened(elasticmq_url, "work") as broker, broker.inbox(["work", "missing"], nowhere) as inbox:
        await sent(broker, [message() for _ in range(3)])
        found = []
        while len(found) < 3 or not events:
            got = await inbox.receive(1)
            found += got
            await inbox.acknowledge(got)
        assert len(found) == 3
        assert await inbox.receive(1) == ()  # it is said once, and raised to nobody: the other queue is well
        ((name, told),) = events
        assert (name, told["queue"]) == ("broker.refused", "missing")
        assert "agentq doctor --fix" in told["error"]
        await broker.inspect(["missing"], fix=True)
        await sent(broker, [message("missing")])
        while not (got := await inbox.receive(1)):
            pass
        assert got[0].queue == "missing"
        assert [fields["queue"] for name, fields in events if name == "broker.recovered"] == ["missing"]


async def test_opening_asks_nobody_and_trouble_is_found_when_used():
    async with SQSBroker(url("http://127.0.0.1:9"), app=new_app()) as broker:
        assert broker.requests == 0
        [answer] = await broker.send([message()])
        assert isinstance(answer, BrokerUnavailable)
        async with broker.inbox(["work"], nowhere) as inbox:
            with pytest.raises(BrokerUnavailable):
                await inbox.receive(1)
        [backlog] = await broker.backlog(["work"])
        assert backlog.error
        [finding] = await broker.inspect(["work"], fix=True)
        assert not finding.ok

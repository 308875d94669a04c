"""What a worker's metrics say of its broker."""

import asyncio
import time

import pytest

from agentq import AgentQ, Context
from agentq.brokers.base import Backlog, Outgoing
from agentq.cli import backlogs
from agentq.cli.backlogs import BacklogWatch
from agentq.message import Census, QueueStats
from agentq.telemetry.metrics import MetricsSink
from agentq.testing.broker import MemoryBroker


@pytest.fixture
async def app():
    aq = AgentQ("hello", store="memory:", broker=MemoryBroker())

    @aq.task
    async def agent(ctx: Context) -> None: ...

    async with aq:
        yield aq


async def scrape(app, watch, *, anew=True):
    """The metrics by name and labels, as a scrape from another thread sees them."""
    if anew:
        watch._asked_at = float("-inf")
    text, _ = await asyncio.to_thread(MetricsSink(backlog=watch).render)
    lines = [line.rpartition(" ") for line in text.decode().splitlines() if line.startswith("agentq_queue_broker")]
    return {name.removeprefix("agentq_queue_broker_"): float(value) for name, _, value in lines}


async def put(app, number):
    await app.broker.send([Outgoing(id=str(n), queue="default", body=b"{}") for n in range(number)])


async def test_a_scrape_shows_what_lies_in_the_broker(app):
    await put(app, 3)
    found = await scrape(app, BacklogWatch(app))
    assert found['backlog{queue="default"}'] == 3
    assert found['error{queue="default"}'] == 0
    assert found['age_seconds{queue="default"}'] < 5


async def test_when_it_cannot_be_read_the_last_figures_stand_and_the_error_shows(app):
    watch = BacklogWatch(app)
    await put(app, 3)
    await scrape(app, watch)
    app.broker.trouble.blind = "denied"
    await put(app, 3)
    found = await scrape(app, watch)
    assert found['backlog{queue="default"}'] == 3
    assert found['error{queue="default"}'] == 1
    app.broker.trouble.blind = ""
    found = await scrape(app, watch)
    assert found['backlog{queue="default"}'] == 6
    assert found['error{queue="default"}'] == 0


async def test_what_could_never_be_read_has_an_error_and_no_figures(app):
    app.broker.trouble.blind = "denied"
    found = await scrape(app, BacklogWatch(app))
    assert found == {'error{queue="default"}': 1.0}


async def test_scrapes_one_after_another_ask_once(app, monkeypatch):
    asked = []
    real = app.broker.backlog

    async def counted(queues):
        asked.append(queues)
        return await real(queues)

    monkeypatch.setattr(app.broker, "backlog", counted)
    watch = BacklogWatch(app)
    for _ in range(5):
        await scrape(app, watch, anew=False)
    assert len(asked) == 1


async def test_a_broker_that_hangs_holds_up_no_scrape(app, monkeypatch):
    watch = BacklogWatch(app)
    await put(app, 3)
    await scrape(app, watch)
    hangs = asyncio.Event()

    async def hanging(queues):
        await hangs.wait()
        return [Backlog(queue=queue, ready=9) for queue in queues]

    monkeypatch.setattr(app.broker, "backlog", hanging)
    monkeypatch.setattr("agentq.telemetry.metrics._LOOK_S", 0.05)
    began = time.monotonic()
    found = await scrape(app, watch)
    assert time.monotonic() - began < 5
    assert found['backlog{queue="default"}'] == 3
    assert found['error{queue="default"}'] == 1
    hangs.set()
    monkeypatch.setattr("agentq.telemetry.metrics._LOOK_S", 5.0)
    found = await scrape(app, watch, anew=False)
    assert found['backlog{queue="default"}'] == 9


async def test_a_broker_that_raises_is_an_error_and_no_surprise(app, monkeypatch):
    async def raising(queues):
        raise RuntimeError(queues)

    monkeypatch.setattr(app.broker, "backlog", raising)
    assert await scrape(app, BacklogWatch(app)) == {'error{queue="default"}': 1.0}


async def test_without_a_broker_or_before_the_app_is_open_there_is_nothing():
    aq = AgentQ("hello", store="memory:")
    watch = BacklogWatch(aq)
    assert await scrape(aq, watch) == {}
    async with aq:
        assert await scrape(aq, watch) == {}
    assert backlogs._FRESH_S > 0


def test_dead_letters_ordered_runs_and_what_intake_did_are_counted():
    census = Census(queues=(QueueStats(queue="q", ordered=4, dead=2),))
    sink = MetricsSink(census=lambda: census)
    for _ in range(2):
        sink("intake.admitted", {"runs": 5, "duplicates": 2, "letters": 1})
    sink("broker.unavailable", {"broker": "b"})
    sink("broker.refused", {"broker": "b"})
    found = dict(line.rsplit(" ", 1) for line in sink.render()[0].decode().splitlines() if line.startswith("agentq_"))
    assert found['agentq_queue_ordered{queue="q"}'] == "4.0"
    assert found['agentq_queue_dead_letters{queue="q"}'] == "2.0"
    assert found["agentq_intake_runs_total"] == "10.0"
    assert found["agentq_intake_duplicates_total"] == "4.0"
    assert found["agentq_intake_dead_letters_total"] == "2.0"
    assert found["agentq_broker_failures_total"] == "2.0"

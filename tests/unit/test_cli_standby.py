"""What a worker's process does before its store can be opened."""

import asyncio
import contextlib

import pytest

from agentq import AgentQ
from agentq.cli import standby
from agentq.cli.standby import Standby
from agentq.cli.working import serving
from agentq.errors import InvalidArgument, StoreIncompatible, StoreUnavailable
from agentq.settings import WorkerSettings
from agentq.telemetry import add_sink, remove_sink
from agentq.testing.wait import wait_until
from tests.helpers.http import get


@pytest.fixture
def seen():
    events = []

    def sink(event, fields):
        events.append((event, fields))

    add_sink(sink)
    yield events
    remove_sink(sink)


@pytest.fixture(autouse=True)
def _hurry(monkeypatch):
    monkeypatch.setattr(standby, "_FIRST_S", 0.001)
    monkeypatch.setattr(standby, "_LONGEST_S", 0.01)


class Door:
    """Opens after it was shut so many times."""

    def __init__(self, shut, error=None):
        self.shut = shut
        self.tries = 0
        self.error = error or StoreUnavailable("postgresql://db: no connection; try again")

    @contextlib.asynccontextmanager
    async def __call__(self):
        self.tries += 1
        if self.tries <= self.shut:
            raise self.error
        yield


def new(limits=None):
    return Standby(AgentQ("hello"), limits or WorkerSettings(), where="postgresql://db")


async def test_a_store_that_is_down_is_asked_again_until_it_answers(seen):
    door = Door(5)
    async with contextlib.AsyncExitStack() as stack:
        assert await new().open(stack, door)
    assert door.tries == 6
    assert [event for event, _ in seen] == ["store.unavailable", "store.recovered"]
    assert seen[0][1] == {"store": "postgresql://db", "verb": "open", "error": str(door.error)}


async def test_a_store_that_answers_at_once_is_no_event(seen):
    async with contextlib.AsyncExitStack() as stack:
        assert await new().open(stack, Door(0))
    assert seen == []


async def test_the_outage_is_told_again_after_a_while(seen, monkeypatch):
    monkeypatch.setattr(standby, "_SAY_S", 0.0)
    async with contextlib.AsyncExitStack() as stack:
        assert await new().open(stack, Door(4))
    assert [event for event, _ in seen].count("store.unavailable") == 4


@pytest.mark.parametrize("error", [StoreIncompatible("newer"), InvalidArgument("store", "x", "use another")])
async def test_what_waiting_cannot_mend_ends_it_at_once(error, seen):
    door = Door(1, error)
    async with contextlib.AsyncExitStack() as stack:
        with pytest.raises(type(error)):
            await new().open(stack, door)
    assert door.tries == 1
    assert seen == []


async def test_told_to_drain_it_ends_without_the_store(seen):
    waiting = new()
    async with contextlib.AsyncExitStack() as stack:
        opening = asyncio.create_task(waiting.open(stack, Door(10**9)))
        await wait_until("it has asked", lambda: seen)
        waiting.drain("SIGTERM")
        waiting.drain("SIGTERM")
        waiting.abort()
        assert await opening is False
    assert seen[-2:] == [
        ("worker.draining", {"reason": "SIGTERM", "busy": 0}),
        ("worker.stopped", {"reason": "SIGTERM", "runs": 0}),
    ]


async def test_an_attempt_that_hangs_does_not_hold_up_the_end():
    @contextlib.asynccontextmanager
    async def hanging():
        await asyncio.Event().wait()
        yield

    waiting = new()
    async with contextlib.AsyncExitStack() as stack:
        opening = asyncio.create_task(waiting.open(stack, hanging))
        await wait_until("it tries", lambda: waiting._interrupt is not None)
        waiting.drain("SIGTERM")
        assert await opening is False


async def test_somebody_elses_cancellation_passes():
    waiting = new()
    async with contextlib.AsyncExitStack() as stack:
        opening = asyncio.create_task(waiting.open(stack, Door(10**9)))
        await wait_until("it tries", lambda: waiting._interrupt is not None)
        opening.cancel()
        with pytest.raises(asyncio.CancelledError):
            await opening


async def test_probes_are_answered_meanwhile_and_passed_on_afterwards():
    limits = WorkerSettings(health_port=0, health_host="127.0.0.1")
    waiting = new(limits)
    async with contextlib.AsyncExitStack() as stack:
        with serving(waiting, limits, None) as port:
            opening = asyncio.create_task(waiting.open(stack, Door(10**9)))
            await wait_until("it failed once", lambda: waiting.status()["store"]["error"])
            assert await get(port, "/healthz") == (200, "waiting for the store\n")
            status, text = await get(port, "/readyz")
            assert status == 503
            assert text == "no contact with the store yet: postgresql://db: no connection; try again\n"
            assert '"state":"starting"' in (await get(port, "/status"))[1]
            assert "agentq_worker_slots 8.0" in (await get(port, "/metrics"))[1]
            waiting.worker = Worker()
            assert await get(port, "/readyz") == (200, "ready\n")
            assert await get(port, "/healthz") == (503, "its heart has stopped\n")
            waiting.worker = None
            waiting.drain("SIGTERM")
            assert await get(port, "/readyz") == (503, "draining\n")
            await opening


class Worker:
    ready = True

    def alive(self):
        return False, "its heart has stopped"

    def status(self):
        return {"slots": 8, "busy": 0, "state": "active", "store": {"error": ""}}

"""Real workers whose broker and database go away and come back: what they tell, that they live, and that nothing is lost."""

from __future__ import annotations

import asyncio
import dataclasses
import signal
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack, ExitStack
from pathlib import Path

import pytest

from agentq import AgentQ
from agentq.brokers import open_broker
from agentq.errors import AgentQError
from agentq.stores import open_store
from agentq.testing.wait import wait_until
from tests.chaos import tasks
from tests.helpers import elasticmq, kafka, postgres, postgres_server, watched
from tests.helpers.processes import ServerProcess

STEPS = 4
SECRET = "open-sesame"  # noqa: S105 - nobody's
QUICK = {"AGENTQ_LEASE": "6", "AGENTQ_FENCE": "4", "AGENTQ_HEARTBEAT": "0.5", tasks.STEP_MS: "100"}


@dataclasses.dataclass(frozen=True)
class Lab:
    """A broker and a database of the tests' own."""

    kind: str
    broker: ServerProcess
    broker_url: str
    database: postgres_server.Server
    folder: Path

    @property
    def store_url(self) -> str:
        return self.database.url.replace("postgres@", f"postgres:{SECRET}@")

    @property
    def settings(self) -> dict[str, str]:
        urls = {"AGENTQ_STORE": self.store_url, "AGENTQ_BROKER": self.broker_url}
        return {**QUICK, **urls, tasks.LOG: str(self.folder / "bodies.log")}

    def worker(self, *options: str, wait: bool = True):
        return watched.worker("tests.chaos.tasks:aq", self.settings, self.folder, *options, wait=wait)

    async def enqueue(self, app: AgentQ, number: int) -> str:
        handle = await tasks.chain.options(key=f"{number}").enqueue(number, STEPS)
        return handle.id

    def bodies(self) -> list[str]:
        log = self.folder / "bodies.log"
        return [line for line in log.read_text().splitlines() if line.endswith("begin")] if log.exists() else []


@pytest.fixture
def database() -> Iterator[postgres_server.Server]:
    with postgres_server.own() as server:
        yield server


@pytest.fixture(params=["sqs", "kafka"])
def broker(request: pytest.FixtureRequest) -> Iterator[tuple[str, ServerProcess, str]]:
    if elasticmq.GIVEN if request.param == "sqs" else kafka.GIVEN:
        pytest.skip("a broker of the user's own is not stopped")
    with ExitStack() as stack:
        if request.param == "sqs":
            process = stack.enter_context(elasticmq.own(durable=True))
            url = f"sqs://elasticmq/{{app}}-{{queue}}?endpoint={elasticmq.endpoint(process)}&wait=1"
        else:
            process = stack.enter_context(kafka.own())
            url = f"kafka://127.0.0.1:{process.port}?partitions=2&session=3s"
        yield request.param, process, url


@pytest.fixture
async def lab(broker, database, tmp_path) -> AsyncIterator[Lab]:
    kind, process, url = broker
    async with open_broker(url, app=tasks.aq.name) as opened:
        assert all(finding.ok for finding in await opened.inspect(tasks.aq.queues, fix=True))
    async with postgres.connected(database.url) as connection:
        await connection.execute("drop schema if exists agentq cascade")
    async with open_store(database.url):
        yield Lab(kind, process, url, database, tmp_path)


async def results(lab: Lab, app: AgentQ, ids: dict[str, int]) -> None:
    """Every run has ended, as if each step had been done once."""
    for run_id, number in ids.items():
        async with asyncio.timeout(60):
            assert await app.handle(run_id).result() == tasks.expected(number, STEPS)


async def told(worker: watched.Watched, event: str) -> None:
    await wait_until(f"{event} is told", lambda: worker.events(event), timeout_s=30)


def healthy(worker: watched.Watched) -> None:
    """What a kubelet sees while something is away."""
    assert worker.probe("/healthz") == 200
    assert worker.probe("/readyz") == 200


def nothing_odd(*workers: watched.Watched) -> None:
    for worker in workers:
        text = worker.log.read_text()
        assert SECRET not in text
        assert worker.odd_lines() == []
        assert "was never retrieved" not in text


async def test_a_broker_that_was_away_is_told_once_and_nothing_is_lost(lab: Lab) -> None:
    with lab.worker() as worker:
        async with tasks.aq.using(store=lab.store_url, broker=lab.broker_url):
            ids = {await lab.enqueue(tasks.aq, number): number for number in range(10)}
            await wait_until("it works", lambda: len(lab.bodies()) >= 5, timeout_s=30)
            await asyncio.to_thread(lab.broker.stop)
            await told(worker, "broker.unavailable")
            healthy(worker)
            used = worker.cpu_s
            if lab.kind == "sqs":  # Kafka's client tries for 20 s
                with pytest.raises(AgentQError):
                    await lab.enqueue(tasks.aq, 10)
            assert worker.cpu_s - used < 1.0
            await asyncio.to_thread(lab.broker.start)
            await told(worker, "broker.recovered")
            ids |= {await lab.enqueue(tasks.aq, number): number for number in range(10, 15)}
            await results(lab, tasks.aq, ids)
        events = [
            event["event"] for event in worker.events() if event["event"].startswith(("broker.un", "broker.rec", "store."))
        ]
        assert events == ["broker.unavailable", "broker.recovered"]
        assert len(lab.bodies()) == len(ids) * STEPS
        code, _ = await asyncio.to_thread(worker.drain, 30)
        assert code == 0
        nothing_odd(worker)


async def test_a_store_that_was_away_is_told_once_and_nothing_is_lost_or_doubled(lab: Lab) -> None:
    with lab.worker() as worker:
        async with tasks.aq.using(store=lab.store_url, broker=lab.broker_url):
            ids = {await lab.enqueue(tasks.aq, number): number for number in range(20)}
            await wait_until("it works", lambda: len(lab.bodies()) >= 5, timeout_s=30)
            await asyncio.to_thread(lab.database.stop)
            await told(worker, "store.unavailable")
            await told(worker, "heartbeat.failed")
            healthy(worker)
            ids |= {await lab.enqueue(tasks.aq, number): number for number in range(20, 25)}  # the broker is there
            await asyncio.to_thread(lab.database.start)
            await results(lab, tasks.aq, ids)
            await told(worker, "heartbeat.recovered")
        events = worker.events("store.unavailable", "store.recovered")
        assert [event["event"] for event in events] == ["store.unavailable", "store.recovered"]
        assert len(lab.bodies()) - len(ids) * STEPS <= 8  # what was under way when leases ran out, one for each slot
        code, _ = await asyncio.to_thread(worker.drain, 30)
        assert code == 0
        nothing_odd(worker)


async def test_told_to_end_while_neither_answers_a_worker_ends_in_time(lab: Lab) -> None:
    grace_s = 5.0
    with lab.worker("--drain", "3s") as worker:
        async with tasks.aq.using(store=lab.store_url, broker=lab.broker_url):
            ids = {await lab.enqueue(tasks.aq, number): number for number in range(20)}
            await wait_until("it works", lambda: len(lab.bodies()) >= 5, timeout_s=30)
            lab.broker.pause()
            lab.database.signal(signal.SIGSTOP)
            try:
                code, took_s = await asyncio.to_thread(worker.drain, 40)
            finally:
                lab.database.signal(signal.SIGCONT)
                lab.broker.resume()
            assert code == 0
            assert took_s < 4 + grace_s  # when its leases are not its own any more, and a farewell
            nothing_odd(worker)
            with lab.worker() as other:
                await results(lab, tasks.aq, ids)
                assert (await asyncio.to_thread(other.drain, 30))[0] == 0


async def test_a_broker_that_is_down_at_the_start_is_waited_for(lab: Lab) -> None:
    async with AsyncExitStack() as stack, tasks.aq.using(store=lab.store_url, broker=lab.broker_url):
        ids = {await lab.enqueue(tasks.aq, number): number for number in range(3)}
        await asyncio.to_thread(lab.broker.stop)
        worker = stack.enter_context(lab.worker())
        await told(worker, "broker.unavailable")
        healthy(worker)
        await asyncio.to_thread(lab.broker.start)
        await results(lab, tasks.aq, ids)
        await told(worker, "broker.recovered")
        assert len(worker.events("broker.unavailable")) == 1
        assert (await asyncio.to_thread(worker.drain, 30))[0] == 0
        nothing_odd(worker)

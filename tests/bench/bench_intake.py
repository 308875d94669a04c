"""What intake does, beside the bare clients in the same run: `python -m tests.bench.bench_intake [name …]`.

PostgreSQL is AGENTQ_TEST_POSTGRES or one of its own with fsync on; Kafka and ElasticMQ are those of the tests. All of them
share the machine with the worker that is measured. The exit code is 1 where a target was missed.
"""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import secrets
import statistics
import sys
import time
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from typing import Any

from agentq import AgentQ, Context, RunHandle
from agentq.intake import Intake
from agentq.settings import WorkerSettings
from agentq.telemetry import add_sink, remove_sink
from agentq.testing.wait import wait_until
from agentq.worker import Worker
from tests.bench.bench_postgres import server as postgres_server
from tests.bench.bench_postgres import show
from tests.bench.contest import Target
from tests.helpers import elasticmq, kafka
from tests.helpers.postgres import fresh_schema

PAYLOAD = "x" * 200
LIMIT_S = 180.0
LONG_S = 600.0
SHORT_S = 0.05
WARM = 10
SQS_AT_ONCE = (1, 4, 8, 16)
"""Requests under way of the bare client, whose pool takes ten as it comes; the number with the best median counts."""
BODY = '{"payload":"' + "x" * 370 + '"}'
"""As long as an envelope with PAYLOAD."""

RATE = Target(number="rate", label="Kafka intake into PostgreSQL", bound=3000, unit="runs/s", at_least=True)
AHEAD = Target(number="ahead", label="short runs behind a long one, of what idle slots do", bound=0.9, unit="", at_least=True)
SENT = Target(number="sent", label="SQS submit, of bare batches", bound=0.7, unit="", at_least=True)
TAKEN = Target(number="taken", label="SQS intake, of bare receive and delete", bound=0.7, unit="", at_least=True)
REQUESTS = Target(number="requests", label="SQS requests per run", bound=0.35, unit="")

missed: list[str] = []


def judge(target: Target, value: float) -> None:
    """Say whether a figure is reached."""
    if not target.met(value):
        missed.append(target.label)
    show(f"=> {target.label}", f"{value:,.2f}, target {target.shown}: {'met' if target.met(value) else 'MISSED'}")


@dataclasses.dataclass(kw_only=True)
class Shop:
    """An app with tasks, and what they saw."""

    aq: AgentQ
    noop: Any
    short: Any
    long: Any
    began: list[float] = dataclasses.field(default_factory=list)


def shop(store: str, broker: str) -> Shop:
    """An app of its own, so that its queue, topic and group are."""
    aq = AgentQ(f"intake-{secrets.token_hex(4)}", store=store, broker=broker)
    began: list[float] = []

    @aq.task
    async def noop(ctx: Context, payload: str) -> str:
        began.append(time.perf_counter())
        return "ok"

    @aq.task
    async def short(ctx: Context, number: int) -> int:
        began.append(time.perf_counter())
        await asyncio.sleep(SHORT_S)
        return number

    @aq.task
    async def long(ctx: Context) -> None:
        await asyncio.sleep(LONG_S)

    return Shop(aq=aq, noop=noop, short=short, long=long, began=began)


@contextlib.asynccontextmanager
async def working(aq: AgentQ, slots: int) -> AsyncIterator[Worker]:
    """A worker in this process."""
    worker = Worker(aq, WorkerSettings(concurrency=slots, drain_s=1.0))
    running = asyncio.create_task(worker.run())
    try:
        yield worker
    finally:
        worker.drain("measured")
        await running


@contextlib.contextmanager
def admitted() -> Iterator[list[tuple[float, int]]]:
    """When each batch was in the store, and how many runs it was."""
    batches: list[tuple[float, int]] = []

    def sink(event: str, fields: Any) -> None:
        if event == "intake.admitted":
            batches.append((time.perf_counter(), fields["runs"]))

    add_sink(sink)
    try:
        yield batches
    finally:
        remove_sink(sink)


async def intake_s(aq: AgentQ, runs: int, *, room: int) -> float:
    """Seconds that intake alone takes for ``runs``, its start and its connecting included."""
    assert aq.broker is not None
    before = await runnable(aq)
    with admitted() as batches:
        intake = Intake(aq.broker, aq.store, aq.name, aq.queues, room=lambda: room, ahead=10 * runs)
        began = time.perf_counter()
        running = asyncio.create_task(intake.run())
        try:
            await wait_until(f"{runs} runs are in the store", lambda: sum(n for _, n in batches) >= runs, timeout_s=LIMIT_S)
        finally:
            intake.stop()
            await running
    assert await runnable(aq) - before == runs
    return batches[-1][0] - began


async def runnable(aq: AgentQ) -> int:
    """How many runs in the store could be claimed; other rounds' are among them."""
    return sum(stats.runnable for stats in (await aq.store.census()).queues)


async def topic(address: str, name: str, partitions: int) -> None:
    """Make a topic."""
    from aiokafka.admin import AIOKafkaAdminClient, NewTopic

    admin = AIOKafkaAdminClient(bootstrap_servers=address)
    await admin.start()
    try:
        await admin.create_topics([NewTopic(name, num_partitions=partitions, replication_factor=1)])
    finally:
        await admin.close()


async def raw_kafka_s(address: str, name: str, messages: int) -> float:
    """Seconds that the bare client takes to read a topic."""
    from aiokafka import AIOKafkaConsumer

    consumer = AIOKafkaConsumer(name, bootstrap_servers=address, auto_offset_reset="earliest", enable_auto_commit=False)
    began = time.perf_counter()
    await consumer.start()
    try:
        seen = 0
        while seen < messages:
            batches = (await consumer.getmany(timeout_ms=1000, max_records=500)).values()
            seen += sum(len(message.value) > 0 for batch in batches for message in batch)
        return time.perf_counter() - began
    finally:
        await consumer.stop()


async def kafka_intake(store: str, address: str, runs: int = 30_000) -> None:
    """Intake alone: no slot takes what it brings."""
    made = shop(store, f"kafka://{address}")
    name = f"{made.aq.name}.default"
    await topic(address, name, partitions=4)
    async with made.aq as aq:
        began = time.perf_counter()
        await aq.enqueue_many([made.noop.bind(PAYLOAD) for _ in range(runs)])
        show("agentq: enqueue_many into Kafka", f"{runs / (time.perf_counter() - began):,.0f} runs/s")
        raw = runs / await raw_kafka_s(address, name, runs)
        show("aiokafka alone: read the topic", f"{raw:,.0f} messages/s")
        rate = runs / await intake_s(aq, runs, room=1000)
        show("agentq: intake into PostgreSQL", f"{rate:,.0f} runs/s")
        judge(RATE, rate)


async def kafka_worker(store: str, address: str, runs: int = 20_000, slots: int = 100) -> None:
    """The whole way: from the topic through the slots, results stored."""
    made = shop(store, f"kafka://{address}")
    await topic(address, f"{made.aq.name}.default", partitions=4)
    async with made.aq as aq:
        await aq.enqueue_many([made.noop.bind(PAYLOAD) for _ in range(runs)])
        async with working(aq, slots):
            await wait_until("every run has begun", lambda: len(made.began) >= runs, timeout_s=LIMIT_S)
        rate = (runs - 1) / (made.began[-1] - made.began[0])
        show(f"agentq: no-op runs from Kafka, {slots} slots, results stored", f"{rate:,.0f} runs/s")


async def kafka_ahead(store: str, address: str, runs: int = 1000, slots: int = 8) -> None:
    """One partition: a task of ten minutes in front, short ones behind; then the short ones alone."""

    async def rate_of(*, behind: bool) -> float:
        made = shop(store, f"kafka://{address}")
        await topic(address, f"{made.aq.name}.default", partitions=1)
        async with made.aq as aq:
            first: RunHandle[None] | None = await made.long.enqueue() if behind else None
            await aq.enqueue_many([made.short.bind(n) for n in range(runs)])
            async with working(aq, slots):
                await wait_until("every short run has begun", lambda: len(made.began) >= runs, timeout_s=LIMIT_S)
                if first:
                    await first.cancel()
        return (runs - 1) / (made.began[-1] - made.began[0])

    alone, behind = await rate_of(behind=False), await rate_of(behind=True)
    show(f"{runs:,} runs of {SHORT_S * 1e3:g} ms alone, {slots} slots", f"{alone:,.0f} runs/s")
    show(f"…behind a run of {LONG_S:g} s in the same partition", f"{behind:,.0f} runs/s")
    judge(AHEAD, (behind / (slots - 1)) / (alone / slots))


@contextlib.asynccontextmanager
async def sqs_client(endpoint: str) -> AsyncIterator[Any]:
    """A bare client."""
    from aiobotocore.session import get_session

    session = get_session()
    session.set_credentials("x", "x")
    async with session.create_client("sqs", region_name="elasticmq", endpoint_url=endpoint) as client:
        yield client


async def queue(endpoint: str, name: str) -> None:
    """Make a queue."""
    async with sqs_client(endpoint) as client:
        await client.create_queue(QueueName=name)


@contextlib.contextmanager
def counted() -> Iterator[Counter[str]]:
    """How often each operation of AWS's is called in this process, whoever calls it."""
    from aiobotocore.client import AioBaseClient

    client: Any = AioBaseClient
    calls: Counter[str] = Counter()
    plain = client._make_api_call

    async def counting(self: Any, operation: str, parameters: Any) -> Any:
        calls[operation] += 1
        return await plain(self, operation, parameters)

    client._make_api_call = counting
    try:
        yield calls
    finally:
        client._make_api_call = plain


async def at_once(number: int, work: Callable[[], Awaitable[None]]) -> float:
    """Seconds until ``number`` of these, side by side, are through."""
    began = time.perf_counter()
    await asyncio.gather(*(work() for _ in range(number)))
    return time.perf_counter() - began


async def raw_sqs(client: Any, messages: int, body: str, number: int) -> tuple[float, float]:
    """Messages per second sent, and received and deleted, in batches of ten, so many requests at once."""
    url = (await client.create_queue(QueueName=f"raw-{secrets.token_hex(4)}"))["QueueUrl"]
    to_send, taken = messages, 0

    async def send() -> None:
        nonlocal to_send
        while to_send > 0:
            to_send -= 10
            entries = [{"Id": str(n), "MessageBody": body} for n in range(10)]
            await client.send_message_batch(QueueUrl=url, Entries=entries)

    async def take() -> None:
        nonlocal taken
        while taken < messages:
            answer = await client.receive_message(QueueUrl=url, MaxNumberOfMessages=10, WaitTimeSeconds=1)
            if found := answer.get("Messages"):
                entries = [{"Id": str(n), "ReceiptHandle": each["ReceiptHandle"]} for n, each in enumerate(found)]
                await client.delete_message_batch(QueueUrl=url, Entries=entries)
                taken += len(found)

    sent_s = await at_once(number, send)
    taken_s = await at_once(number, take)
    return messages / sent_s, messages / taken_s


async def own_sqs(store: str, endpoint: str, runs: int) -> tuple[float, float]:
    """Runs per second submitted, and taken in."""
    made = shop(store, f"sqs://elasticmq?endpoint={endpoint}")
    await queue(endpoint, f"{made.aq.name}-default")
    async with made.aq as aq:
        # The bare client is made, too, before it is measured.
        await aq.enqueue_many([made.noop.bind(PAYLOAD) for _ in range(WARM)])
        bound = [made.noop.bind(PAYLOAD) for _ in range(runs - WARM)]
        began = time.perf_counter()
        await aq.enqueue_many(bound)
        sent_s = time.perf_counter() - began
        return len(bound) / sent_s, runs / await intake_s(aq, runs, room=100)


async def sqs_intake(store: str, endpoint: str, runs: int = 3000, rounds: int = 5) -> None:
    """Submit and intake beside bare batches of the same size, in turn, and the requests that they take."""
    raw: dict[int, list[tuple[float, float]]] = {number: [] for number in SQS_AT_ONCE}
    ours: list[tuple[float, float]] = []
    calls: Counter[str] = Counter()
    for _ in range(rounds):
        async with sqs_client(endpoint) as client:
            for number, rates in raw.items():
                rates.append(await raw_sqs(client, runs, BODY, number))
        with counted() as each:
            ours.append(await own_sqs(store, endpoint, runs))
        calls += each
    raw_sent, raw_taken = map(max, zip(*(medians(rates) for rates in raw.values()), strict=True))
    sent, taken = medians(ours)
    show("aiobotocore alone: send, batches of ten", f"{raw_sent:,.0f} messages/s")
    show("agentq: enqueue_many into SQS", f"{sent:,.0f} runs/s")
    show("aiobotocore alone: receive and delete", f"{raw_taken:,.0f} messages/s")
    show("agentq: intake into PostgreSQL", f"{taken:,.0f} runs/s")
    judge(SENT, sent / raw_sent)
    judge(TAKEN, taken / raw_taken)
    show("requests", ", ".join(f"{operation} {count}" for operation, count in calls.most_common()))
    judge(REQUESTS, calls.total() / runs / rounds)


def medians(rates: list[tuple[float, float]]) -> tuple[float, float]:
    """The middle of the first numbers, and of the second."""
    first, second = zip(*rates, strict=True)
    return statistics.median(first), statistics.median(second)


async def sqs_worker(store: str, endpoint: str, runs: int = 3000, slots: int = 100) -> None:
    """The whole way: from the queue through the slots, results stored, and the requests that it takes."""
    made = shop(store, f"sqs://elasticmq?endpoint={endpoint}")
    await queue(endpoint, f"{made.aq.name}-default")
    with counted() as calls:
        async with made.aq as aq:
            await aq.enqueue_many([made.noop.bind(PAYLOAD) for _ in range(runs)])
            async with working(aq, slots):
                await wait_until("every run has begun", lambda: len(made.began) >= runs, timeout_s=LIMIT_S)
    rate = (runs - 1) / (made.began[-1] - made.began[0])
    show(f"agentq: no-op runs from SQS, {slots} slots, results stored", f"{rate:,.0f} runs/s")
    show("requests", ", ".join(f"{operation} {count}" for operation, count in calls.most_common()))
    judge(dataclasses.replace(REQUESTS, label="SQS requests per run, worker"), calls.total() / runs)


PARTS: dict[str, tuple[Callable[[], Any], Callable[[str, str], Awaitable[None]]]] = {
    "kafka": (kafka.server, kafka_intake),
    "kafka-worker": (kafka.server, kafka_worker),
    "ahead": (kafka.server, kafka_ahead),
    "sqs": (elasticmq.server, sqs_intake),
    "sqs-worker": (elasticmq.server, sqs_worker),
}


async def measure(part: Callable[[str, str], Awaitable[None]], url: str, broker: str) -> None:
    """On a schema of its own."""
    async with fresh_schema(url) as store:
        await part(store, broker)


def main(names: list[str]) -> int:
    """Measure these parts, all by default; each server is started once."""
    with contextlib.ExitStack() as stack:
        url = stack.enter_context(postgres_server())
        running: dict[Callable[[], Any], str] = {}
        for name in names or PARTS:
            start, part = PARTS[name]
            if start not in running:
                running[start] = stack.enter_context(start())
            show(f"-- {name}", "")
            asyncio.run(measure(part, url, running[start]))
    return 1 if missed else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

"""What the Kafka broker does, beside the raw client in the same run: `python tests/bench/bench_kafka.py [name …]`.

The broker is AGENTQ_TEST_KAFKA, or one of its own on loopback with its default flush.
"""

from __future__ import annotations

import asyncio
import gc
import statistics
import sys
import time
from collections.abc import Awaitable, Callable
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2]))

from aiokafka import AIOKafkaConsumer, AIOKafkaProducer

from agentq.brokers.base import Outgoing
from agentq.brokers.kafka import KafkaBroker
from tests.helpers import kafka

BODY = b'{"v":1,"id":"01j8x0000000000000000000","app":"bench","task":"t","queue":"q","args":{"n":1}' + b" " * 200 + b"}"
TOTAL = 30_000
BATCH = 500
PARTITIONS = 6
LABEL = 44


def show(label: str, figures: str) -> None:
    print(f"{label:{LABEL}} {figures}", flush=True)


async def prepared(address: str) -> str:
    app = kafka.fresh("bench")
    await kafka.create(address, f"{app}.q", PARTITIONS)
    return app


async def positions(source: str) -> dict[int, int]:
    return {}


async def raw_send(address: str, app: str) -> float:
    producer = AIOKafkaProducer(
        bootstrap_servers=address, enable_idempotence=True, acks="all", linger_ms=5, max_batch_size=256 * 1024
    )
    await producer.start()
    began = time.perf_counter()
    for _ in range(TOTAL // BATCH):
        await asyncio.gather(*[await producer.send(f"{app}.q", BODY) for _ in range(BATCH)])
    rate = TOTAL / (time.perf_counter() - began)
    await producer.stop()
    return rate


async def our_send(address: str, app: str) -> float:
    messages = [Outgoing(id=f"r{n}", queue="q", body=BODY) for n in range(BATCH)]
    async with KafkaBroker(f"kafka://{address}", app=app) as broker:
        assert await broker.send(messages[:1]) == [None]
        began = time.perf_counter()
        for _ in range(TOTAL // BATCH):
            assert not any(await broker.send(messages))
        return TOTAL / (time.perf_counter() - began)


async def raw_receive(address: str, app: str) -> float:
    consumer = AIOKafkaConsumer(
        f"{app}.q", bootstrap_servers=address, group_id=f"raw-{app}", enable_auto_commit=False, auto_offset_reset="earliest"
    )
    await consumer.start()
    count, began = 0, 0.0
    while count < TOTAL:
        found = await consumer.getmany(timeout_ms=1000, max_records=BATCH)
        began = began or time.perf_counter()
        count += sum(map(len, found.values()))
        await consumer.commit()
    rate = count / (time.perf_counter() - began)
    await consumer.stop()
    return rate


async def our_receive(address: str, app: str) -> float:
    async with KafkaBroker(f"kafka://{address}", app=app) as broker, broker.inbox(["q"], positions) as inbox:
        count, began = 0, 0.0
        while count < TOTAL:
            found = await inbox.receive(BATCH)
            if found:
                began = began or time.perf_counter()
            count += len(found)
            await inbox.acknowledge(found)
        return count / (time.perf_counter() - began)


Part = Callable[[str, str], Awaitable[float]]


async def beside(address: str, label: str, raw: Part, ours: Part, *, filled: bool) -> None:
    """Both in turn, three times each, so that neither has the warmer broker."""
    rates: dict[str, list[float]] = {"raw": [], "agentq": []}
    for _ in range(3):
        for name, part in (("raw", raw), ("agentq", ours)):
            app = await prepared(address)
            if filled:
                await our_send(address, app)
            gc.collect()
            rates[name].append(await part(address, app))
    middle = {name: statistics.median(values) for name, values in rates.items()}
    for name, rate in middle.items():
        show(f"{label}, {name}", f"{rate:,.0f}/s")
    show(f"{label}, share of raw", f"{middle['agentq'] / middle['raw']:.0%}")


async def sending(address: str) -> None:
    await beside(address, "send, acks=all, idempotent, by 500", raw_send, our_send, filled=False)


async def receiving(address: str) -> None:
    await beside(address, "receive and commit, by 500", raw_receive, our_receive, filled=True)


async def latency(address: str) -> None:
    """From `send` to `receive`, one at a time."""
    app = await prepared(address)
    async with KafkaBroker(f"kafka://{address}", app=app) as broker, broker.inbox(["q"], positions) as inbox:
        times = []
        for number in range(220):
            began = time.perf_counter()
            sent = asyncio.create_task(broker.send([Outgoing(id="r", queue="q", body=BODY)]))
            while not (found := await inbox.receive(10)):
                pass
            times.append(time.perf_counter() - began)
            await sent
            await inbox.acknowledge(found)
            if number == 19:  # the first ones join the group
                times.clear()
    times.sort()
    show("send to received", f"p50 {statistics.median(times) * 1e3:.1f} ms, p99 {times[int(len(times) * 0.99)] * 1e3:.1f} ms")


PARTS = {"send": sending, "receive": receiving, "latency": latency}


if __name__ == "__main__":
    with kafka.server() as server:
        for wanted in sys.argv[1:] or PARTS:
            asyncio.run(PARTS[wanted](server))

"""What the SQS broker reaches beside bare aiobotocore batches on the same server: `python tests/bench/bench_sqs.py [name …]`.

The server is AGENTQ_TEST_SQS, or an ElasticMQ of one's own. Figures are medians of three; both sides run by turns, and do the
same: messages of 300 bytes, in batches of ten, with as many requests at once.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import secrets
import statistics
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2]))

from aiobotocore.config import AioConfig
from aiobotocore.session import get_session

from agentq.brokers.base import Outgoing
from agentq.brokers.sqs import SQSBroker
from agentq.message import new_run_id
from tests.helpers import elasticmq

BODY = '{"v":1,"args":{"text":"' + "x" * 270 + '"}}'
TOTAL = 4_000
AT_ONCE = 8
"""Requests of bare aiobotocore under way; producers of ten messages each with the broker."""
LABEL = 52


async def nowhere(source: str) -> dict[int, int]:
    return {}


def show(label: str, figures: str) -> None:
    print(f"{label:{LABEL}} {figures}", flush=True)


@contextlib.asynccontextmanager
async def bare(endpoint: str):
    session = get_session()
    session.set_credentials("x", "x")
    settings = AioConfig(max_pool_connections=64)
    async with session.create_client("sqs", region_name="us-east-1", endpoint_url=endpoint, config=settings) as client:
        yield client


async def bare_send(client, queue: str) -> float:
    """Messages a second."""

    async def produce() -> None:
        for _ in range(TOTAL // 10 // AT_ONCE):
            entries = [{"Id": str(number), "MessageBody": BODY} for number in range(10)]
            assert len((await client.send_message_batch(QueueUrl=queue, Entries=entries))["Successful"]) == 10

    began = time.perf_counter()
    await asyncio.gather(*(produce() for _ in range(AT_ONCE)))
    return TOTAL / (time.perf_counter() - began)


async def bare_receive(client, queue: str) -> float:
    left = TOTAL

    async def consume() -> None:
        nonlocal left
        while left > 0:
            got = (await client.receive_message(QueueUrl=queue, MaxNumberOfMessages=10, WaitTimeSeconds=1)).get("Messages", [])
            if got:
                entries = [{"Id": str(number), "ReceiptHandle": each["ReceiptHandle"]} for number, each in enumerate(got)]
                await client.delete_message_batch(QueueUrl=queue, Entries=entries)
                left -= len(got)
                if left <= 0:
                    done.set_result(time.perf_counter())

    done: asyncio.Future[float] = asyncio.get_running_loop().create_future()
    began = time.perf_counter()
    consumers = [asyncio.create_task(consume()) for _ in range(AT_ONCE)]
    took = await done - began
    await asyncio.wait(consumers)
    return TOTAL / took


async def our_send(broker: SQSBroker, queue: str, *, each: int = 10) -> float:
    """The same by producers of ``each`` messages at a time, as many as share full batches."""

    async def produce() -> None:
        for _ in range(TOTAL // 10 // AT_ONCE):
            messages = [Outgoing(id=new_run_id(), queue=queue, body=BODY.encode()) for _ in range(each)]
            assert not any(await broker.send(messages))

    began = time.perf_counter()
    await asyncio.gather(*(produce() for _ in range(AT_ONCE * 10 // each)))
    return TOTAL / (time.perf_counter() - began)


async def our_receive(broker: SQSBroker, queue: str) -> float:
    """As intake does: one loop that receives, acknowledgements beside it."""
    left = TOTAL
    chores = set()
    began = time.perf_counter()
    async with broker.inbox([queue], nowhere) as inbox:
        while left > 0:
            got = await inbox.receive(min(left, AT_ONCE * 10))
            left -= len(got)
            if got:
                chores.add(asyncio.create_task(inbox.acknowledge(got)))
        await asyncio.wait(chores)
        took = time.perf_counter() - began
    return TOTAL / took


async def batches(endpoint: str) -> None:
    """Sends, then receives and acknowledgements, by turns."""
    rates: dict[str, list[float]] = {name: [] for name in ("bare send", "send", "bare receive", "receive")}
    requests = []
    async with bare(endpoint) as client, SQSBroker(f"sqs://us-east-1?endpoint={endpoint}&wait=1", app="bench") as broker:
        for turn in range(4):  # the first warms up
            name = f"b{secrets.token_hex(4)}"
            await broker.inspect([name], fix=True)
            queue = (await client.get_queue_url(QueueName=f"bench-{name}"))["QueueUrl"]
            for side in ("bare", "ours") if turn % 2 else ("ours", "bare"):
                if side == "bare":
                    rates["bare send"].append(await bare_send(client, queue))
                    rates["bare receive"].append(await bare_receive(client, queue))
                else:
                    before = broker.requests
                    rates["send"].append(await our_send(broker, name))
                    rates["receive"].append(await our_receive(broker, name))
                    requests.append((broker.requests - before) / TOTAL)
    for name in ("send", "receive"):
        raw, ours = (statistics.median(rates[which][1:]) for which in (f"bare {name}", name))
        what = "send" if name == "send" else "receive and acknowledge"
        show(f"{what}: bare aiobotocore", f"{raw:,.0f} messages/s")
        show(f"{what}: agentq", f"{ours:,.0f} messages/s, {ours / raw:.0%}")
    show("requests per message, sent, received and acknowledged", f"{statistics.median(requests[1:]):.3f}")


async def singles(endpoint: str) -> None:
    """Eighty producers of one message at a time: what they share."""
    async with SQSBroker(f"sqs://us-east-1?endpoint={endpoint}&wait=1", app="bench") as broker:
        name = f"b{secrets.token_hex(4)}"
        await broker.inspect([name], fix=True)
        rates, requests = [], []
        for _ in range(4):
            before = broker.requests
            rates.append(await our_send(broker, name, each=1))
            requests.append((broker.requests - before) / TOTAL)
        show("send, eighty producers of single messages", f"{statistics.median(rates[1:]):,.0f} messages/s, "
             f"{statistics.median(requests[1:]):.3f} requests each")  # fmt: skip


PARTS = {"batches": batches, "singles": singles}


@contextlib.contextmanager
def server():
    if given := os.environ.get("AGENTQ_TEST_SQS"):
        yield given
        return
    with elasticmq.own(options=()) as process:
        yield elasticmq.endpoint(process)


if __name__ == "__main__":
    with server() as endpoint:
        for part in sys.argv[1:] or PARTS:
            asyncio.run(PARTS[part](endpoint))

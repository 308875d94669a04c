"""The servers under fire: a broker and a PostgreSQL of the storm's own, each stopped for a while and started again."""

from __future__ import annotations

import asyncio
import contextlib
import signal
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial

from agentq.brokers.base import Broker
from tests.helpers import elasticmq, kafka, postgres_server

VISIBILITY_S = 3
"""At SQS, as long as the storm's leases: doctor's 60 s are for queues whose workers die now and then."""


@dataclass(frozen=True, slots=True)
class Server:
    """One that can be taken away."""

    name: str
    url: str
    stop: Callable[[], None]
    start: Callable[[], None]
    freeze: Callable[[], None]
    thaw: Callable[[], None]


@contextlib.contextmanager
def postgres() -> Iterator[Server]:
    """A database with its syncs on."""
    with postgres_server.own() as server:
        freeze, thaw = (partial(server.signal, number) for number in (signal.SIGSTOP, signal.SIGCONT))
        yield Server("PostgreSQL", server.url, server.stop, server.start, freeze, thaw)


@contextlib.contextmanager
def sqs() -> Iterator[Server]:
    """An ElasticMQ that keeps its messages on disk."""
    with elasticmq.own(durable=True) as process:
        url = f"sqs://elasticmq/{{app}}-{{queue}}?endpoint={elasticmq.endpoint(process)}&wait=2"
        yield Server("ElasticMQ", url, process.stop, process.start, process.pause, process.resume)


@contextlib.contextmanager
def log() -> Iterator[Server]:
    """A Kafka of one node."""
    with kafka.own() as process:
        url = f"kafka://127.0.0.1:{process.port}?partitions=4&session=3s"
        yield Server("Kafka", url, process.stop, process.start, process.pause, process.resume)


async def hide_briefly(broker: Broker, queues: Sequence[str]) -> None:
    """Let what the open poll of a killed worker still gets be hidden for seconds only."""
    from agentq.brokers.sqs import SQSBroker  # noqa: PLC0415 - the client is an extra

    assert isinstance(broker, SQSBroker)
    for queue in queues:
        name = broker._address.name(queue)
        await broker._clients.ask("set_queue_attributes", name, Attributes={"VisibilityTimeout": f"{VISIBILITY_S}"})


BROKERS = {"sqs": sqs, "kafka": log}


async def strike(servers: list[Server], *, times: int, first_s: float, down_s: float, between_s: float) -> list[str]:
    """Take each server away so many times, one after the other; what was done, in words."""
    done: list[str] = []
    await asyncio.sleep(first_s)
    for _ in range(times):
        for server in servers:
            await asyncio.to_thread(server.stop)
            await asyncio.sleep(down_s)
            await asyncio.to_thread(server.start)
            done.append(f"{server.name} down for {down_s:g} s")
            await asyncio.sleep(between_s)
    return done

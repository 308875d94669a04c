"""A Kafka broker object beside a store that is a dictionary: what tests of the inbox look at."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Sequence
from typing import Any

from agentq import telemetry
from agentq.brokers.base import Delivery, Inbox, Outgoing
from agentq.brokers.kafka import KafkaBroker
from tests.helpers import kafka


class Store:
    """Keeps positions, and what was admitted; refuses both while it is down."""

    def __init__(self) -> None:
        self.read: dict[str, dict[int, int]] = {}
        self.admitted: list[str] = []

    async def positions(self, source: str) -> dict[int, int]:
        return dict(self.read.get(source, {}))

    def admit(self, deliveries: Sequence[Delivery]) -> None:
        for delivery in deliveries:
            assert delivery.position is not None
            partitions = self.read.setdefault(delivery.position.source, {})
            partition = delivery.position.partition
            partitions[partition] = max(delivery.position.offset, partitions.get(partition, 0))
            if delivery.id not in self.admitted:
                self.admitted.append(delivery.id)


class Lab:
    """One app at one cluster."""

    def __init__(self, address: str, app: str = "", parameters: str = "") -> None:
        self.address = address
        self.app = app or kafka.fresh()
        self.url = f"kafka://{address}?{parameters}"
        self.store = Store()
        self.bodies: list[str] = []
        self.events: list[tuple[str, dict[str, Any]]] = []

    def topic(self, queue: str = "q") -> str:
        return f"{self.app}.{queue}"

    async def create(self, partitions: int = 1, queue: str = "q", **settings: str) -> None:
        named = {name.replace("_", "."): value for name, value in settings.items()}
        await kafka.create(self.address, self.topic(queue), partitions, named)

    @contextlib.asynccontextmanager
    async def broker(self, parameters: str = "") -> AsyncIterator[KafkaBroker]:
        async with KafkaBroker(self.url + parameters, app=self.app) as broker:
            yield broker

    @contextlib.asynccontextmanager
    async def inbox(self, *queues: str) -> AsyncIterator[tuple[KafkaBroker, Inbox]]:
        async with self.broker() as broker, broker.inbox(queues or ("q",), self.store.positions) as inbox:
            yield broker, inbox

    @contextlib.contextmanager
    def listening(self) -> Any:
        def sink(event: str, fields: dict[str, Any]) -> None:
            self.events.append((event, fields))

        telemetry.add_sink(sink)
        try:
            yield
        finally:
            telemetry.remove_sink(sink)

    def told(self, event: str) -> list[dict[str, Any]]:
        return [fields for name, fields in self.events if name == event]

    async def admit(self, inbox: Inbox, number: int, *, room: int = 100, timeout_s: float = 30.0) -> list[Delivery]:
        """Receive, admit and acknowledge until ``number`` messages came."""
        found: list[Delivery] = []
        async with asyncio.timeout(timeout_s):
            while len(found) < number:
                deliveries = await inbox.receive(room)
                self.store.admit(deliveries)
                await inbox.acknowledge(deliveries)
                found += deliveries
        self.bodies += [delivery.body.decode() for delivery in found]
        return found


async def take(inbox: Inbox, number: int, *, timeout_s: float = 30.0) -> list[Delivery]:
    """Receive until ``number`` messages came; nothing else is done with them."""
    found: list[Delivery] = []
    async with asyncio.timeout(timeout_s):
        while len(found) < number:
            found += await inbox.receive(100)
    return found


def messages(first: int, last: int, *, queue: str = "q", group: str | None = None) -> list[Outgoing]:
    return [Outgoing(id=f"r{n}", queue=queue, body=str(n).encode(), group=group) for n in range(first, last)]


async def send(broker: KafkaBroker, *given: Outgoing) -> None:
    answers = await broker.send(given)
    assert answers == [None] * len(given), answers

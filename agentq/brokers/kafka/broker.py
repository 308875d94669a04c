"""The broker as `agentq.brokers.base` asks for it."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from types import TracebackType
from typing import Self

from agentq.brokers.base import Backlog, Capabilities, Delivery, Finding, Inbox, Outgoing
from agentq.brokers.kafka.address import address
from agentq.brokers.kafka.backlog import Backlogs
from agentq.brokers.kafka.desk import Desk
from agentq.brokers.kafka.inbox import KafkaInbox
from agentq.brokers.kafka.sending import Sender
from agentq.brokers.kafka.setup import inspect


class KafkaBroker:
    """Topics of one Kafka cluster.

    Order holds within a partition, and a message's group decides its partition. Nothing is delayed here, and nothing is given
    up: what cannot become a run is a dead letter of the store's.
    """

    def __init__(self, url: str, *, app: str) -> None:
        """Read ``url`` (see `agentq.brokers.kafka.address`); connect to nothing.

        Raises:
            InvalidArgument: the url does not fit.
        """
        self._address = address(url, app=app)
        self._capabilities = Capabilities(ordering=True, max_delay_s=0.0, max_bytes=self._address.max_bytes, partitioned=True)
        self._desk = Desk(self._address)
        self._sender = Sender(self._address, self._desk)
        self._backlogs = Backlogs(self._address, self._desk)

    @property
    def where(self) -> str:
        """The servers and the template, free of secrets."""
        return self._address.where

    def place(self, queue: str) -> str:
        """Where messages for ``queue`` go, as people look for it there.

        Raises:
            InvalidArgument: Kafka does not take such a name.
        """
        return f"{self._address.topic(queue)} (Kafka {','.join(self._address.servers)})"

    @property
    def parcels(self) -> None:
        """Large arguments go to the store."""
        return

    def capabilities(self, queue: str) -> Capabilities:  # noqa: ARG002 - all topics are alike
        """What it can do; the same for each queue."""
        return self._capabilities

    async def send(self, messages: Sequence[Outgoing]) -> Sequence[BaseException | None]:
        """Send, and answer in order what became of each: None is on the disks of all replicas in sync."""
        return await self._sender.send(messages) if messages else []

    def inbox(
        self,
        queues: Sequence[str],
        positions: Callable[[str], Awaitable[Mapping[int, int]]],
        *,
        dead: bool = False,
        poll_s: float | None = None,  # noqa: ARG002 - no poll is waited for
    ) -> AbstractAsyncContextManager[Inbox]:
        """Join the group that shares the topics of ``queues`` out; with ``dead`` there never is anything."""
        return _Nothing() if dead else KafkaInbox(self._address, self._desk, queues, positions)

    async def backlog(self, queues: Sequence[str]) -> Sequence[Backlog]:
        """Lag of the group behind each topic, partition by partition."""
        return await self._backlogs.read(queues)

    async def inspect(self, queues: Sequence[str], *, fix: bool = False) -> Sequence[Finding]:
        """Check topics, their settings and the group; with ``fix`` create topics that are missing."""
        return await inspect(self._address, self._desk, self._backlogs, queues, fix=fix)

    async def __aenter__(self) -> Self:
        """Connect to nothing yet."""
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None, /
    ) -> None:
        """Send what was handed in, and hang up."""
        try:
            await self._sender.close()
        finally:
            await self._desk.close()


class _Nothing:
    """The inbox of what Kafka gave up delivering: it never does."""

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None, /
    ) -> None:
        return

    async def receive(self, room: int) -> Sequence[Delivery]:  # noqa: ARG002 - there is nothing
        return ()

    async def acknowledge(self, deliveries: Sequence[Delivery]) -> None:  # noqa: ARG002 - there is nothing
        return

    async def release(self, deliveries: Sequence[Delivery]) -> None:  # noqa: ARG002 - there is nothing
        return

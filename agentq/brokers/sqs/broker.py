"""`SQSBroker`: the contract of a broker over Amazon SQS and servers that speak like it."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any, Self

from agentq.brokers.base import Backlog, Capabilities, Finding, Inbox, Outgoing
from agentq.brokers.sqs.address import address, is_fifo
from agentq.brokers.sqs.backlog import read_backlog
from agentq.brokers.sqs.client import Clients
from agentq.brokers.sqs.inbox import Source, SQSInbox
from agentq.brokers.sqs.letters import dead_letter_queue
from agentq.brokers.sqs.outbox import Outbox
from agentq.brokers.sqs.parcels import S3Parcels
from agentq.brokers.sqs.policy import iam_policy
from agentq.brokers.sqs.receipts import Receipts
from agentq.brokers.sqs.setup import inspect

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
    from contextlib import AbstractAsyncContextManager
    from types import TracebackType

    from agentq.brokers.base import Parcels

MAX_DELAY_S = 900.0
"""SQS's own limit; beyond it the store's timer waits."""
_DEAD_WAIT_S = 2
_CLOSE_S = 1.5
"""For answers to what was handed in, when the broker is closed. Nobody waits for them any more, and whoever ends a process
that drains does not wait for long either."""


class SQSBroker:
    """Fulfils `agentq.brokers.base.Broker`. See `agentq.brokers.sqs.address` for the url."""

    def __init__(self, url: str, *, app: str) -> None:
        """Read ``url``; nothing is connected.

        Raises:
            InvalidArgument: a part of the url does not fit.

        """
        self._address = address(url, app=app)
        self._clients = Clients(self._address)
        self._outbox = Outbox(self._address, self._clients)
        self._receipts = Receipts(self._clients, linger_s=self._address.linger_s)
        self._inboxes: set[SQSInbox] = set()
        bucket = self._address.bucket
        self._parcels = S3Parcels(self._clients, bucket, self._address.prefix) if bucket is not None else None

    @property
    def where(self) -> str:
        """See `Broker.where`."""
        return self._address.where

    def place(self, queue: str) -> str:
        """Where messages for ``queue`` go, as people look for it there; raises as `capabilities`."""
        at = f" at {self._address.endpoint}" if self._address.endpoint else ""
        return f"{self._address.name(queue)} (SQS {self._address.region}{at})"

    @property
    def parcels(self) -> Parcels | None:
        """See `Broker.parcels`."""
        return self._parcels

    @property
    def requests(self) -> int:
        """How many requests were made since this object was made; each costs money."""
        return self._clients.requests

    def capabilities(self, queue: str) -> Capabilities:
        """See `Broker.capabilities`."""
        fifo = is_fifo(self._address.name(queue))
        # On a FIFO queue SQS refuses a delay of one message: it would hold up those behind it.
        return Capabilities(ordering=fifo, max_delay_s=0.0 if fifo else MAX_DELAY_S, max_bytes=self._address.max_bytes)

    async def send(self, messages: Sequence[Outgoing]) -> Sequence[BaseException | None]:
        """See `Broker.send`."""
        return await self._outbox.send(messages)

    def inbox(
        self,
        queues: Sequence[str],
        positions: Callable[[str], Awaitable[Mapping[int, int]]],  # noqa: ARG002 - a queue has none
        *,
        dead: bool = False,
        poll_s: float | None = None,
    ) -> AbstractAsyncContextManager[Inbox]:
        """See `Broker.inbox`."""
        longest = self._address.wait_s if poll_s is None else max(1, min(self._address.wait_s, int(poll_s)))
        return self._inbox(queues, dead=dead, longest=longest)

    async def backlog(self, queues: Sequence[str]) -> Sequence[Backlog]:
        """See `Broker.backlog`; where queues of the app share one at SQS, all is counted for the first of them."""
        return await read_backlog(self._address, self._clients, queues)

    async def inspect(self, queues: Sequence[str], *, fix: bool = False) -> Sequence[Finding]:
        """See `Broker.inspect`."""
        return await inspect(self._address, self._clients, queues, fix=fix)

    def policy(self, queues: Sequence[str]) -> dict[str, Any]:
        """The least that IAM must allow, as a policy document with a statement per part: producer, worker, scaler, doctor."""
        return iam_policy(self._address, queues)

    async def __aenter__(self) -> Self:
        """See `Broker.__aenter__`."""
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None, /
    ) -> None:
        """See `Broker.__aexit__`."""
        for inbox in tuple(self._inboxes):
            await inbox.finish()
        try:
            async with asyncio.timeout(_CLOSE_S):
                await self._outbox.close()
                await self._receipts.close()
        except TimeoutError:
            self._outbox.abandon()
            self._receipts.abandon()
        await self._clients.close()

    @asynccontextmanager
    async def _inbox(self, queues: Sequence[str], *, dead: bool, longest: int) -> AsyncIterator[Inbox]:
        sources: dict[str, Source] = {}
        for queue in queues:
            name, wait_s = self._address.name(queue), longest
            if name in sources:
                continue  # the app's queues share it, and their envelopes say which they are for
            if dead:
                letters = await dead_letter_queue(self._clients, name)
                sources[name] = Source(queue, letters, origin=name, wait_s=min(wait_s, _DEAD_WAIT_S), optional=True)
            else:
                sources[name] = Source(queue, name, origin=name, wait_s=wait_s)
        inbox = SQSInbox(self.where, list(sources.values()), self._clients, self._receipts)
        self._inboxes.add(inbox)
        try:
            yield inbox
        finally:
            try:
                await inbox.finish()
            finally:
                self._inboxes.discard(inbox)

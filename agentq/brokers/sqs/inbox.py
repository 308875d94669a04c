"""The receiving end: long polls that are always finished, more of them while batches come full, and receipts in batches."""

from __future__ import annotations

import asyncio
import random
from typing import TYPE_CHECKING, Any, Final

from agentq.brokers.base import Delivery
from agentq.brokers.sqs.batches import MAX_ENTRIES
from agentq.brokers.sqs.errors import Missing
from agentq.errors import BrokerError, BrokerUnavailable
from agentq.telemetry import emit

if TYPE_CHECKING:
    from collections.abc import Sequence

    from agentq.brokers.sqs.client import Clients
    from agentq.brokers.sqs.receipts import Receipts

POLLS: Final = 16
"""Polls of one queue at once, while each comes back full."""
_PATIENCE_S: Final = 5.0
"""How long `receive` waits at most; polls under way go on."""
_EXTRA_WAIT_S: Final = 1
"""Of a poll beside a queue's first: short, because it was begun for messages that are there already."""
_HOLD_S: Final = 1.0
"""How long messages that nobody fetches are kept before others may have them."""
_BACKOFF_S: Final = 0.2
"""Before a queue whose poll failed is polled again; doubles with each further failure."""
_MAX_BACKOFF_S: Final = 5.0


class Source:
    """One queue at SQS, and how polling it goes."""

    def __init__(self, queue: str, name: str, *, origin: str, wait_s: int, optional: bool = False) -> None:
        """Poll ``name`` for ``queue``.

        Args:
            queue: what its deliveries say.
            name: at SQS.
            origin: the name under which its messages were sent: a dead letter keeps its identity.
            wait_s: of a long poll.
            optional: whether it may be missing; then it is empty.

        """
        self.queue = queue
        self.name = name
        self.origin = origin
        self.wait_s = wait_s
        self.optional = optional
        self.polls = 0
        self.wanted_polls = 1
        self.busy = False
        """Whether the last poll brought something."""
        self.failures = 0
        self.since: float | None = None
        """When it began to fail."""
        self.told = False
        """Whether that was told of this queue alone."""
        self.not_before = 0.0

    def arrived(self, count: int, asked: int) -> None:
        """Poll more while polls come back full, fewer when they do not."""
        self.busy = count > 0
        full = count >= asked
        self.wanted_polls = min(POLLS, self.wanted_polls * 2) if full else max(1, self.wanted_polls // 2) if count else 1
        self.failures = 0

    def failed(self, now: float) -> bool:
        """Wait before the next poll; whether this is news."""
        news = self.since is None
        self.since = now if self.since is None else self.since
        delay_s = min(_MAX_BACKOFF_S, _BACKOFF_S * 2 ** min(self.failures, 10))
        self.failures += 1
        self.wanted_polls = 1
        self.not_before = now + delay_s * random.uniform(0.5, 1.0)  # noqa: S311 - jitter, not a secret
        return news


class SQSInbox:
    """Fulfils `agentq.brokers.base.Inbox` over some queues of one broker."""

    def __init__(self, where: str, sources: Sequence[Source], clients: Clients, receipts: Receipts) -> None:
        """Poll nothing yet."""
        self._where = where
        self._sources = list(sources)
        self._clients = clients
        self._receipts = receipts
        self._room = 0
        self._asked = 0
        """By the polls under way."""
        self._tasks: set[asyncio.Task[None]] = set()
        self._arrived: list[Delivery] = []
        self._error: BrokerError | None = None
        self._failure: BrokerError | None = None
        """The last one; it stands while every queue fails."""
        self._stirred = asyncio.Event()
        self._left = False
        self._holding: asyncio.TimerHandle | None = None

    async def receive(self, room: int) -> Sequence[Delivery]:
        """See `Inbox.receive`.

        Raises:
            BrokerUnavailable: the polls of every queue failed, one of them at least for now.
            BrokerError: the polls of every queue were refused.

        """
        loop = asyncio.get_running_loop()
        self._room = room
        until = loop.time() + _PATIENCE_S
        begun = False
        while room > 0 and not self._left:
            self._stirred.clear()
            if self._arrived:
                return self._take()
            if self._error is not None:
                error, self._error = self._error, None
                raise error
            if begun and not self._tasks and not self._failing():
                return ()  # every queue that answers said that it is empty
            self._poll(room)
            begun = begun or bool(self._tasks)
            wake_at = min([until, *(source.not_before for source in self._sources if not source.polls)])
            if loop.time() >= until:
                if self._failing() and self._failure is not None:
                    raise self._failure  # a poll that still hangs says nothing else
                return ()
            await self._wait(max(wake_at, loop.time() + 0.001))
        await self._give_back()
        return ()

    async def acknowledge(self, deliveries: Sequence[Delivery]) -> None:
        """See `Inbox.acknowledge`; raises what kept SQS from hearing of it."""
        await self._receipts.delete(deliveries)

    async def release(self, deliveries: Sequence[Delivery]) -> None:
        """See `Inbox.release`; raises what kept SQS from hearing of it."""
        await self._receipts.release(deliveries)

    async def finish(self) -> None:
        """Let polls under way end, and hand back what they bring; cancelled, wait for none of them any more."""
        self._left = True
        self._room = 0
        self._forget_timer()
        try:
            await self._give_back()
            # A poll that is cancelled here still receives there, and what it got is hidden until its visibility timeout.
            while self._tasks:
                await asyncio.wait(self._tasks)
        except asyncio.CancelledError:
            for task in self._tasks:
                task.cancel()
            raise

    def _take(self) -> list[Delivery]:
        taken, self._arrived = self._arrived, []
        self._room = max(0, self._room - len(taken))
        self._forget_timer()
        self._poll_more(self._room)
        return taken

    def _forget_timer(self) -> None:
        if self._holding is not None:
            self._holding.cancel()
            self._holding = None

    def _failing(self) -> bool:
        return all(source.since is not None for source in self._sources)

    def _poll(self, room: int) -> None:
        """Begin a poll of each queue that has none, and more of those that come back full."""
        now = asyncio.get_running_loop().time()
        idle = [source for source in self._sources if not source.polls and source.not_before <= now]
        for number, source in enumerate(idle):
            # All queues at once may bring little more than there is room for; the long polls of empty ones hold none back.
            share = max(1, (room - self._asked) // (len(idle) - number))
            self._begin(source, min(MAX_ENTRIES, room if source.busy else share), source.wait_s)
        self._poll_more(room)

    def _poll_more(self, room: int) -> None:
        """Begin as many polls of the queues that come back full as fit into ``room`` with whole batches."""
        for source in self._sources:
            while source.wanted_polls > max(1, source.polls) and room - self._asked >= MAX_ENTRIES:
                self._begin(source, MAX_ENTRIES, min(_EXTRA_WAIT_S, source.wait_s) if source.polls else source.wait_s)

    def _begin(self, source: Source, asked: int, wait_s: int) -> None:
        source.polls += 1
        self._asked += asked
        task = asyncio.create_task(self._finish_poll(source, asked, wait_s))
        self._tasks.add(task)
        task.add_done_callback(self._ended)

    def _ended(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        self._stirred.set()

    async def _finish_poll(self, source: Source, asked: int, wait_s: int) -> None:
        try:
            messages = await self._messages(source, asked, wait_s)
        except BrokerError as error:
            self._failed(source, error)
            return
        finally:
            source.polls -= 1
            self._asked -= asked
        self._recovered(source)
        source.arrived(len(messages), asked)
        if messages:
            self._arrived += [_delivery(source, message) for message in messages]
            if self._room > 0:
                self._hold()
            else:
                await self._give_back()

    async def _messages(self, source: Source, asked: int, wait_s: int) -> list[dict[str, Any]]:
        try:
            answer = await self._clients.ask(
                "receive_message",
                source.name,
                kind="polls",
                MaxNumberOfMessages=asked,
                WaitTimeSeconds=wait_s,
                MessageSystemAttributeNames=["SentTimestamp", "ApproximateReceiveCount"],
                MessageAttributeNames=["All"],
            )
        except Missing:
            if not source.optional:
                raise
            return []
        messages: list[dict[str, Any]] = answer.get("Messages", [])
        return messages

    def _failed(self, source: Source, error: BrokerError) -> None:
        """Let `receive` raise it where nothing else is heard of the broker; of one queue among others, tell it here."""
        self._failure = error
        news = source.failed(asyncio.get_running_loop().time())
        if self._failing():  # of the whole broker's trouble the caller tells
            self._error = error
        elif news:
            source.told = True
            self._tell(error, "receive", queue=source.queue)

    def _tell(self, error: BrokerError, verb: str, **fields: str) -> None:
        name = "broker.unavailable" if isinstance(error, BrokerUnavailable) else "broker.refused"
        emit(name, broker=self._where, verb=verb, error=str(error), error_type=type(error).__name__, **fields)

    def _recovered(self, source: Source) -> None:
        if source.since is None:
            return
        if source.told:
            duration_s = asyncio.get_running_loop().time() - source.since
            emit("broker.recovered", broker=self._where, queue=source.queue, duration_s=duration_s)
        source.since, source.told = None, False

    def _hold(self) -> None:
        """Do not keep for long what nobody fetches: while it is kept here nobody else gets it."""
        if self._holding is None:
            self._holding = asyncio.get_running_loop().call_later(_HOLD_S, self._held)

    def _held(self) -> None:
        self._holding = None
        task = asyncio.create_task(self._give_back())
        self._tasks.add(task)
        task.add_done_callback(self._ended)

    async def _give_back(self) -> None:
        deliveries, self._arrived = self._arrived, []
        if not deliveries:
            return
        try:
            await self._receipts.release(deliveries)
        except BrokerError as error:  # they come again when their visibility timeout is over
            self._tell(error, "release")

    async def _wait(self, until: float) -> None:
        """Until a poll has ended, or that time of the loop's clock."""
        try:
            async with asyncio.timeout_at(until):
                await self._stirred.wait()
        except TimeoutError:
            return


def _delivery(source: Source, message: dict[str, Any]) -> Delivery:
    system = message.get("Attributes", {})
    given = message.get("MessageAttributes", {})
    sent = system.get("SentTimestamp", "")
    return Delivery(
        queue=source.queue,
        body=message["Body"].encode(),
        id=f"sqs:{source.origin}:{message['MessageId']}",
        attributes={name: value["StringValue"] for name, value in given.items() if "StringValue" in value},
        sent_at=int(sent) / 1000 if sent.isdecimal() else None,
        receives=int(system.get("ApproximateReceiveCount", 1)),
        receipt=(source.name, message["ReceiptHandle"]),
    )

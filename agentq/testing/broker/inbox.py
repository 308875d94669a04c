"""The receiving end of a broker in memory: one part per queue."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Protocol

from agentq.brokers.base import Delivery
from agentq.clock import Clock
from agentq.testing.broker.log import Log, Member
from agentq.testing.broker.queue import Queue
from agentq.testing.broker.trouble import Trouble

Positions = Callable[[str], Awaitable[Mapping[int, int]]]

_EVERY_S = 0.005
"""How often an empty queue is looked at: a test moves the clock, and nobody hears of that."""


class Place:
    """What brokers of the same name share."""

    def __init__(self, clock: Clock) -> None:
        """Keep nothing yet."""
        self.clock = clock
        self.lock = threading.Lock()
        self.boxes: dict[str, Queue | Log] = {}
        self.trouble = Trouble()


class Part(Protocol):
    """One queue of an inbox."""

    name: str

    async def prepare(self) -> None:
        """Do what must be awaited before `take`."""

    def take(self, room: int) -> list[Delivery]:
        """Deliver up to ``room``."""
        ...

    def acknowledge(self, deliveries: list[Delivery]) -> None:
        """Let these go."""

    def release(self, deliveries: list[Delivery]) -> None:
        """Hand these back."""

    def leave(self) -> None:
        """Have no part in it any more."""


class QueuePart:
    """A queue, or its dead messages."""

    def __init__(self, place: Place, queue: Queue, *, dead: bool) -> None:
        """Attach to ``queue``."""
        self._place, self._queue, self._dead = place, queue, dead
        self.name = queue.name

    async def prepare(self) -> None:
        """Nothing to wait for."""

    def take(self, room: int) -> list[Delivery]:
        """Deliver up to ``room``."""
        with self._place.lock:
            return self._queue.take(room, now=self._place.clock.steady(), dead=self._dead)

    def acknowledge(self, deliveries: list[Delivery]) -> None:
        """Let these go."""
        with self._place.lock:
            self._queue.acknowledge(deliveries)

    def release(self, deliveries: list[Delivery]) -> None:
        """Hand these back."""
        with self._place.lock:
            self._queue.release(deliveries, now=self._place.clock.steady())

    def leave(self) -> None:
        """Keep nothing: what was returned is hidden until its visibility timeout."""


class LogPart:
    """A member of a log's group."""

    def __init__(self, place: Place, log: Log, positions: Positions) -> None:
        """Join ``log`` with the first `prepare`."""
        self._place, self._log, self._positions = place, log, positions
        self.name = log.name
        self._member: Member | None = None

    async def prepare(self) -> None:
        """Find out which partitions are ours, and where to read them on from."""
        now = self._place.clock.steady()
        with self._place.lock:
            member = self._member = self._member or self._log.join(now=now)
            new = self._log.assigned(member, now=now)
        if new:
            stored = await self._positions(self._log.source)
            with self._place.lock:
                self._log.start(member, new, stored)

    def take(self, room: int) -> list[Delivery]:
        """Deliver up to ``room``."""
        with self._place.lock:
            return self._log.take(self._member, room) if self._member is not None else []

    def acknowledge(self, deliveries: list[Delivery]) -> None:
        """Commit."""
        with self._place.lock:
            if self._member is not None:
                self._log.acknowledge(self._member, deliveries)

    def release(self, deliveries: list[Delivery]) -> None:
        """Go back to the first of these."""
        with self._place.lock:
            if self._member is not None:
                self._log.release(self._member, deliveries)

    def leave(self) -> None:
        """Let the others have its partitions."""
        with self._place.lock:
            if self._member is not None:
                self._log.leave(self._member)


class MemoryInbox:
    """Fulfils `Inbox` over the parts of one or more queues."""

    def __init__(self, place: Place, parts: Sequence[Part], wait_s: float) -> None:
        """Receive waits ``wait_s`` real seconds."""
        self._trouble = place.trouble
        self._parts = parts
        self._wait_s = wait_s

    async def receive(self, room: int) -> list[Delivery]:
        """See `Inbox.receive`; with no room it returns at once."""
        loop = asyncio.get_running_loop()
        until = loop.time() + self._wait_s
        while True:
            await asyncio.sleep(0)
            self._trouble.check()
            for part in self._parts:
                await part.prepare()
            found: list[Delivery] = []  # from here to the end nothing is awaited, so nothing that was taken can be lost
            for part in self._parts:
                found += part.take(room - len(found))
            if found or not room or loop.time() >= until:
                return self._trouble.stutter(found)
            await asyncio.sleep(_EVERY_S)

    async def acknowledge(self, deliveries: Sequence[Delivery]) -> None:
        """See `Inbox.acknowledge`."""
        await asyncio.sleep(0)
        self._trouble.check()
        if self._trouble.loses_acknowledgement():
            return
        for part in self._parts:
            part.acknowledge([delivery for delivery in deliveries if delivery.queue == part.name])

    async def release(self, deliveries: Sequence[Delivery]) -> None:
        """See `Inbox.release`."""
        await asyncio.sleep(0)
        self._trouble.check()
        for part in self._parts:
            part.release([delivery for delivery in deliveries if delivery.queue == part.name])

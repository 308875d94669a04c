"""`MemoryBroker`: the contract of a broker over queues or logs in this process's memory."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from types import TracebackType
from typing import Self
from weakref import WeakValueDictionary

from agentq.brokers.base import Backlog, Capabilities, Finding, Inbox, Outgoing, Parcels
from agentq.clock import Clock, SystemClock
from agentq.errors import InvalidArgument, PayloadTooLarge
from agentq.testing.broker.inbox import LogPart, MemoryInbox, Part, Place, Positions, QueuePart
from agentq.testing.broker.log import Log
from agentq.testing.broker.queue import Queue
from agentq.testing.broker.trouble import Trouble

MAX_BYTES = 1024 * 1024
MAX_DELAY_S = 900.0
_PLACES: WeakValueDictionary[str, Place] = WeakValueDictionary()


class MemoryBroker:
    """Fulfils `agentq.brokers.base.Broker` for tests: a stand-in, gone when the process ends, that no other process sees.

    By default it is a queue of messages: delivered at least once, hidden for ``visibility_s`` while somebody holds them,
    delivered again after that. With ``ordering`` a group hands out its messages in order, and no other while some are out.
    With ``partitions`` it is a log: read in order per partition by a group of inboxes, from positions. Brokers of the same
    ``name`` in one process share their messages. What goes wrong is said by ``trouble``.
    """

    def __init__(
        self,
        name: str | None = None,
        *,
        clock: Clock | None = None,
        partitions: int = 0,
        ordering: bool = False,
        visibility_s: float = 30.0,
        give_up_after: int = 1000,
        max_bytes: int = MAX_BYTES,
        wait_s: float = 0.2,
        parcels: Parcels | None = None,
    ) -> None:
        """Attach to the messages of that name.

        Args:
            name: what is shared; default nothing.
            clock: default the machine's; of brokers that share a name the first one's counts.
            partitions: of each log; 0 is a queue.
            ordering: whether a queue keeps the order within groups; a log always does.
            visibility_s: for how long a delivery hides its message; in a log, for how long a silent inbox stays a member.
            give_up_after: deliveries after which a message is dead; a log gives nothing up.
            max_bytes: of one message's body and attributes.
            wait_s: for how long ``receive`` waits for the first message, in real seconds.
            parcels: where large arguments go; default the store.

        """
        self._name = name
        place = None if name is None else _PLACES.get(name)
        self._place = Place(clock or SystemClock()) if place is None else place
        if name is not None:
            _PLACES[name] = self._place
        self._partitions = partitions
        self._visibility_s = visibility_s
        self._give_up_after = give_up_after
        self._wait_s = wait_s
        self._parcels = parcels
        delays = not (ordering or partitions)
        self._can = Capabilities(
            ordering=ordering or partitions > 0,
            max_delay_s=MAX_DELAY_S if delays else 0.0,
            max_bytes=max_bytes,
            partitioned=partitions > 0,
        )

    @property
    def where(self) -> str:
        """Where the messages are, for people."""
        return "memory" if self._name is None else f"memory:{self._name}"

    @property
    def parcels(self) -> Parcels | None:
        """Where large arguments go."""
        return self._parcels

    @property
    def trouble(self) -> Trouble:
        """What goes wrong: a test sets it."""
        return self._place.trouble

    def capabilities(self, queue: str) -> Capabilities:  # noqa: ARG002 - all its queues are alike
        """See `Broker.capabilities`."""
        return self._can

    async def send(self, messages: Sequence[Outgoing]) -> list[BaseException | None]:
        """See `Broker.send`."""
        await asyncio.sleep(0)
        with self._place.lock:
            return [self._send(message) for message in messages]

    def inbox(
        self,
        queues: Sequence[str],
        positions: Positions,
        *,
        dead: bool = False,
        poll_s: float | None = None,  # noqa: ARG002 - no poll is waited for
    ) -> AbstractAsyncContextManager[Inbox]:
        """See `Broker.inbox`."""
        return self._inbox(queues, positions, dead=dead)

    async def backlog(self, queues: Sequence[str]) -> list[Backlog]:
        """See `Broker.backlog`."""
        why = "memory: the broker is down, as the test wants it" if self.trouble.down else self.trouble.blind
        if why:
            return [Backlog(queue=queue, ready=0, error=why) for queue in queues]
        now = self._place.clock.steady()
        with self._place.lock:
            return [self._box(queue).backlog(now=now) for queue in queues]

    async def inspect(self, queues: Sequence[str], *, fix: bool = False) -> list[Finding]:  # noqa: ARG002 - nothing to fix
        """See `Broker.inspect`."""
        down = self.trouble.down
        return [Finding(what=queue, ok=not down, text="the broker is down" if down else "in memory") for queue in queues]

    async def __aenter__(self) -> Self:
        """Nothing to open."""
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None, /
    ) -> None:
        """Nothing to close; the messages live as long as a broker that refers to them."""

    def _send(self, message: Outgoing) -> BaseException | None:
        try:
            self.trouble.check()
        except Exception as error:  # noqa: BLE001 - it is the answer
            return error
        refused = self.trouble.verdict(message)
        if refused is not None:
            return refused
        size = len(message.body) + sum(len(name) + len(value) for name, value in message.attributes.items())
        if size > self._can.max_bytes:
            return PayloadTooLarge("body", f"{size} bytes", f"send at most {self._can.max_bytes} bytes, and the rest elsewhere")
        if message.delay_s > self._can.max_delay_s:
            return InvalidArgument("delay_s", message.delay_s, f"this broker keeps at most {self._can.max_delay_s:g} s")
        self._box(message.queue).put(message, now=self._place.clock.steady(), wall=self._place.clock.wall())
        return None

    def _box(self, queue: str) -> Queue | Log:
        box = self._place.boxes.get(queue)
        if box is None:
            if self._partitions:
                box = Log(queue, self._partitions, self._visibility_s)
            else:
                box = Queue(queue, self._visibility_s, self._can.ordering, self._give_up_after)
            self._place.boxes[queue] = box
        return box

    @asynccontextmanager
    async def _inbox(self, queues: Sequence[str], positions: Positions, *, dead: bool) -> AsyncIterator[Inbox]:
        with self._place.lock:
            boxes = [self._box(queue) for queue in queues]
        parts: list[Part] = []
        for box in boxes:
            if isinstance(box, Queue):
                parts.append(QueuePart(self._place, box, dead=dead))
            elif not dead:
                parts.append(LogPart(self._place, box, positions))
        try:
            yield MemoryInbox(self._place, parts, self._wait_s)
        finally:
            for part in parts:
                part.leave()

"""What the clauses about brokers are written with: a broker, queues of its own, and short ways to send and receive."""

# ruff: noqa: S101 - asserting is what it is for

from __future__ import annotations

import asyncio
import itertools
import secrets
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

from agentq.brokers.base import Backlog, Broker, Capabilities, Delivery, Inbox, Outgoing
from agentq.message import new_run_id


class Need(StrEnum):
    """What a clause asks of a broker or of its setting beyond what every one has; the value says what is missing."""

    ORDERING = "this broker keeps no order"
    DELAY = "this broker keeps no delays"
    LOG = "this broker is no log"
    QUEUE = "this broker is a log"
    GIVES_UP = "the setting names no number of deliveries after which a message is given up"
    MADE = "the setting says that queues need not be made here"
    UNREACHABLE = "the setting has no broker that cannot be reached"
    STOP = "the setting cannot stop and start the broker"


def fresh() -> str:
    """A queue's name that was never used."""
    return f"q-{secrets.token_hex(6)}"


async def _made(broker: Broker, queue: str) -> None:
    for finding in await broker.inspect([queue], fix=True):
        assert finding.ok, f"inspect(fix=True) left: {finding}"


@dataclass(frozen=True, kw_only=True)
class Setting:
    """A broker under test, and what its clauses may count on."""

    open: Callable[[], Broker]
    """Makes another broker object on the same data; the clause enters it."""
    prepare: Callable[[Broker, str], Awaitable[None]] = _made
    """Makes a queue of this name; default by ``inspect(fix=True)``."""
    hide_briefly: Callable[[Broker, str], Awaitable[None]] | None = None
    """Makes a queue hide what was delivered for ``redelivery_s`` only, where queues hide it for longer otherwise."""
    pass_time: Callable[[float], Awaitable[None]] = asyncio.sleep
    """Lets so many seconds of the broker's clock pass."""
    wall: Callable[[], float] = time.time
    """The broker's wall clock."""
    redelivery_s: float = 30.0
    """After which an inbox that neither acknowledges nor leaves has lost what it holds (a visibility timeout)."""
    patience_s: float = 10.0
    """Real seconds in which what must happen does."""
    at_once_s: float = 10.0
    """Real seconds that are still at once: fewer than a queue hides what was delivered, unless time is simulated."""
    quiet_s: float = 0.5
    """Real seconds after which what has not happened does not."""
    delay_s: float = 2.0
    """A delay that can be waited for."""
    load: int = 200
    """Messages that many senders send together."""
    give_up_after: int | None = None
    """Deliveries after which the broker gives a message up."""
    queues_are_made: bool = True
    """Whether a queue must be made before it is there."""
    unreachable: Callable[[], Broker] | None = None
    """Makes a broker object whose server is not there."""
    stop: Callable[[], Awaitable[None]] | None = None
    start: Callable[[], Awaitable[None]] | None = None

    def can(self) -> Capabilities:
        """What the broker declares."""
        return self.open().capabilities("queue")

    def has(self, need: Need) -> bool:
        """Whether a clause with this need applies."""
        can = self.can()
        return {
            Need.ORDERING: can.ordering,
            Need.DELAY: can.max_delay_s > 0,
            Need.LOG: can.partitioned,
            Need.QUEUE: not can.partitioned,
            Need.GIVES_UP: self.give_up_after is not None,
            Need.MADE: self.queues_are_made,
            Need.UNREACHABLE: self.unreachable is not None,
            Need.STOP: self.stop is not None and self.start is not None,
        }[need]


@dataclass(frozen=True)
class Clause:
    """One sentence of the contract. Call it with a `Setting`; it raises `AssertionError` where the broker fails it."""

    body: Callable[[Bench], Awaitable[None]]
    needs: tuple[Need, ...] = ()
    brief: bool = False
    """Whether it lets deliveries expire, so that a queue had better not hide them for long."""

    def __str__(self) -> str:
        """The sentence, as an identifier."""
        return self.body.__name__

    def does_not_apply(self, setting: Setting) -> str:
        """Why this clause says nothing about that broker; empty where it does."""
        return "; ".join(need for need in self.needs if not setting.has(need))

    async def __call__(self, setting: Setting) -> None:
        """Run it on a fresh queue."""
        async with setting.open() as broker:
            bench = Bench(setting, broker)
            await bench.make(bench.queue)
            if self.brief and setting.hide_briefly is not None:
                await setting.hide_briefly(broker, bench.queue)
            await self.body(bench)


def clause(*needs: Need, brief: bool = False) -> Callable[[Callable[[Bench], Awaitable[None]]], Clause]:
    """Mark a function of a `Bench` as a clause; its name is the sentence that it proves."""
    return lambda body: Clause(body, needs, brief)


@dataclass(frozen=True)
class Bench:
    """A broker under test."""

    setting: Setting
    broker: Broker
    queue: str = field(default_factory=fresh)
    stored: dict[str, dict[int, int]] = field(default_factory=dict)
    """What the store would say about logs: source to partition to offset."""
    _numbers: itertools.count[int] = field(default_factory=itertools.count)

    async def make(self, queue: str) -> None:
        """Make another queue."""
        await self.setting.prepare(self.broker, queue)

    def message(self, body: str | bytes | None = None, **fields: Any) -> Outgoing:
        """A message with every field that a clause does not care about filled in."""
        raw = body.encode() if isinstance(body, str) else body
        given: dict[str, Any] = {"id": new_run_id(), "queue": self.queue, "body": raw or b'{"n":%d}' % next(self._numbers)}
        return Outgoing(**(given | fields))

    async def send(self, *messages: Outgoing, broker: Broker | None = None) -> None:
        """Send what must get in."""
        answers = await (broker or self.broker).send(messages)
        assert list(answers) == [None] * len(messages), f"send answered {answers}"

    async def put(self, count: int, **fields: Any) -> list[bytes]:
        """Send ``count`` messages in one call; their bodies."""
        messages = [self.message(**fields) for _ in range(count)]
        await self.send(*messages)
        return [message.body for message in messages]

    def inbox(self, *queues: str, broker: Broker | None = None, dead: bool = False) -> AbstractAsyncContextManager[Inbox]:
        """The receiving end of these queues, or of the clause's own."""
        return (broker or self.broker).inbox(queues or (self.queue,), self._positions, dead=dead)

    async def collect(
        self, inbox: Inbox, count: int, *, room: int = 10, acknowledge: bool = False, within_s: float | None = None
    ) -> list[Delivery]:
        """Receive until ``count`` different messages have come; the first delivery of each, in order of arrival."""
        until = time.monotonic() + (self.setting.patience_s if within_s is None else within_s)
        found: dict[str, Delivery] = {}
        while len(found) < count:
            assert time.monotonic() < until, f"{len(found)} of {count} messages came in time: {[*found]}"
            batch = await inbox.receive(room)
            for delivery in batch:
                found.setdefault(delivery.id, delivery)
            if acknowledge:
                await inbox.acknowledge(batch)
        return list(found.values())

    async def rest(self, inbox: Inbox) -> list[Delivery]:
        """What still comes for a while; usually nothing may."""
        until = time.monotonic() + self.setting.quiet_s
        found: list[Delivery] = []
        while time.monotonic() < until:
            found += await inbox.receive(10)
        return found

    async def expire(self) -> None:
        """Let whoever holds messages lose them."""
        await self.setting.pass_time(self.setting.redelivery_s + 1.0)

    async def counted(self, queue: str | None = None) -> Backlog:
        """The figures of one queue."""
        [backlog] = await self.broker.backlog([queue or self.queue])
        return backlog

    @asynccontextmanager
    async def another(self) -> AsyncIterator[Broker]:
        """Another process's view of the same data."""
        async with self.setting.open() as broker:
            yield broker

    async def _positions(self, source: str) -> Mapping[int, int]:
        return self.stored.get(source, {})


def bodies(deliveries: Sequence[Delivery]) -> list[bytes]:
    """What they carry, in order."""
    return [delivery.body for delivery in deliveries]

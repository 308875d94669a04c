"""A store and a broker that misbehave at one chosen operation, and tell somebody after each."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Final, TypeVar

from agentq.brokers.base import Broker, Delivery, Inbox, Outgoing
from agentq.errors import BrokerUnavailable, StoreUnavailable
from agentq.stores.base import Store

T = TypeVar("T")


class FaultKind(StrEnum):
    """What goes wrong at an operation."""

    DIE_BEFORE = "die_before"
    """The worker dies; the operation never reaches the store or the broker."""
    DIE_AFTER = "die_after"
    """The operation is applied, its reply is lost, the worker dies."""
    PAUSE = "pause"
    """The worker stands still past its lease while another takes over and finishes; then the operation arrives."""
    TWICE = "twice"
    """The operation arrives twice; what a broker delivers comes twice."""
    NO_REPLY = "no_reply"
    """The operation is applied, and the worker is told that the store or the broker is unavailable."""
    REFUSED = "refused"
    """The operation is not applied, and the worker is told that the store or the broker is unavailable."""


@dataclass(frozen=True, slots=True, order=True)
class Fault:
    """A kind of fault at the n-th operation of a worker."""

    at: int
    kind: FaultKind

    def __str__(self) -> str:
        """As a reproduction names it."""
        return f"{self.kind} at operation {self.at}"


COUNTED: Final = frozenset({"claim", "write", "inbox", "submit", "command", "blob", "admit"})
"""Verbs of a store that a worker's run goes through; each call of one is an operation."""


class Fate:
    """Counts the operations of one worker, and lets happen to them what ``faults`` say."""

    def __init__(
        self,
        faults: tuple[Fault, ...],
        *,
        die: Callable[[], None],
        pause: Callable[[], Awaitable[None]],
        after: Callable[[str], Awaitable[None]],
    ) -> None:
        """``die`` hears of death, ``pause`` lets time and others pass, ``after`` looks around after each operation."""
        self._faults = {fault.at: fault.kind for fault in faults}
        self._die = die
        self._pause = pause
        self._after = after
        self._dead = False
        self.operations: list[str] = []
        """Verbs called so far."""

    async def meet(
        self,
        name: str,
        act: Callable[[], Awaitable[T]],
        *,
        unavailable: Callable[[str], T],
        both: Callable[[T, T], T],
        lost: Callable[[T], Awaitable[None]] | None = None,
    ) -> T:
        """Do one operation.

        Args:
            name: the verb's.
            act: does it.
            unavailable: what the worker is told where it gets no answer: raises, or returns it.
            both: what it is told where the operation was done twice.
            lost: hears of a reply that nobody gets although the worker lives.

        """
        if self._dead:
            await _never()
        kind = self._faults.get(len(self.operations))
        self.operations.append(name)
        if kind is FaultKind.DIE_BEFORE:
            await self._end()
        if kind is FaultKind.REFUSED:
            return unavailable("injected: the operation did not arrive")
        if kind is FaultKind.PAUSE:
            await self._pause()
        reply = await act()
        await self._after(name)
        if kind is FaultKind.TWICE:
            again = await act()
            await self._after(name)
            reply = both(reply, again)
        if kind is FaultKind.DIE_AFTER:
            await self._end()
        if kind is FaultKind.NO_REPLY:
            if lost is not None:
                await lost(reply)
            return unavailable("injected: the reply was lost")
        return reply

    async def _end(self) -> None:
        self._dead = True
        self._die()
        await _never()


class MortalStore:
    """Passes every verb on to ``inner``; those that count meet their ``fate``."""

    def __init__(self, inner: Store, fate: Fate) -> None:
        """Stand before ``inner``."""
        self._inner = inner
        self._fate = fate

    def __getattr__(self, name: str) -> Any:
        """Return the verb, wrapped if it counts."""
        verb = getattr(self._inner, name)
        if name not in COUNTED:
            return verb

        async def call(*args: Any) -> Any:
            return await self._fate.meet(
                name, lambda: verb(*args), unavailable=_no_store, both=_first if name == "claim" else _second
            )

        return call


class MortalBroker:
    """Passes every verb on to ``inner``; ``send`` and those of its inboxes meet their ``fate``."""

    def __init__(self, inner: Broker, fate: Fate) -> None:
        """Stand before ``inner``."""
        self._inner = inner
        self._fate = fate

    def __getattr__(self, name: str) -> Any:
        """Return what does not count."""
        return getattr(self._inner, name)

    async def send(self, messages: Sequence[Outgoing]) -> Sequence[BaseException | None]:
        """See `Broker.send`."""

        def unavailable(why: str) -> Sequence[BaseException | None]:
            return [BrokerUnavailable(why)] * len(messages)

        return await self._fate.meet("send", lambda: self._inner.send(messages), unavailable=unavailable, both=_second)

    def inbox(
        self,
        queues: Sequence[str],
        positions: Callable[[str], Awaitable[Mapping[int, int]]],
        *,
        dead: bool = False,
        poll_s: float | None = None,
    ) -> AbstractAsyncContextManager[Inbox]:
        """See `Broker.inbox`."""
        return self._inbox(queues, positions, dead=dead, poll_s=poll_s)

    @asynccontextmanager
    async def _inbox(
        self,
        queues: Sequence[str],
        positions: Callable[[str], Awaitable[Mapping[int, int]]],
        *,
        dead: bool,
        poll_s: float | None,
    ) -> AsyncIterator[Inbox]:
        log = any(self._inner.capabilities(queue).partitioned for queue in queues)
        async with self._inner.inbox(queues, positions, dead=dead, poll_s=poll_s) as inner:
            yield _MortalInbox(inner, self._fate, log=log)


class _MortalInbox:
    def __init__(self, inner: Inbox, fate: Fate, *, log: bool) -> None:
        self._inner = inner
        self._fate = fate
        self._log = log

    async def receive(self, room: int) -> Sequence[Delivery]:
        """What comes twice comes twice in one batch; of a log, a lost reply is fetched again by its client."""
        came: list[Sequence[Delivery]] = []

        async def act() -> Sequence[Delivery]:
            if not came:
                came.append(await self._inner.receive(room))
            return came[0]

        lost = self._inner.release if self._log else None
        return await self._fate.meet("receive", act, unavailable=_no_broker, both=_joined, lost=lost)

    async def acknowledge(self, deliveries: Sequence[Delivery]) -> None:
        await self._fate.meet("acknowledge", lambda: self._inner.acknowledge(deliveries), unavailable=_no_broker, both=_second)

    async def release(self, deliveries: Sequence[Delivery]) -> None:
        await self._fate.meet("release", lambda: self._inner.release(deliveries), unavailable=_no_broker, both=_second)


def _no_store(why: str) -> Any:
    raise StoreUnavailable(why)


def _no_broker(why: str) -> Any:
    raise BrokerUnavailable(why)


def _first(first: T, _: T) -> T:
    return first


def _second(_: T, second: T) -> T:
    return second


def _joined(first: Sequence[Delivery], second: Sequence[Delivery]) -> Sequence[Delivery]:
    return [*first, *second]


async def _never() -> None:
    await asyncio.get_running_loop().create_future()

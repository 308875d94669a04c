"""A store that misbehaves at one chosen operation, and tells somebody after each."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Final

from agentq.errors import StoreUnavailable
from agentq.stores.base import Store


class FaultKind(StrEnum):
    """What goes wrong at an operation."""

    DIE_BEFORE = "die_before"
    """The worker dies; the operation never reaches the store."""
    DIE_AFTER = "die_after"
    """The operation is applied, its reply is lost, the worker dies."""
    PAUSE = "pause"
    """The worker stands still past its lease while another takes over and finishes; then the operation arrives."""
    TWICE = "twice"
    """The operation arrives twice."""
    NO_REPLY = "no_reply"
    """The operation is applied, and the worker is told that the store is unavailable."""
    REFUSED = "refused"
    """The operation is not applied, and the worker is told that the store is unavailable."""


@dataclass(frozen=True, slots=True, order=True)
class Fault:
    """A kind of fault at the n-th operation of a worker."""

    at: int
    kind: FaultKind

    def __str__(self) -> str:
        """As a reproduction names it."""
        return f"{self.kind} at operation {self.at}"


COUNTED: Final = frozenset({"claim", "write", "inbox", "submit", "command", "blob"})
"""Verbs that a worker's run goes through; each call of one is an operation."""


class Mortal:
    """Passes every verb on to ``inner``, except where ``faults`` say otherwise."""

    def __init__(
        self,
        inner: Store,
        faults: tuple[Fault, ...],
        *,
        die: Callable[[], None],
        pause: Callable[[], Awaitable[None]],
        after: Callable[[str], Awaitable[None]],
    ) -> None:
        """``die`` hears of death, ``pause`` lets time and others pass, ``after`` looks at the store after each operation."""
        self._inner = inner
        self._faults = {fault.at: fault.kind for fault in faults}
        self._die = die
        self._pause = pause
        self._after = after
        self._dead = False
        self.operations: list[str] = []
        """Verbs called so far."""

    def __getattr__(self, name: str) -> Any:
        """Return the verb, wrapped if it counts."""
        verb = getattr(self._inner, name)
        if name not in COUNTED:
            return verb

        async def call(*args: Any) -> Any:
            return await self._operate(name, verb, args)

        return call

    async def _operate(self, name: str, verb: Callable[..., Awaitable[Any]], args: tuple[Any, ...]) -> Any:
        if self._dead:
            await _never()
        kind = self._faults.get(len(self.operations))
        self.operations.append(name)
        if kind is FaultKind.DIE_BEFORE:
            await self._end()
        if kind is FaultKind.REFUSED:
            raise StoreUnavailable("injected: the operation did not arrive")
        if kind is FaultKind.PAUSE:
            await self._pause()
        reply = await verb(*args)
        await self._after(name)
        if kind is FaultKind.TWICE:
            again = await verb(*args)
            await self._after(name)
            reply = reply if name == "claim" else again
        if kind is FaultKind.DIE_AFTER:
            await self._end()
        if kind is FaultKind.NO_REPLY:
            raise StoreUnavailable("injected: the reply was lost")
        return reply

    async def _end(self) -> None:
        self._dead = True
        self._die()
        await _never()


async def _never() -> None:
    await asyncio.get_running_loop().create_future()

"""Wake-ups between processes: LISTEN and NOTIFY on a connection of their own, and polls where there is none."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from typing import TYPE_CHECKING, Any, Final

import asyncpg

from agentq.errors import StoreError
from agentq.stores.postgres.connection import DRIVER, connect, give_up
from agentq.stores.postgres.desk import News
from agentq.stores.postgres.pool import shut
from agentq.stores.ticks import NEWS, WORK, Ticks

if TYPE_CHECKING:
    from agentq.stores.postgres.address import Address

POLL_S: Final = 0.5
"""Where nothing can be heard, whoever watches is told to look so often."""
_PING_S: Final = 10.0
"""How often a silent connection is asked whether it still stands."""
_PATIENCE_S: Final = 5.0
_FAREWELL_S: Final = 1.0

_PAUSE_S: Final = {News.NONE: 0.0, News.STEPS: 0.05, News.STATES: 0.002}
"""How long after a ring for readers the next of its kind may come, in seconds."""


class Bell:
    """Rings here and elsewhere. It lives on the loop that opened the store; `ring` may be called from any thread."""

    def __init__(self, address: Address, ticks: Ticks) -> None:
        """Heard rings bump ``ticks``."""
        self._address = address
        self._ticks = ticks
        self._loop = asyncio.get_running_loop()
        self._connection: asyncpg.Connection[asyncpg.Record] | None = None
        self._lost = asyncio.Event()
        self._topics: set[str] = set()
        self._sending: asyncio.Task[None] | None = None
        self._keeper: asyncio.Task[None] | None = None
        self._lock = threading.Lock()
        self._untold = News.NONE
        self._told = 0.0
        self._timer: asyncio.TimerHandle | None = None

    async def open(self) -> None:
        """Listen, before anything can happen that ought to be heard."""
        if self._address.notify:
            with contextlib.suppress(StoreError):
                await self._listen()
        self._keeper = self._loop.create_task(self._keep())

    def ring(self, work: bool, news: News) -> None:  # noqa: FBT001 - called by position
        """Something was committed: work rings at once, news not too often."""
        if work:
            self._ticks.bump(WORK)
        try:
            self._loop.call_soon_threadsafe(self._rung, work, news)
        except RuntimeError:  # the loop that opened the store has ended
            self._ticks.bump(NEWS)

    def _rung(self, work: bool, news: News) -> None:  # noqa: FBT001
        if work:
            self._send("w")
        if news > self._untold:
            self._untold = news
            if self._timer is not None:
                self._timer.cancel()
            self._timer = self._loop.call_at(max(self._loop.time(), self._told + _PAUSE_S[news]), self._tell)

    def _tell(self) -> None:
        self._timer, self._untold, self._told = None, News.NONE, self._loop.time()
        self._ticks.bump(NEWS)
        self._send("n")

    def _send(self, topic: str) -> None:
        self._topics.add(topic)
        if self._sending is None and self._connection is not None:
            self._sending = self._loop.create_task(self._notify())

    async def _notify(self) -> None:
        try:
            while self._topics and (connection := self._connection) is not None:
                topics, self._topics = "".join(sorted(self._topics)), set()
                try:
                    await connection.fetchval("select pg_notify($1, $2)", self._address.channel, topics, timeout=_PATIENCE_S)
                except DRIVER:
                    self._lost.set()
                    return
        finally:
            self._sending = None

    async def _listen(self) -> None:
        connection = await connect(self._address)
        try:
            # A ring is only a hint: its commit, during which no other process can notify, need not wait for the disk.
            await connection.execute("set synchronous_commit = off")
            await connection.add_listener(self._address.channel, self._heard)
        except DRIVER:
            await give_up(connection)
            return
        self._lost.clear()
        connection.add_termination_listener(lambda _: self._lost.set())
        self._connection = connection

    def _heard(self, connection: Any, pid: int, _: str, payload: object) -> None:
        if pid == connection.get_server_pid():
            return  # our own; it rang here when it was committed
        if "w" in str(payload):
            self._ticks.bump(WORK)
        if "n" in str(payload):
            self._ticks.bump(NEWS)

    async def _keep(self) -> None:
        """Keep listening; where that cannot be, poll."""
        while True:
            if self._connection is not None:
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(_PING_S):
                        await self._lost.wait()
                if not await self._stands():
                    await self._let_go()
                continue
            await asyncio.sleep(POLL_S)
            if self._address.notify:
                with contextlib.suppress(StoreError):
                    await self._listen()
            if self._ticks.watched:
                self._ticks.bump(WORK)
                self._ticks.bump(NEWS)

    async def _stands(self) -> bool:
        connection = self._connection
        if connection is None or self._lost.is_set() or connection.is_closed():
            return False
        if self._sending is not None:
            return True
        try:
            await connection.fetchval("select 1", timeout=_PATIENCE_S)
        except asyncpg.InterfaceError:  # a notification is being sent on it just now
            return not connection.is_closed()
        except DRIVER:
            return False
        return True

    async def _let_go(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            await give_up(connection)

    async def close(self) -> None:
        """Send what is still to be told, then hear no more."""
        if self._timer is not None:
            self._timer.cancel()
            self._tell()
        if self._sending is not None:
            await asyncio.wait([self._sending], timeout=_FAREWELL_S)
        if self._keeper is not None:
            self._keeper.cancel()
            await asyncio.wait([self._keeper])
        connection, self._connection = self._connection, None
        if connection is not None:
            await shut(connection)

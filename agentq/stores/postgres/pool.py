"""The connections of one event loop, and transactions on them."""

from __future__ import annotations

import asyncio
import contextlib
from typing import TYPE_CHECKING, Any, Final, TypeVar

import asyncpg

from agentq.errors import NotOpen, StoreUnavailable
from agentq.stores.postgres.connection import ANSWER_S, CONTENTION, DRIVER, SETTINGS, Db, Names, broken, connect, fault, give_up

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Mapping

    from agentq.clock import Clock
    from agentq.stores.postgres.address import Address

T = TypeVar("T")

TRIES: Final = 6
"""How often a transaction that lost to another is tried."""


class Pool:
    """Up to ``limit`` connections, opened when needed. Everything here belongs to the loop that made it."""

    def __init__(self, address: Address, clock: Clock | None, limit: int, settings: Mapping[str, str] = SETTINGS) -> None:
        """Nothing is opened yet; ``settings`` are those of the sessions."""
        self.address = address
        self._settings = settings
        self._clock = clock
        self._names = Names(address.schema)
        self._free: list[asyncpg.Connection[asyncpg.Record]] = []
        self._turns = asyncio.Semaphore(limit)
        self._closed = False

    @contextlib.asynccontextmanager
    async def statement(self, answer_s: float | None = None) -> AsyncIterator[Db]:
        """A connection for one statement that is its own transaction, within ``answer_s`` seconds.

        Raises:
            StoreUnavailable, StoreError: in place of the driver's errors, which stay as the cause.
        """
        if not self.address.notify:
            async with self.transaction(answer_s) as db:
                yield db
            return
        async with self._turns:
            db = await self._take()
            try:
                async with asyncio.timeout(answer_s or ANSWER_S):
                    yield db
            except BaseException as error:
                await self._drop(db, error)
                raise
            self._free.append(db.connection)

    @contextlib.asynccontextmanager
    async def transaction(self, answer_s: float | None = None) -> AsyncIterator[Db]:
        """A transaction that commits when the block ends, and is rolled back when it raises; errors as for `statement`."""
        async with self._turns:
            db = await self._take()
            try:
                async with asyncio.timeout(answer_s or ANSWER_S):
                    await db.begin(pooled=not self.address.notify)
                    yield db
                    await db.connection.execute("commit")
            except BaseException as error:
                await self._drop(db, error)
                raise
            self._free.append(db.connection)

    @contextlib.asynccontextmanager
    async def lend(self) -> AsyncIterator[Db]:
        """A connection for code that is not ours, for as long as it likes. What it leaves open is rolled back."""
        async with self._turns:
            db = await self._take()
            try:
                yield db
            finally:
                await asyncio.shield(self._take_back(db.connection))

    async def _take_back(self, lent: asyncpg.Connection[asyncpg.Record]) -> None:
        try:
            async with asyncio.timeout(ANSWER_S):
                await lent.reset()  # rolls back, and forgets what the session was told
        except DRIVER:
            await give_up(lent)
        else:
            if self._closed:
                await shut(lent)
            else:
                self._free.append(lent)

    async def again(self, work: Callable[[Db], Awaitable[T]], *, alone: bool = False, answer_s: float | None = None) -> T:
        """Do ``work`` in a transaction (``alone``: its statements are each their own), once more when it lost to another."""
        for _ in range(TRIES):
            try:
                async with self.statement(answer_s) if alone else self.transaction(answer_s) as db:
                    return await work(db)
            except StoreUnavailable as error:
                if not isinstance(error.__cause__, CONTENTION):
                    raise
                lost = error
        raise lost

    async def _take(self) -> Db:
        if self._closed:
            raise NotOpen(f"the store {self.address.where} is closed")
        while self._free:
            idle = self._free.pop()
            if not idle.is_closed():
                return Db(idle, self._names, self._clock, self.address.where)
        return Db(await connect(self.address, self._settings), self._names, self._clock, self.address.where)

    async def _drop(self, db: Db, error: BaseException) -> None:
        """Make the connection usable again after ``error``, or give it up; raise what ``error`` means."""
        foreign = isinstance(error, DRIVER)
        if (foreign and broken(error)) or isinstance(error, asyncio.CancelledError | TimeoutError) or db.connection.is_closed():
            await give_up(db.connection)
        else:
            await self._roll_back(db.connection)
        if foreign:
            raise fault(error, self.address.where) from error

    async def _roll_back(self, held: asyncpg.Connection[asyncpg.Record]) -> None:
        try:
            if held.is_in_transaction():
                async with asyncio.timeout(ANSWER_S):
                    await held.execute("rollback")
        except DRIVER:
            await give_up(held)
        else:
            self._free.append(held)

    async def close(self) -> None:
        """Close what is idle; what is at work closes with its work."""
        self._closed = True
        idle, self._free = self._free, []
        if idle:
            await asyncio.gather(*map(shut, idle))

    def cut(self) -> None:
        """Close what is idle without a farewell, to a server that does not answer."""
        self._closed = True
        while self._free:
            self._free.pop().terminate()


async def shut(connection: asyncpg.Connection[Any]) -> None:
    """Close a connection in order, or at least at once."""
    try:
        await connection.close(timeout=1)
    except DRIVER:
        await give_up(connection)

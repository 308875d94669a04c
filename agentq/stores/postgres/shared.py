"""A transaction that a step's body and the journal share: both are there afterwards, or neither.

The transaction holds an advisory lock of its own from its first statement on. Who does not hear what became of a commit takes
that lock: when it is had, the transaction is over, wherever its connection was cut, and the journal says which way.
"""

from __future__ import annotations

import asyncio
import contextlib
import secrets
from typing import TYPE_CHECKING, Final

import asyncpg

from agentq.errors import StoreError, StoreUnavailable
from agentq.message import Verdict
from agentq.stores.postgres.connection import ANSWER_S, CONTENTION, DRIVER, LOCAL_SETTINGS, Db, broken, fault
from agentq.stores.postgres.writes import Batch
from agentq.stores.transactional import Rejected

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

    from agentq.message import ClaimRef, Write
    from agentq.stores.postgres.desk import News
    from agentq.stores.postgres.place import Place
    from agentq.stores.postgres.rows import Lanes

_TEMPORARY: Final = (*CONTENTION, asyncpg.LockNotAvailableError)
_THERE: Final = """
select 1 from ~.run r join ~.journal j on j.run = r.n where r.id = $1 and j.seq = $2 and j.epoch = $3
"""


class SharedTransaction:
    """See `agentq.stores.transactional.StepTransaction`."""

    def __init__(self, place: Place, db: Db, lanes: Lanes, rung: Callable[[bool, News], None]) -> None:
        """``db`` is lent; `begin` comes first."""
        self._place = place
        self._db = db
        self._lanes = lanes
        self._rung = rung
        self._sign = secrets.randbits(63)
        self._write: Write | None = None
        self._transaction = db.connection.transaction(isolation="read_committed")

    @property
    def connection(self) -> asyncpg.Connection[asyncpg.Record]:
        """Inside the transaction; its own transactions are savepoints."""
        return self._db.connection

    async def begin(self) -> None:
        """Begin, and hold what tells whether it is over."""
        await self._transaction.start()
        await self._db.value("select pg_advisory_xact_lock($1::bigint)", self._sign)

    async def commit(self, write: Write) -> Verdict | None:
        """See `StepTransaction.commit`."""
        connection = self.connection
        self._write = write
        if connection.is_closed():
            return None
        if not connection.is_in_transaction():
            raise Rejected from RuntimeError("the body ended the transaction that it was given")
        batch = Batch(self._db, self._lanes, [write])
        try:
            async with asyncio.timeout(ANSWER_S):
                await connection.execute(LOCAL_SETTINGS)
                [verdict] = await batch.apply()
        except asyncpg.InFailedSQLTransactionError as error:
            told = (
                "a statement of the body failed and the body went on; let it do that in a `connection.transaction()` of its own"
            )
            raise Rejected from _because(told, error)
        except DRIVER as error:
            if broken(error) or isinstance(error, _TEMPORARY):
                return None  # no commit was sent
            connection.terminate()  # the body may have spoiled it, and the next one is to have another
            raise fault(error, self._db.where) from error
        except Exception as error:  # a codec of the body's own, say
            connection.terminate()
            raise StoreError(f"{self._db.where}: {error!r}") from error
        if isinstance(verdict, StoreError):
            raise verdict
        if verdict is not Verdict.COMMITTED:
            return verdict
        return await self._end(batch)

    async def _end(self, batch: Batch) -> Verdict | None:
        try:
            async with asyncio.timeout(ANSWER_S):
                await self._transaction.commit()
        except _TEMPORARY:
            return None
        except DRIVER as error:
            if not broken(error):
                raise Rejected from error  # a constraint that is looked at only now
            raise fault(error, self._db.where) from error
        self._rung(batch.desk.work, batch.desk.news)
        return Verdict.COMMITTED

    async def leave(self) -> None:
        """Roll back what was not committed."""
        if not self.connection.is_closed() and self.connection.is_in_transaction():
            with contextlib.suppress(*DRIVER):
                async with asyncio.timeout(ANSWER_S):
                    await self._transaction.rollback()

    async def resolve(self) -> bool:
        """See `StepTransaction.resolve`."""
        write = self._write
        assert write is not None  # noqa: S101 - it comes after a commit
        if not self.connection.is_closed():
            self.connection.terminate()

        async def look(db: Db) -> bool:
            await db.value("select pg_advisory_xact_lock($1::bigint)", self._sign)
            last = write.entries[-1]
            return bool(await db.value(_THERE, write.ref.run_id, last.seq, write.ref.epoch))

        return await self._place.do(self._place.pool.again(look))


def _because(told: str, error: BaseException) -> RuntimeError:
    reason = RuntimeError(told)
    reason.__cause__ = error
    return reason


@contextlib.asynccontextmanager
async def share(
    place: Place, ref: ClaimRef, lanes: Lanes, rung: Callable[[bool, News], None]
) -> AsyncIterator[SharedTransaction]:
    """See `Transactional.transaction`."""
    async with place.guests.lend() as db:
        shared = SharedTransaction(place, db, lanes, rung)
        try:
            async with asyncio.timeout(ANSWER_S):
                await shared.begin()
        except DRIVER as error:
            db.connection.terminate()
            if isinstance(error, asyncpg.InvalidSQLStatementNameError):  # an earlier body threw the driver's statements away
                raise StoreUnavailable(f"{db.where}: {error}") from error
            raise fault(error, f"{db.where}: run {ref.run_id}") from error
        try:
            yield shared
        finally:
            await asyncio.shield(shared.leave())

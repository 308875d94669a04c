"""Connections of the user's own, of either driver, on which runs are submitted in the user's transaction."""

from __future__ import annotations

import asyncio
import contextlib
import sys
from typing import TYPE_CHECKING, Any, Final

import asyncpg

from agentq.errors import InvalidArgument, StoreError, StoreUnavailable
from agentq.stores.postgres.connection import DRIVER, Db, fault

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Sequence

    from agentq.clock import Clock
    from agentq.stores.postgres.connection import Names

_FIELD: Final = "connection"
_BEGIN: Final = "begin a transaction on it first, and commit it afterwards"
_KNOWN: Final = (
    "give a connection of asyncpg (or one that its pool lent), or of psycopg 3, sync or async; SQLAlchemy and others hand out "
    "theirs as the driver's connection"
)
_WHERE: Final = "select (select value from ~.meta where key = 'identity'), current_setting('transaction_isolation')"


class Guest(Db):
    """The user's connection as the statements of the store see it: asyncpg's here."""

    errors: tuple[type[BaseException], ...] = DRIVER

    def check(self) -> None:
        """Raise `InvalidArgument` unless it is in a transaction that can go on."""
        if not self.connection.is_in_transaction():
            raise InvalidArgument(_FIELD, self.connection, _BEGIN)

    def fault(self, error: BaseException) -> StoreError:
        """What an error of the driver means to the caller."""
        return fault(error, self.where)


class _Psycopg(Guest):
    """psycopg 3; its raw cursors take the same parameters as asyncpg."""

    def __init__(self, connection: Any, names: Names, clock: Clock | None, where: str) -> None:
        super().__init__(connection, names, clock, where)
        self._driver = sys.modules["psycopg"]
        self.errors = (self._driver.Error, OSError)

    def check(self) -> None:
        status, states = self.connection.info.transaction_status, self._driver.pq.TransactionStatus
        if status == states.INERROR:
            raise InvalidArgument(_FIELD, self.connection, "its transaction failed before; roll it back and begin another")
        if status == states.IDLE and self.connection.autocommit:
            raise InvalidArgument(_FIELD, self.connection, _BEGIN)

    def fault(self, error: BaseException) -> StoreError:
        if isinstance(error, StoreError):
            return error
        kind = StoreUnavailable if isinstance(error, self._driver.OperationalError | OSError) else StoreError
        return kind(f"{self.where}: {type(error).__name__}: {str(error).strip()}")

    async def fetch(self, sql: str, *values: Any) -> list[Any]:
        async with self._driver.AsyncRawCursor(self.connection, row_factory=self._driver.rows.tuple_row) as cursor:
            await cursor.execute(self.names.text(sql), values)
            return list(await cursor.fetchall()) if cursor.description else []

    async def row(self, sql: str, *values: Any) -> Any:
        found = await self.fetch(sql, *values)
        return found[0] if found else None

    async def value(self, sql: str, *values: Any) -> Any:
        found = await self.row(sql, *values)
        return None if found is None else found[0]


class _Blocking(_Psycopg):
    """A synchronous connection of psycopg's: the statement runs in a thread, while the loop goes on."""

    async def fetch(self, sql: str, *values: Any) -> list[Any]:
        return await asyncio.to_thread(self._fetch, sql, values)

    def _fetch(self, sql: str, values: Sequence[Any]) -> list[Any]:
        with self._driver.RawCursor(self.connection, row_factory=self._driver.rows.tuple_row) as cursor:
            cursor.execute(self.names.text(sql), values)
            return list(cursor.fetchall()) if cursor.description else []


def guest(connection: object, names: Names, clock: Clock | None, where: str) -> Guest:
    """The connection, ready for the store's statements.

    Raises:
        InvalidArgument: no known driver's, or not in a transaction.
    """
    if isinstance(connection, asyncpg.Connection | asyncpg.pool.PoolConnectionProxy):
        kind: type[Guest] = Guest
    elif (psycopg := sys.modules.get("psycopg")) is not None and isinstance(connection, psycopg.AsyncConnection):
        kind = _Psycopg
    elif psycopg is not None and isinstance(connection, psycopg.Connection):
        kind = _Blocking
    else:
        raise InvalidArgument(_FIELD, connection, _KNOWN)
    visitor = kind(connection, names, clock, where)
    visitor.check()
    return visitor


@contextlib.asynccontextmanager
async def visit(db: Guest, identity: str) -> AsyncIterator[bool]:
    """A savepoint around the store's statements; yields whether each of them sees what was committed before it.

    Raises:
        InvalidArgument: it is a connection to another database than the store's.
        StoreError, StoreUnavailable: in place of the driver's errors; the user's transaction stands as it did before.
    """
    try:
        await db.fetch("savepoint agentq")
        try:
            yield await _here(db, identity)
        except BaseException:
            await db.fetch("rollback to savepoint agentq")
            raise
        finally:
            await db.fetch("release savepoint agentq")
    except db.errors as error:
        raise db.fault(error) from error


async def _here(db: Guest, identity: str) -> bool:
    other = InvalidArgument(_FIELD, db.connection, f"it leads to another database than the store, which is {db.where}")
    if not await db.value("select 1 from pg_namespace where nspname = $1::text", db.names.schema):
        raise other
    found, isolation = await db.row(_WHERE)
    if found != identity:
        raise other
    return bool(isolation == "read committed")

"""Connections to the server, what its errors mean, and statements that find their schema."""

from __future__ import annotations

import asyncio
import hashlib
import socket
import ssl
from typing import TYPE_CHECKING, Any, Final

import asyncpg

from agentq.errors import StoreError, StoreUnavailable
from agentq.stores.postgres.address import DRIVERS, OURS

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from agentq.clock import Clock
    from agentq.stores.postgres.address import Address

CONNECT_S: Final = 10.0
ANSWER_S: Final = 10.0
"""How long a transaction may take before its connection is given up and the store counts as unavailable.

Half of what a worker waits before it fences itself, so that a write that fell into a hole can be sent again."""
PATIENT_S: Final = 60.0
"""The same for what may be long: submissions in bulk, sweeps, commands on whole families."""

SETTINGS: Final = {
    # The planner guesses badly at arrays and at tables that have just begun to fill, and a compiled or a hashed plan for
    # such a guess costs more than the statement; every statement here is meant for one index and says so by these.
    "jit": "off",
    "plan_cache_mode": "force_generic_plan",
    "enable_seqscan": "off",
    "enable_bitmapscan": "off",
    "enable_hashjoin": "off",
    "enable_mergejoin": "off",
    "default_transaction_isolation": "read committed",
    "idle_in_transaction_session_timeout": "10s",  # below any lease: a hung client must not hold rows that others may take
    "lock_timeout": "5s",
}

LOCAL_SETTINGS: Final = "; ".join(
    f"set local {name} = '{value}'" for name, value in SETTINGS.items() if not name.startswith("default_")
)
"""The same for a transaction alone, where a session is not ours to set."""
GUEST_SETTINGS: Final = {name: SETTINGS[name] for name in ("idle_in_transaction_session_timeout",)}
"""Of connections that are lent to users' code, whose statements are to be planned as everywhere."""

_BEGIN: Final = "begin isolation level read committed"
_BEGIN_POOLED: Final = f"{_BEGIN}; {LOCAL_SETTINGS}"

_GONE: Final = (
    asyncpg.InterfaceError,
    asyncpg.InternalClientError,  # what the driver says where the server's farewell and our next statement crossed
    asyncpg.PostgresConnectionError,
    asyncpg.AdminShutdownError,
    asyncpg.CrashShutdownError,
    asyncpg.CannotConnectNowError,
    asyncpg.IdleInTransactionSessionTimeoutError,
    asyncpg.ReadOnlySQLTransactionError,  # after a failover: the next connection finds the new primary
    asyncpg.InvalidCachedStatementError,
    OSError,
    TimeoutError,
)
_TEMPORARY: Final = (
    *_GONE,
    asyncpg.InsufficientResourcesError,
    asyncpg.OperatorInterventionError,
    asyncpg.LockNotAvailableError,
    asyncpg.TransactionRollbackError,
)
DRIVER: Final = (asyncpg.PostgresError, asyncpg.InterfaceError, asyncpg.InternalClientError, OSError)
"""What the driver raises; time-outs are among the last."""
CONTENTION: Final = (asyncpg.SerializationError, asyncpg.DeadlockDetectedError)
"""Nobody's fault: the same transaction again will do."""

_NOBODY: Final = "nothing listens there: is the server up, and are host and port right?"
_REMEDIES: Final[Sequence[tuple[type[BaseException], str]]] = (
    (ConnectionRefusedError, _NOBODY),
    (socket.gaierror, "the host's name is not found: is it right, and does DNS answer here?"),
    (FileNotFoundError, "no server has its socket there: is it up, and is host= right?"),
    (ssl.SSLError, "check sslmode= and sslrootcert= in the url, and the server's certificate"),
    (asyncpg.InvalidPasswordError, "check user and password in the url"),
    (asyncpg.InvalidAuthorizationSpecificationError, "check user and password in the url, and the server's pg_hba.conf"),
    (asyncpg.InvalidCatalogNameError, "create the database first, or name another one in the url"),
    (asyncpg.InsufficientPrivilegeError, "grant the user what it needs on the database and its schema"),
    (asyncpg.TooManyConnectionsError, "raise max_connections, or lower pool= in the url"),
    (asyncpg.DiskFullError, "the server's disk is full; free some space"),
    (asyncpg.ReadOnlySQLTransactionError, "the server is a standby; add target_session_attrs=primary to the url"),
    (asyncpg.CharacterNotInRepertoireError, "PostgreSQL keeps no NUL character in a name"),
)


def fault(error: BaseException, where: str) -> StoreError:
    """What an error of the driver, the server or the network means to a caller."""
    text = str(error).strip() or type(error).__name__
    remedy = next((f"; {remedy}" for kind, remedy in _REMEDIES if isinstance(error, kind)), "")
    if "rejected SSL upgrade" in text:
        remedy = "; no TLS is spoken there: is the port right, and must sslmode= be in the url?"
    elif "Connect call failed" in text:  # also where several addresses were tried
        remedy = f"; {_NOBODY}"
    if isinstance(error, StoreError):
        return error
    if isinstance(error, TimeoutError):
        return StoreUnavailable(f"{where}: no answer in time; try again")
    if isinstance(error, _TEMPORARY) or "another operation is in progress" in text:  # the connection is cut off in the middle
        return StoreUnavailable(f"{where}: {text}{remedy or '; try again'}")
    return StoreError(f"{where}: {type(error).__name__}: {text}{remedy}")


def broken(error: BaseException) -> bool:
    """Whether the connection on which it happened is of no more use."""
    return isinstance(error, _GONE) or not isinstance(error, asyncpg.PostgresError)


async def connect(address: Address, settings: Mapping[str, str] = SETTINGS) -> asyncpg.Connection[asyncpg.Record]:
    """Open a connection that belongs to the running event loop, with these settings of its session.

    Raises:
        StoreUnavailable: the server cannot be reached now.
        StoreError: it refuses us.
    """
    options: dict[str, Any] = {"server_settings": {"application_name": "agentq", **settings}}
    if not address.notify:
        # A pooler knows none of these, and the next statement may go to another server process.
        options = {"statement_cache_size": 0, "server_settings": {"application_name": "agentq"}}
    try:
        opened = await asyncpg.connect(address.dsn, timeout=CONNECT_S, **options)
    except TimeoutError as error:
        remedy = "is the server up, are host and port right, and does no firewall drop what is sent there?"
        raise StoreUnavailable(f"{address.where}: no connection within {CONNECT_S:g} s; {remedy}") from error
    except (asyncpg.UndefinedObjectError, asyncpg.CantChangeRuntimeParamError) as error:
        known = ", ".join((*OURS, *DRIVERS))
        raise StoreError(f"{address.where}: {error}; a parameter of the url is {known}, or a setting of the server") from error
    except asyncpg.ProtocolViolationError as error:
        if "startup parameter" not in str(error):
            raise fault(error, address.where) from error
        raise StoreError(f"{address.where}: {error}; add notify=off to the url, for a pooler is in between") from error
    except (asyncpg.ConnectionDoesNotExistError, ConnectionError) as error:
        told = fault(error, address.where)
        if str(told).endswith("; try again"):
            told = StoreUnavailable(f"{address.where}: it hung up: is the server starting, and is that port PostgreSQL's?")
        raise told from error
    except DRIVER as error:
        raise fault(error, address.where) from error
    except ValueError as error:
        raise StoreError(f"{address.where}: {error}") from error
    return opened


def number_of(*parts: str) -> int:
    """A signed 64-bit number that texts determine."""
    raw = hashlib.blake2b("\x1f".join(parts).encode(), digest_size=8).digest()
    return int.from_bytes(raw, "big", signed=True)


class Names:
    """Statements name tables as ``~.run`` and the server's clock as ``~now``; here these get their meaning."""

    def __init__(self, schema: str) -> None:
        """``schema`` needs no quotes."""
        self.schema = schema
        self.salt = number_of(schema)
        """What tells this schema's advisory locks from those of others in the same database."""
        self._texts: dict[str, str] = {}

    def text(self, sql: str) -> str:
        """``sql`` as the server takes it."""
        found = self._texts.get(sql)
        if found is None:
            now = "extract(epoch from statement_timestamp())::float8"
            found = self._texts[sql] = sql.replace("~now", now).replace("~.", f'"{self.schema}".')
        return found


class Db:
    """A connection at work, and the clock: the server's, unless a test brings its own."""

    __slots__ = ("clock", "connection", "names", "where")

    def __init__(self, connection: asyncpg.Connection[asyncpg.Record], names: Names, clock: Clock | None, where: str) -> None:
        """``where`` is for messages."""
        self.connection = connection
        self.names = names
        self.clock = clock
        self.where = where

    @property
    def wall(self) -> float | None:
        """Seconds since the epoch on the test's clock; None where the server's counts."""
        return None if self.clock is None else self.clock.wall()

    @property
    def steady(self) -> float | None:
        """The clock by which leases age on the test's clock; None where the server's counts."""
        return None if self.clock is None else self.clock.steady()

    async def fetch(self, sql: str, *values: Any) -> list[Any]:
        """All rows."""
        found: list[Any] = await self.connection.fetch(self.names.text(sql), *values)
        return found

    async def row(self, sql: str, *values: Any) -> Any:
        """The first row, or None."""
        return await self.connection.fetchrow(self.names.text(sql), *values)

    async def value(self, sql: str, *values: Any) -> Any:
        """The first column of the first row, or None."""
        return await self.connection.fetchval(self.names.text(sql), *values)

    async def begin(self, *, pooled: bool) -> None:
        """Start a transaction; behind a pooler, with the settings that a session would have."""
        await self.connection.execute(_BEGIN_POOLED if pooled else _BEGIN)


async def give_up(connection: asyncpg.Connection[asyncpg.Record]) -> None:
    """Drop a connection whatever its state."""
    connection.terminate()
    await asyncio.sleep(0)  # lets the transport close

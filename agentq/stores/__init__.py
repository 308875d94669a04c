"""Where runs are kept: the contract, and its implementations by url."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import unquote

from agentq.errors import InvalidArgument
from agentq.redact import LOGIN_REMEDY, is_maimed

if TYPE_CHECKING:
    from agentq.clock import Clock
    from agentq.stores.base import Store

__all__ = ["open_store"]


def open_store(url: str, *, clock: Clock | None = None, create: bool = True) -> Store:
    """The store behind ``url``, to be opened with ``async with``.

    ``sqlite:///abs/path.db``, ``sqlite:./relative.db``, a bare path, ``memory:`` or ``memory:name`` (shared by that name
    within this process), ``postgresql://user:password@host:port/database`` (see `agentq.stores.postgres`). ``clock`` is for
    tests; without one each store has its own, PostgreSQL the server's. Without ``create`` a store that is not there yet is not
    made when it is opened: that raises `agentq.errors.StoreMissing`.

    Raises:
        InvalidArgument: no store is known for such a url, or what it needs is not installed.
    """
    refuse_maimed(url)
    scheme, colon, rest = url.partition(":")
    if not colon or len(scheme) == 1 or "/" in scheme or "\\" in scheme:
        return _sqlite(url, clock, url, create=create)
    if scheme == "memory":
        from agentq.stores.memory import MemoryStore  # noqa: PLC0415 - tests only

        return MemoryStore(rest.strip("/") or None, clock=clock)
    if scheme == "sqlite":
        # Two slashes alone would begin a host, of which there is none.
        path = "/" + rest.lstrip("/") if rest.startswith("///") else rest
        if path.startswith("//"):
            raise InvalidArgument("store", url, "write sqlite:///absolute/path.db or sqlite:./relative/path.db")
        return _sqlite(unquote(path), clock, url, create=create)
    if scheme in {"postgres", "postgresql"}:
        return _postgres(url, clock, create=create)
    raise InvalidArgument("store", f"{scheme}:…", "use sqlite:///path.db, a path, postgresql://…, or memory:")


def refuse_maimed(url: str) -> None:
    """Refuse a url with a typing error before its server, which would be read as the name of a file and shown as such.

    Raises:
        InvalidArgument: without any of the url, which may hold a password.
    """
    if is_maimed(url):
        remedy = f"write postgresql://user:password@host/database; {LOGIN_REMEDY} (a file is ./its.db or sqlite:its.db)"
        raise InvalidArgument("store", "postgresql:…" if "postgres" in url.lower() else "…", remedy)


def _sqlite(path: str, clock: Clock | None, url: str, *, create: bool) -> Store:
    from agentq.stores.sqlite import SQLiteStore  # noqa: PLC0415 - who uses another store need not pay for it

    if not path or path.endswith("/") or Path(path).is_dir():
        raise InvalidArgument("store", url, "name a file, such as ./agentq.db")
    return SQLiteStore(path, clock=clock, create=create)


def _postgres(url: str, clock: Clock | None, *, create: bool) -> Store:
    try:
        from agentq.stores.postgres import PostgresStore  # noqa: PLC0415 - the driver is an extra
    except ModuleNotFoundError as error:
        if error.name != "asyncpg":
            raise
        raise InvalidArgument("store", "postgresql://…", "install the driver: pip install 'agentq[postgres]'") from error
    return PostgresStore(url, clock=clock, create=create)

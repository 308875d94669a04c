"""Connections to the file, and what its errors mean."""

from __future__ import annotations

import os
import sqlite3
import tempfile
import time
from pathlib import Path
from typing import Final

from agentq.errors import StoreError, StoreUnavailable

BUSY_S: Final = 10.0
"""How long a statement waits for another process's lock before the store counts as unavailable."""

_OLDEST: Final = (3, 35, 0)
"""``returning`` came with this version of SQLite."""

_REMEDIES: Final = (
    ("locked", "another process holds its lock; end long transactions of other programs on this file"),
    ("busy", "another process holds its lock; end long transactions of other programs on this file"),
    ("full", "the disk is full; free some space"),
    ("readonly", "the file or its folder cannot be written; check owner and permissions"),
    ("read-only", "the file or its folder cannot be written; check owner and permissions"),
    ("permission denied", "the file or its folder cannot be written; check owner and permissions"),
    ("no such file", "make the folder first"),
    ("unable to open", "check that the folder exists and can be written"),
    ("disk i/o", "the disk reports errors; check the volume"),
)


def connect(path: Path) -> sqlite3.Connection:
    """Open the file for one thread at a time, in autocommit mode.

    Raises:
        StoreError: the file is no database, or SQLite is too old.
        StoreUnavailable: it cannot be opened now.
    """
    if sqlite3.sqlite_version_info < _OLDEST:
        raise StoreError(f"SQLite {sqlite3.sqlite_version} is too old; agentq needs {'.'.join(map(str, _OLDEST))} or newer")
    try:
        _make(path)
        db = sqlite3.connect(path, timeout=BUSY_S, isolation_level=None, check_same_thread=False, cached_statements=512)
    except (OSError, sqlite3.Error) as error:
        raise fault(error, str(path)) from error
    try:
        _use_wal(db)
        db.execute("pragma synchronous = full")
        db.execute("pragma temp_store = memory")
        db.execute("pragma cache_size = -8000")
        db.execute("pragma wal_autocheckpoint = 4000")
        db.execute("pragma journal_size_limit = 67108864")
    except sqlite3.Error as error:
        db.close()
        raise fault(error, str(path)) from error
    return db


def _make(path: Path) -> None:
    """Make the file so that nobody else can read it; the -wal and -shm files inherit its mode.

    It appears whole, by a link: opening and closing the file itself would drop the locks that SQLite's other connections of
    this process hold on it, because POSIX gives locks to processes.
    """
    if path.exists():
        return
    try:
        fd, made = tempfile.mkstemp(prefix=f".{path.name}-", dir=path.parent)
    except OSError as error:  # that names a file which nobody knows
        raise OSError(error.errno, error.strerror, str(path.parent)) from error
    try:
        os.close(fd)
        os.link(made, path)
    except FileExistsError:
        pass  # another process was faster
    finally:
        Path(made).unlink()


def _use_wal(db: sqlite3.Connection) -> None:
    """Switch to WAL. SQLite does not wait for the lock here, so two processes that make a file at once would collide."""
    until = time.monotonic() + BUSY_S
    while db.execute("pragma journal_mode").fetchone()[0] != "wal":
        try:
            db.execute("pragma journal_mode = wal").fetchone()
        except sqlite3.OperationalError:
            if time.monotonic() >= until:
                raise
            time.sleep(0.005)


def fault(error: Exception, where: str) -> StoreError:
    """What an error of SQLite or of the file system means to a caller."""
    text = str(error)
    if isinstance(error, StoreError):
        return error
    if isinstance(error, sqlite3.OperationalError | OSError):
        lower = text.lower()
        remedy = next((remedy for word, remedy in _REMEDIES if word in lower), "try again; if it stays, run `agentq doctor`")
        return StoreUnavailable(f"{where}: {text}; {remedy}")
    if "not a database" in text or "malformed" in text:
        return StoreError(f"{where}: {text}; restore it from a copy, or give agentq another file (AGENTQ_STORE)")
    return StoreError(f"{where}: {type(error).__name__}: {text}")

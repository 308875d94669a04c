"""What comes through a broker: admissions, how far each log has been read, and parcels too large for a message."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING, Final

from agentq.stores.sqlite import letters, producer

if TYPE_CHECKING:
    import sqlite3

    from agentq.message import Admission, Submitted
    from agentq.stores.sqlite.desk import Desk

_READ_ON: Final = """
insert into position (source, partition, next) values (?, ?, ?)
on conflict (source, partition) do update set next = max(next, excluded.next)
"""
_KEEP: Final = "insert into parcel (sha, at, data) values (?, ?, ?) on conflict (sha) do update set at = excluded.at"


def admit(desk: Desk, admission: Admission) -> list[Submitted]:
    """See `IntakeStore.admit`."""
    if admission.letters:
        letters.write(desk, admission.letters)
    if admission.positions:
        desk.db.executemany(_READ_ON, [(at.source, at.partition, at.offset) for at in admission.positions])
    return producer.submit(desk, admission.envelopes) if admission.envelopes else []


def positions(db: sqlite3.Connection, source: str) -> dict[int, int]:
    """See `IntakeStore.positions`."""
    return dict(db.execute("select partition, next from position where source = ?", (source,)).fetchall())


def keep(desk: Desk, data: bytes) -> str:
    """See `ProducerStore.keep`."""
    sha = hashlib.sha256(data).hexdigest()
    desk.db.execute(_KEEP, (sha, desk.wall, data))
    return sha


def parcel(db: sqlite3.Connection, sha: str) -> bytes | None:
    """What was kept under that address."""
    row = db.execute("select data from parcel where sha = ?", (sha,)).fetchone()
    return None if row is None else row[0]


def forget(desk: Desk, before: float, limit: int) -> None:
    """Delete up to ``limit`` parcels that were last given at wall time ``before`` or earlier."""
    desk.db.execute("delete from parcel where sha in (select sha from parcel where at <= ? limit ?)", (before, limit))

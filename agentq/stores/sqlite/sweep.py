"""What expires: final runs with all that hangs on them, blobs nobody refers to, workers long gone, and what never arrived."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from agentq.stores.base import PARCEL_S
from agentq.stores.sqlite import arrivals, early, tombstones
from agentq.stores.sqlite.schema import SEQ_BITS, SEQ_MASK, STREAM_BITS, STREAM_MASK

if TYPE_CHECKING:
    from agentq.stores.sqlite.desk import Desk

CHUNK: Final = 50
"""Runs deleted in one transaction, so that step commits get their turn in between."""

_SMALL: Final = 1000
"""Rows of a few words each deleted in one transaction."""

FORGET_WORKER_S: Final = 3600.0

_OLD: Final = """
select n, id from run where finished_at <= ?
  and not exists (select 1 from run as parent where parent.id = run.parent_id and parent.state < 4)
  and not exists (select 1 from wait where kind = 'child' and ref = run.id)
order by finished_at limit ?
"""


def sweep(desk: Desk, retention_s: float, limit: int) -> int:
    """Delete up to ``limit`` runs that are final for longer than ``retention_s``; answer how many went."""
    db = desk.db
    db.execute("delete from worker where seen < ?", (desk.steady - FORGET_WORKER_S,))
    tombstones.fall(desk, _SMALL)
    early.forget(desk, desk.wall - PARCEL_S, _SMALL)
    arrivals.forget(desk, desk.wall - PARCEL_S, CHUNK)
    old = db.execute(_OLD, (desk.wall - retention_s, limit)).fetchall()
    for n, _ in old:
        tombstones.bury(desk, n)
        orphans = db.execute("select sha from blob_ref where run = ?", (n,)).fetchall()
        db.execute("delete from blob_ref where run = ?", (n,))
        db.executemany("delete from blob where sha = ?1 and not exists (select 1 from blob_ref where sha = ?1)", orphans)
        first = n << SEQ_BITS
        db.execute("delete from journal where k between ? and ?", (first, first | SEQ_MASK))
        first = n << STREAM_BITS
        db.execute("delete from stream where k between ? and ?", (first, first | STREAM_MASK))
        for table in ("wait", "signal", "snapshot"):
            db.execute(f"delete from {table} where run = ?", (n,))  # noqa: S608 - constants
        db.execute("delete from run where n = ?", (n,))
    return len(old)

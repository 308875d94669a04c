"""What expires: final runs with all that hangs on them, blobs nobody refers to, parcels, tombstones, workers long gone."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from agentq.stores.base import PARCEL_S, TOMBSTONE_S
from agentq.stores.postgres.arrivals import sweep_parcels

if TYPE_CHECKING:
    from agentq.stores.postgres.connection import Db

CHUNK: Final = 200
"""Runs deleted in one transaction: short locks, and dead rows that the autovacuum meets in small portions."""

FORGET_WORKER_S: Final = 3600.0

_OLD: Final = """
select r.n from ~.run r where r.finished_at <= coalesce($1::float8, ~now) - $2::float8
  and not exists (select 1 from ~.run p where p.id = r.parent_id and p.state < 4)
  and not exists (select 1 from ~.wait w where w.kind = 'child' and w.ref = r.id)
order by r.finished_at limit $3 for update of r skip locked
"""

# A child may have to come again: its parent's journal names it. Whatever else comes under a known id is a late delivery.
_BURY: Final = """
insert into ~.tombstone (id, args_hash, state, until)
select id, args_hash, state, finished_at + $2::float8 from ~.run
where n = any($1::bigint[]) and parent_id is null and finished_at + $2::float8 > coalesce($3::float8, ~now)
on conflict (id) do update set args_hash = excluded.args_hash, state = excluded.state, until = excluded.until
"""


async def forget(db: Db) -> None:
    """Delete what has nothing to do with the runs of today: parcels, early commands, tombstones and workers past their time."""
    await db.fetch("delete from ~.worker where seen < coalesce($1::float8, ~now) - $2::float8", db.steady, FORGET_WORKER_S)
    await db.fetch("delete from ~.tombstone where until <= coalesce($1::float8, ~now)", db.wall)
    await _drop_orphans(db, await sweep_parcels(db, PARCEL_S))


async def sweep(db: Db, retention_s: float, limit: int) -> int:
    """Delete up to ``limit`` runs that are final for longer than ``retention_s``; answer how many went."""
    old = [row[0] for row in await db.fetch(_OLD, db.wall, retention_s, limit)]
    if not old:
        return 0
    await db.fetch(_BURY, old, TOMBSTONE_S, db.wall)
    shas = [row[0] for row in await db.fetch("delete from ~.blob_ref where run = any($1::bigint[]) returning sha", old)]
    await _drop_orphans(db, shas)
    for table in ("journal", "stream", "wait", "signal", "snapshot"):
        await db.fetch(f"delete from ~.{table} where run = any($1::bigint[])", old)  # noqa: S608 - constants
    await db.fetch("delete from ~.run where n = any($1::bigint[])", old)
    return len(old)


async def _drop_orphans(db: Db, shas: list[str]) -> None:
    """Delete those of these blobs to which nothing refers any more."""
    if not shas:
        return
    # Locked first: whoever is about to refer to one of them has locked it too, and by the next statement we see that.
    await db.fetch("select sha from ~.blob where sha = any($1::text[]) order by sha for update", shas)
    await db.fetch(
        "delete from ~.blob b where sha = any($1::text[]) and not exists (select 1 from ~.blob_ref r where r.sha = b.sha)",
        shas,
    )

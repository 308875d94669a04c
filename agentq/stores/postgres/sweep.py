"""What expires: final runs with all that hangs on them, blobs nobody refers to, workers long gone."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

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


async def sweep(db: Db, retention_s: float, limit: int) -> int:
    """Delete up to ``limit`` runs that are final for longer than ``retention_s``; answer how many went."""
    await db.fetch("delete from ~.worker where seen < coalesce($1::float8, ~now) - $2::float8", db.steady, FORGET_WORKER_S)
    old = [row[0] for row in await db.fetch(_OLD, db.wall, retention_s, limit)]
    if not old:
        return 0
    orphans = [row[0] for row in await db.fetch("delete from ~.blob_ref where run = any($1::bigint[]) returning sha", old)]
    if orphans:
        # Locked first: whoever is about to refer to one of them has locked it too, and by the next statement we see that.
        await db.fetch("select sha from ~.blob where sha = any($1::text[]) order by sha for update", orphans)
        await db.fetch(
            "delete from ~.blob b where sha = any($1::text[]) and not exists (select 1 from ~.blob_ref r where r.sha = b.sha)",
            orphans,
        )
    for table in ("journal", "stream", "wait", "signal", "snapshot"):
        await db.fetch(f"delete from ~.{table} where run = any($1::bigint[])", old)  # noqa: S608 - constants
    await db.fetch("delete from ~.run where n = any($1::bigint[])", old)
    return len(old)

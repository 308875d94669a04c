"""Queues and workers in numbers: counted from index entries of unfinished runs, however many are final."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import msgspec

from agentq.message import Census, QueueStats, Worker, WorkerState

if TYPE_CHECKING:
    from agentq.stores.postgres.connection import Db

UNSEEN_LEASES: Final = 3
"""A worker that missed so many leases is left out."""

# What is due, or held by the dead, is runnable after all: the next claim promotes it, settles it or takes it over. So is the
# next in a line that lost its front.
_QUEUES: Final = """
with moving as materialized (
  select f.n, v.since from (select line, max(since) as since from ~.vacant group by line) v cross join lateral (
    select n, behind from ~.run where line = v.line and state < 4 order by behind, n limit 1) f where f.behind
), live as (
  select lane, state, paused, ready, wake_at, lease_until, deadline, cancelling,
    greatest(since, case when behind then (select m.since from moving m where m.n = run.n) end) as since,
    not ready and wake_at <= $1 and (not paused or deadline <= $1) as due,
    state = 1 and lease_until <= $2 and (cancelling or not paused or coalesce(deadline <= $1, false)) as expired,
    behind and n not in (select n from moving) as behind,
    behind and n in (select n from moving) and not paused and (due_at is null or due_at <= $1) as next
  from ~.run where state < 4
), counted as (
  select lane,
    case when ready or next or coalesce(due, false) or coalesce(expired, false) then 'runnable' when behind then 'ordered'
      when state = 1 then 'running' when paused then 'paused' when state = 2 then 'waiting' when state = 3 then 'parked'
      else 'delayed' end as what,
    case when ready or next then $1 - since when coalesce(due, false) then $1 - wake_at
      when coalesce(expired, false) then $2 - lease_until else 0 end as age
  from live
)
select l.queue, c.what, count(*), max(age) from counted c join ~.lane l on l.id = c.lane group by l.queue, c.what order by 1
"""

_WORKERS: Final = """
select data, state, seen_at from ~.worker where seen + $2::float8 * lease_s >= coalesce($1::float8, ~now) order by id
"""

_worker = msgspec.json.Decoder(Worker)


async def census(db: Db) -> Census:
    """See `ReaderStore.census`."""
    now = await db.value("select ~now")
    wall, steady = (now if at is None else at for at in (db.wall, db.steady))
    queues: dict[str, dict[str, float]] = {}
    for queue, what, count, age in await db.fetch(_QUEUES, wall, steady):
        stats = queues.setdefault(queue, {"oldest_age_s": 0.0})
        stats[what] = count
        if what == "runnable":
            stats["oldest_age_s"] = max(0.0, age)
    for queue, count in await db.fetch("select queue, count(*) from ~.letter group by queue order by queue"):
        queues.setdefault(queue, {"oldest_age_s": 0.0})["dead"] = count
    found = await db.fetch(_WORKERS, db.steady, UNSEEN_LEASES)
    return Census(
        queues=tuple(QueueStats(queue=queue, **stats) for queue, stats in sorted(queues.items())),  # type: ignore[arg-type]
        workers=tuple(
            msgspec.structs.replace(_worker.decode(data), state=WorkerState(state), seen_at=seen_at)
            for data, state, seen_at in found
        ),
    )

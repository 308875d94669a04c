"""Queues and workers in numbers: counted from index entries of unfinished runs, however many are final."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import msgspec

from agentq.message import Census, QueueStats, Worker, WorkerState

if TYPE_CHECKING:
    from agentq.stores.postgres.connection import Db

UNSEEN_LEASES: Final = 3
"""A worker that missed so many leases is left out."""

# Counted from as few rows as can be, because a scaler asks often and a backlog may be long: the queued are first taken for
# delayed, by their index alone, and what is ready, behind or paused is then taken away again. What is due, or held by the
# dead, is runnable after all: the next claim promotes it, settles it or takes it over. So is the next in a line that lost its
# front.
_QUEUES: Final = """
with ready as (
  select lane, count(*) as n, $1 - min(since) as age from ~.run where ready group by lane
), behind as (
  select lane, count(*) as n from ~.run where behind and line is not null and state < 4 group by lane
), paused as (
  select lane, state, count(*) as n from ~.run where paused and state < 4 and state <> 1 and not behind group by lane, state
), moving as materialized (
  select f.n, v.since from (select line, max(since) as since from ~.vacant group by line) v cross join lateral (
    select n, behind from ~.run where line = v.line and state < 4 order by behind, n limit 1) f where f.behind
), odd as (
  select lane, state, behind, paused, due_at, wake_at, lease_until, m.n is not null as moves,
    greatest(r.since, m.since) as since,
    wake_at <= $1 and (not (paused or behind) or deadline <= $1) as due,
    state = 1 and lease_until <= $2 and (cancelling or not paused or coalesce(deadline <= $1, false)) as expired
  from (select n from ~.run where wake_at <= $1 and not ready union select n from ~.run where lease_until <= $2
    union select n from moving) u
  join ~.run r on r.n = u.n left join moving m on m.n = u.n
), moved as (
  select lane, case when behind then 'ordered' when state = 1 then 'running' when paused then 'paused'
      when state = 2 then 'waiting' when state = 3 then 'parked' else 'delayed' end as was,
    case when due or expired then 'runnable' when paused then 'paused' when due_at > $1 then 'delayed'
      else 'runnable' end as what,
    case when due then $1 - wake_at when expired then $2 - lease_until else $1 - since end as age
  from odd where moves or due or expired
), counted as (
  select lane, 'runnable' as what, n, age from ready
  union all select lane, 'delayed', -n, 0 from ready
  union all select lane, 'ordered', n, 0 from behind
  union all select lane, 'delayed', -n, 0 from behind
  union all select lane, 'paused', n, 0 from paused
  union all select lane, (array['delayed', '', 'waiting', 'parked'])[state + 1], -n, 0 from paused
  union all select lane, (array['delayed', 'running', 'waiting', 'parked'])[state + 1], count(*), 0
    from ~.run where state < 4 group by lane, state
  union all select lane, was, -1, 0 from moved
  union all select lane, what, 1, age from moved
)
select l.queue, c.what, sum(c.n)::bigint, max(c.age) from counted c join ~.lane l on l.id = c.lane
group by l.queue, c.what having sum(c.n) > 0 order by 1
"""

_WORKERS: Final = """
select data, case when seen + lease_s < coalesce($1::float8, ~now) then 'lost' else state end, seen_at from ~.worker
where seen + $2::float8 * lease_s >= coalesce($1::float8, ~now) order by id
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

"""How workers come to own runs, and what is due or dead before they do."""

from __future__ import annotations

import secrets
from collections import defaultdict
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from agentq.journal import RESERVED
from agentq.message import Claim, ClaimRef, EntryKind
from agentq.stores.columns import QUEUED, RUNNING, WAIT_COLUMNS, WAITING, wait_from
from agentq.stores.postgres import rows
from agentq.stores.postgres.desk import Desk
from agentq.stores.postgres.rows import ENTRY_COLUMNS, RUN_COLUMNS

if TYPE_CHECKING:
    from collections.abc import Sequence

    from agentq.message import ClaimRequest, Entry, Wait
    from agentq.stores.postgres.connection import Db
    from agentq.stores.postgres.rows import Lanes, Row

_PROMOTED: Final = 1000
"""How many due runs one transaction promotes; the rest follow with the next."""

_MINE: Final = """
  select l.id, array_position($3::text[], l.queue) as place from ~.lane l
  where l.app = $2 and l.queue = any($3::text[]) and l.task = any($4::text[])
"""
_MAY: Final = "not exists (select 1 from ~.worker where id = $1 and state <> 'active')"

_LOOK: Final = """
select coalesce($1::float8, ~now),
  exists (select 1 from ~.run where wake_at <= coalesce($1::float8, ~now)),
  exists (select 1 from ~.run where lease_until <= coalesce($2::float8, ~now)),
  (select min(wake_at) from ~.run where wake_at is not null),
  exists (select 1 from ~.vacant)
"""

# What came past its deadline since the last look is left to the next one.
_IN_TIME: Final = "(deadline is null or deadline > coalesce($10::float8, ~now))"
# First how many of the best each lane has, without locks; then so many of each are locked, past those that others are taking.
_READY: Final = f"""
mine as materialized ({_MINE}), best as materialized (
  select id, place, count(*) as quota from (
    select mine.id, mine.place from mine cross join lateral (
      select priority, rank, n from ~.run where lane = mine.id and ready and (not suspect or $5) and {_IN_TIME} and ~below
      order by priority desc, rank, n limit $6) r
    where {_MAY} order by place, priority desc, rank, n limit $6) b
  group by id, place
), chosen as materialized (
  select r.n, best.place, r.priority, r.rank, false as late, false as grown from best cross join lateral (
    select n, priority, rank from ~.run where lane = best.id and ready and (not suspect or $5) and {_IN_TIME} and ~below
    order by priority desc, rank, n limit best.quota for no key update skip locked) r
)
"""  # noqa: S608 - constants

# An entry's end is on the wall clock, which is brought over to the clock by which leases age.
_LIVED: Final = """
greatest(0, least(coalesce($9::float8, ~now), greatest(r.beat_at, coalesce($9::float8, ~now) - coalesce($10::float8, ~now)
  + coalesce((select ended_at from ~.journal where run = r.n order by seq desc limit 1), 0))) - r.claimed_at)
"""

_CHANGE: Final = f"""
update ~.run r set state = 1, ready = false, wake_at = null, due_at = null, epoch = r.epoch + 1,
  token = $7::bigint # r.n, owner = $1, lease_until = coalesce($9::float8, ~now) + $8::float8,
  started_at = coalesce(r.started_at, $10::float8, ~now),
  version = coalesce(r.version, (select v.version from unnest($11::text[], $12::text[]) as v (task, version)
    join ~.lane l on l.task = v.task where l.id = r.lane)),
  claimed = case when r.epoch = 0 and r.fork_of is null then 0 else
    coalesce((select seq + 1 from ~.journal where run = r.n order by seq desc limit 1), 0) end,
  claimed_at = coalesce($9::float8, ~now), beat_at = coalesce($9::float8, ~now),
  running_s = r.running_s + case when c.late then {_LIVED} else 0 end,
  takeovers = case when c.late then r.takeovers + 1 else r.takeovers end,
  suspect = case when c.late then not c.grown else r.suspect end,
  deaths = case when c.late and c.grown then 0 else r.deaths end,
  losses = case when c.late and c.grown then 0 else r.losses end
from chosen c where r.n = c.n
returning {RUN_COLUMNS}, c.place, c.rank as ranked, c.late
"""  # noqa: S608

_TAKE: Final = f"""
with {_READY}, changed as ({_CHANGE})
select changed.*, (select sum(quota) from best) as quota from (select 1) as one left join changed on true
"""  # noqa: S608
_PRIORITY: Final = 8
_PLACE: Final = 44
_RANKED: Final = 45
_LATE: Final = 46

_GROWN: Final = "exists (select 1 from ~.journal j where j.run = run.n and j.seq = run.claimed)"
# Rare: among the ready there are runs of the dead. Twice the number may be locked for a moment; the best of both are taken.
_LATE_RUNS: Final = f"""
~.run join mine on mine.id = run.lane
  where lease_until <= coalesce($9::float8, ~now) and not paused and not cancelling
    and {_IN_TIME} and ($5 or {_GROWN}) and {_MAY} and ~below
"""
_TAKE_OVER: Final = f"""
with {_READY}, late as materialized (
  select run.n, mine.place, run.priority, run.rank, true as late, {_GROWN} as grown from {_LATE_RUNS}
  order by mine.place, run.priority desc, run.rank, run.n limit $6 for no key update of run skip locked
), changed as ({
    _CHANGE.replace(
        "from chosen c",
        "from (select * from (select * from chosen union all select * from late) a"
        " order by place, priority desc, rank, n limit $6) c",
    )
})
select changed.*, (select coalesce(sum(quota), 0) from best) + (select count(*) from {_LATE_RUNS}) as quota
from (select 1) as one left join changed on true
"""  # noqa: S608

_DUE: Final = """
select id from ~.run where wake_at <= coalesce($1::float8, ~now) order by wake_at limit $2 for no key update skip locked
"""

_DEAD: Final = """
select id from ~.run where lease_until <= coalesce($2::float8, ~now) and (cancelling or deadline <= coalesce($1::float8, ~now))
order by lease_until limit $3 for no key update skip locked
"""

_UNHEARD: Final = f"""
select {RUN_COLUMNS} from ~.run r
where r.lease_until is not null and r.owner = $1 and r.state = 1 and (r.token # r.n) = any($2::bigint[])
"""  # noqa: S608


@dataclass(slots=True)
class Look:
    """What is to be done before runs are taken."""

    due: bool
    expired: bool
    vacant: bool
    """Whether a line lost its front and has no other yet."""
    next_due_s: float | None


async def look(db: Db) -> Look:
    """Ask without locks."""
    wall, due, expired, wake_at, vacant = await db.row(_LOOK, db.wall, db.steady)
    return Look(due=due, expired=expired, vacant=vacant, next_due_s=None if wake_at is None else max(0.0, wake_at - wall))


async def settle_due(desk: Desk) -> int:
    """Queue runs whose delay or timer is over; settle those past their deadline and the cancelled ones of the dead."""
    db = desk.db
    due = [row[0] for row in await db.fetch(_DUE, db.wall, _PROMOTED)]
    dead = [row[0] for row in await db.fetch(_DEAD, db.wall, db.steady, _PROMOTED)]
    if not due and not dead:
        return 0
    await desk.lock([*due, *dead], finishing=[*due, *dead], failing=[*due, *dead])
    for run in [desk.held[run_id] for run_id in (*due, *dead) if run_id in desk.held]:
        over = run.deadline is not None and run.deadline <= desk.wall
        if run.state == RUNNING:
            if run.cancelling:
                desk.cancel(run)
            elif over:
                desk.expire(run)
        elif run.state in {QUEUED, WAITING} and over:
            desk.expire(run)
        elif run.state == WAITING:
            desk.queue(run)
        elif run.state == QUEUED:
            run.since = run.since if run.due_at is None else run.due_at
            desk.change(run)
            desk.ring(work=True)
    await desk.save()
    return len(due) + len(dead)


async def take(db: Db, request: ClaimRequest, base: int, limit: int, *, expired: bool) -> tuple[list[Row], bool]:
    """Take runs; the rows in the order in which they are to start, and whether others were taking some that we wanted.

    The claims' tokens are ``base`` xor the run's number.
    """
    versions = request.version.items()
    values: list[Any] = [
        request.worker, request.app, list(request.queues), list(request.tasks), request.suspects, limit, base,
        request.lease_s, db.steady, db.wall, [task for task, _ in versions], [version for _, version in versions],
    ]  # fmt: skip
    query, below = _TAKE_OVER if expired else _TAKE, "true"
    if request.root is not None:
        values.append(request.root)
        below = "(run.id = $13 or run.root_id = $13)"
    found = await db.fetch(query.replace("~below", below), *values)
    wanted = found[0][-1] or 0
    taken = [row for row in found if row[0] is not None]
    taken.sort(key=lambda row: (row[_PLACE], -row[_PRIORITY], row[_RANKED], rows.number(row)))
    return taken, len(taken) < min(wanted, limit)


async def unheard(db: Db, worker: str, bases: Sequence[int]) -> list[Row]:
    """Runs that were taken for ``worker`` under these bases, when the answer was lost."""
    return await db.fetch(_UNHEARD, worker, list(bases))


def new_base() -> int:
    """What makes the tokens of one taking."""
    return secrets.randbits(62)


async def load(db: Db, lanes: Lanes, taken: Sequence[Row]) -> tuple[Claim, ...]:
    """The claims of rows that were taken, with journals, waits and snapshots where there is something to resume."""
    resumed = [rows.number(row) for row in taken if not _fresh(row)]
    entries: dict[int, list[Entry]] = defaultdict(list)
    waits: dict[int, list[Wait]] = defaultdict(list)
    snapshots: dict[int, dict[str, bytes]] = defaultdict(dict)
    if resumed:
        query = f"select run, {ENTRY_COLUMNS} from ~.journal where run = any($1::bigint[]) order by run, seq"  # noqa: S608
        for row in await db.fetch(query, resumed):
            entries[row[0]].append(rows.entry_from(row[1:]))
        query = f"select run, {WAIT_COLUMNS} from ~.wait where run = any($1::bigint[])"  # noqa: S608
        for row in await db.fetch(query, resumed):
            waits[row[0]].append(wait_from(row[1:]))
        query = "select run, branch, payload from ~.snapshot where run = any($1::bigint[])"
        for n, branch, payload in await db.fetch(query, resumed):
            snapshots[n][branch] = payload
    lengths = {
        n: (
            n,
            len(journal),
            sum(entry.kind is EntryKind.DONE and not entry.step.startswith(RESERVED) for entry in journal),
            journal[-1].step,
        )
        for n, journal in entries.items()
    }
    runs = await rows.runs_from(db, lanes, taken, lengths)
    return tuple(
        Claim(
            ref=reference(row),
            run=run,
            journal=tuple(entries.get(n, ())),
            waits=tuple(waits.get(n, ())),
            snapshots=snapshots.get(n, {}),
            taken_over=len(row) > _LATE and bool(row[_LATE]),
        )
        for row, run, n in ((row, run, rows.number(row)) for row, run in zip(taken, runs, strict=True))
    )


def reference(row: Row) -> ClaimRef:
    """The proof of ownership of a row that was taken."""
    return ClaimRef(run_id=row[0], epoch=row[6], token=rows.token(row))


def _fresh(row: Row) -> bool:
    """Whether a claimed run has nothing to resume: first epoch, no fork."""
    return bool(row[6] == 1 and row[24] is None)

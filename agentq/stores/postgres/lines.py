"""Ordering keys: runs of one key stand in line, and only the front one can be claimed, until it is final.

A line is (app, queue, ordering key), by its hash. Its runs stand by their number ``n``; all but the front one are ``behind``,
and what is behind is never ``ready``, so that a claim does not meet it, however long the line.

Whoever may change who is in front holds the line's advisory lock until it commits: a submission (before its numbers are
drawn, so that the order of numbers is the order of commits), a retry of a final run, and the hand-over. Whoever ends a front
run holds no such lock: a trigger notes in the same transaction that the line is ``vacant``, and the next claim hands it over.
So no wake-up is lost: a submission that still saw the old front commits behind it and lets go of the lock before a hand-over
can look; one that comes later sees what the hand-over did, or finds the line empty and is the front.

Locks are taken in this order: first lines (sorted), then rows of runs (by id). Nobody waits for a line while it holds a row; a
batch of writes therefore takes the lines of its children before it locks anything. What is left are users' transactions, each
with several submissions, and a retry that meets a cancelled family: the server ends one of them as a deadlock, and ours is done
again. A hand-over waits for no line: where somebody holds it (a user may, for long) it is left for the next claim.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from agentq.message import Envelope
from agentq.stores.columns import QUEUED
from agentq.stores.postgres.connection import number_of

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from agentq.stores.postgres.connection import Db
    from agentq.stores.postgres.desk import Desk, Held

_AT_ONCE: Final = 1000
"""How many lines one transaction hands over; the rest follow with the next."""

_HOLD: Final = "select pg_advisory_xact_lock(line # $2::bigint) from unnest($1::bigint[]) as l (line)"
_TRY: Final = """
select line from unnest($1::bigint[]) as l (line) where pg_try_advisory_xact_lock(line # $2::bigint)
"""

_VACANT: Final = "select n, line from ~.vacant order by n limit $1 for update skip locked"

# The front is the one that is not behind; where there is none, the lowest number is to be it. Rows are locked by id.
_ADVANCE: Final = """
with first as materialized (
  select f.id from unnest($1::bigint[]) as l (line) cross join lateral (
    select id, behind from ~.run where line = l.line and state < 4 order by behind, n limit 1) f
  where f.behind order by f.id
), moved as (
  update ~.run r set behind = false,
    since = greatest(r.since, coalesce((select max(v.since) from ~.vacant v where v.line = r.line), r.since)),
    ready = r.state = 0 and not r.paused and (r.due_at is null or r.due_at <= coalesce($2::float8, ~now)),
    wake_at = least(
      case when r.state = 0 and not r.paused and r.due_at > coalesce($2::float8, ~now) then r.due_at end, r.deadline)
  from (select m.n from first cross join lateral (
    select n from ~.run where id = first.id and behind and state < 4 for no key update) m offset 0) m
  where r.n = m.n returning 1
)
select (select count(*) from first), (select count(*) from moved)
"""

_FRONT: Final = "select id from ~.run where line = $1 and state < 4 and n <> $2 order by behind, n limit 1"


def line_of(envelope: Envelope) -> int | None:
    """The line in which a submission stands."""
    if envelope.ordering_key is None:
        return None
    return number_of(envelope.app, envelope.queue, envelope.ordering_key)


async def hold(db: Db, envelopes: Iterable[Envelope]) -> list[int]:
    """Lock the lines of submissions until the transaction ends; answer them."""
    found = sorted({line for envelope in envelopes if (line := line_of(envelope)) is not None})
    if found:
        await db.fetch(_HOLD, found, db.names.salt)
    return found


async def advance(db: Db, found: Sequence[int]) -> bool:
    """Give each line that has none a front; the caller holds their locks. Answers whether any has a new one."""
    moved = False
    while True:
        wanted, came = await db.row(_ADVANCE, found, db.wall)
        moved = moved or came > 0
        if wanted == came:  # else one ended while its row was locked: the next one's turn
            return moved


async def vacate(db: Db, found: Sequence[int]) -> None:
    """Leave it to the next claim who is in front: a transaction of a stricter isolation cannot see that now."""
    await db.fetch("insert into ~.vacant (line) select * from unnest($1::bigint[])", found)


async def hand_over(desk: Desk) -> int:
    """Give vacant lines their next front; answer how many lines are left because somebody holds them."""
    db = desk.db
    vacant = await db.fetch(_VACANT, _AT_ONCE)
    lines = sorted({line for _, line in vacant})
    ours = [row[0] for row in await db.fetch(_TRY, lines, db.names.salt)]
    if await advance(db, ours):
        desk.ring(work=True)
    await db.fetch("delete from ~.vacant where n = any($1::bigint[])", [n for n, line in vacant if line in set(ours)])
    return len(lines) - len(ours)


async def hold_of(db: Db, run_id: str) -> None:
    """Lock the line in which a run stands, if it stands in one. Before its row is locked."""
    line = await db.value("select line from ~.run where id = $1", run_id)
    if line is not None:
        await db.fetch(_HOLD, [line], db.names.salt)


async def rejoin(desk: Desk, run: Held) -> None:
    """Put a run that was final back in line: behind a front that has begun, else where its number belongs."""
    if run.line is None:
        return
    run.behind = False
    front_id = await desk.db.value(_FRONT, run.line, run.n)
    if front_id is None:
        return
    front = (await desk.lock([front_id])).get(front_id)
    run.behind = True
    if front is None or front.final or front.behind:
        return  # the hand-over that is due decides by the numbers
    if front.n > run.n and front.state == QUEUED and front.epoch == 0:
        front.behind, run.behind = True, False
        desk.change(front)

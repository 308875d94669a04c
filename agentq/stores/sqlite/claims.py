"""How workers come to own runs: claim, beat, leave, and what dead workers leave behind."""

from __future__ import annotations

import secrets
from typing import TYPE_CHECKING, Final

import msgspec

from agentq.journal import RESERVED
from agentq.message import Beat, Claim, ClaimRef, Claims, EntryKind, Worker, WorkerState
from agentq.stores.columns import QUEUED, RUNNING, WAITING, encode
from agentq.stores.sqlite import rows
from agentq.stores.sqlite.rows import RUN_COLUMNS
from agentq.stores.sqlite.schema import SEQ_BITS, SEQ_MASK

if TYPE_CHECKING:
    import sqlite3
    from collections.abc import Iterable, Sequence

    from agentq.message import ClaimRequest
    from agentq.stores.sqlite.desk import Desk
    from agentq.stores.sqlite.rows import Row

_PROMOTED: Final = 2000
"""How many due runs one transaction promotes; the rest follow with the next claim."""

_DUE: Final = "select n, id, state, deadline, due_at from run where wake_at <= ? order by wake_at limit ?"
_START: Final = f"update run set ready = 1, since = ?, wake_at = deadline where n = ? and state = {QUEUED}"  # noqa: S608

_READY: Final = """
select priority, rank, n, 0 from run indexed by run_ready
where ready = 1 and lane = ? and (suspect = 0 or ?) order by priority desc, rank, n limit ?
"""

_READY_BELOW: Final = """
select priority, rank, n, 0 from (
  select priority, rank, n, lane, suspect from run where id = ?1 and +ready = 1
  union all
  select priority, rank, n, lane, suspect from run indexed by run_root where root_id = ?1 and ready = 1
) where lane = ?2 and (suspect = 0 or ?3) order by priority desc, rank, n limit ?4
"""

_LATE: Final = f"""
select n, id, lane, priority, rank, cancelling, deadline, paused, suspect, claimed,
  exists (select 1 from journal where k = (n << {SEQ_BITS}) | claimed), root_id
from run where lease_until <= ?
"""  # noqa: S608 - a constant

_TAKE: Final = f"""
update run set state = {RUNNING}, ready = 0, wake_at = null, due_at = null, epoch = epoch + 1, token = ?, owner = ?,
  lease_until = ?, claimed_at = ?, beat_at = ?, started_at = ifnull(started_at, ?), version = ifnull(version, ?),
  claimed = case when epoch = 0 and fork_of is null then 0 else ifnull((
    select (k & {SEQ_MASK}) + 1 from journal where k between run.n << {SEQ_BITS} and (run.n << {SEQ_BITS}) | {SEQ_MASK}
    order by k desc limit 1), 0) end
where n = ? returning {RUN_COLUMNS}
"""  # noqa: S608

_TAKEN_OVER: Final = f"""
update run set takeovers = takeovers + 1, suspect = not :grown, running_s = running_s + max(0, min(:steady - claimed_at,
    max(beat_at, :steady - :wall + ifnull((
      select ended_at from journal where k between run.n << {SEQ_BITS} and (run.n << {SEQ_BITS}) | {SEQ_MASK}
      order by k desc limit 1), 0)) - claimed_at)),
  deaths = case when :grown then 0 else deaths end, losses = case when :grown then 0 else losses end where n = :n
"""  # noqa: S608


def idle(desk: Desk, request: ClaimRequest) -> Claims | None:
    """The answer, where nothing has to be written: no run to hand out, nothing due, nothing expired."""
    db = desk.db
    if db.execute("select 1 from run where wake_at <= ? limit 1", (desk.wall,)).fetchone():
        return None
    if db.execute("select 1 from run where lease_until <= ? limit 1", (desk.steady,)).fetchone() and _late(desk, request):
        return None
    some = request.limit > 0 and any(_ready(desk, request, queue, 1) for queue in request.queues)
    if some and _may_claim(desk, request.worker):
        return None
    return Claims(next_due_s=_next_due(desk))


def claim(desk: Desk, request: ClaimRequest) -> tuple[list[Row], float | None]:
    """Settle and promote what is due, then take runs.

    Answers rows of `RUN_COLUMNS` and whether a lease had expired, and the seconds until something is due.
    """
    promote(desk)
    late = _late(desk, request)
    for n, run_id, _lane, _priority, _rank, cancelling, deadline, *_ in late:
        if cancelling:
            desk.cancel(n, run_id)
        elif deadline is not None and deadline <= desk.wall:
            desk.expire(n, run_id)
    taken: list[Row] = []
    if _may_claim(desk, request.worker):
        grown = {row[0]: bool(row[10]) for row in late}
        for queue in request.queues:
            for _, _, n, expired in _candidates(desk, request, queue, late, request.limit - len(taken)):
                if expired:
                    desk.db.execute(_TAKEN_OVER, {"n": n, "grown": grown[n], "steady": desk.steady, "wall": desk.wall})
                taken.append((*_take(desk, request, n), expired))
    if taken:
        desk.ring(work=False)
    return taken, _next_due(desk)


def promote(desk: Desk) -> None:
    """Queue runs whose delay or timer is over; settle those past their deadline."""
    delayed = []
    ended = False
    for n, run_id, state, deadline, due_at in desk.db.execute(_DUE, (desk.wall, _PROMOTED)).fetchall():
        if ended and _final(desk, n):
            continue  # the end of an earlier one took it along
        if deadline is not None and deadline <= desk.wall:
            desk.expire(n, run_id)
            ended = True
        elif state == WAITING:
            desk.queue(n)
        elif state == QUEUED:
            delayed.append((due_at, n))
    if delayed:
        # One that was collected may have been taken along by the end of a later one.
        desk.db.executemany(_START, delayed)
        desk.ring(work=True)


def _final(desk: Desk, n: int) -> bool:
    return desk.db.execute("select 1 from run where n = ? and state >= 4", (n,)).fetchone() is not None


def _may_claim(desk: Desk, worker_id: str) -> bool:
    row = desk.db.execute("select state from worker where id = ?", (worker_id,)).fetchone()
    return row is None or row[0] == WorkerState.ACTIVE.value


def _late(desk: Desk, request: ClaimRequest) -> list[Row]:
    """Running runs whose lease is over and with which this request can do something."""
    lanes = desk.lanes.load()
    mine = {lanes.get((request.app, queue, task)) for queue in request.queues for task in request.tasks}
    found = []
    for row in desk.db.execute(_LATE, (desk.steady,)).fetchall():
        _, run_id, lane, _, _, cancelling, deadline, paused, *_, root_id = row
        settles = cancelling or (deadline is not None and deadline <= desk.wall)
        asked = lane in mine and (request.root is None or request.root in {run_id, root_id})
        if settles or (asked and not paused):
            found.append(row)
    return found


def _ready(desk: Desk, request: ClaimRequest, queue: str, limit: int) -> list[Row]:
    lanes = desk.lanes.load()
    numbers = [lanes.get((request.app, queue, task)) for task in request.tasks]
    found: list[Row] = []
    for number in numbers:
        if number is None:
            continue
        if request.root is None:
            found += desk.db.execute(_READY, (number, request.suspects, limit)).fetchall()
        else:
            found += desk.db.execute(_READY_BELOW, (request.root, number, request.suspects, limit)).fetchall()
    return found


def _candidates(desk: Desk, request: ClaimRequest, queue: str, late: list[Row], limit: int) -> list[Row]:
    """The best ``limit`` of one queue: (priority, rank, n, whether its lease expired)."""
    if limit <= 0:
        return []
    found = _ready(desk, request, queue, limit)
    for n, _, lane, priority, rank, cancelling, deadline, _, _, _, grown, _ in late:
        app, its_queue, task = desk.lanes.name(lane)
        fits = app == request.app and its_queue == queue and task in request.tasks and (request.suspects or grown)
        if fits and not cancelling and (deadline is None or deadline > desk.wall):
            found.append((priority, rank, n, 1))
    found.sort(key=lambda row: (-row[0], row[1], row[2]))
    return found[:limit]


def _take(desk: Desk, request: ClaimRequest, n: int) -> Row:
    task = request.version
    version = task.get(_task(desk, n)) if task else None
    values = (
        secrets.randbits(62),
        request.worker,
        desk.steady + request.lease_s,
        desk.steady,
        desk.steady,
        desk.wall,
        version,
        n,
    )
    row: Row = desk.db.execute(_TAKE, values).fetchone()
    return row


def _task(desk: Desk, n: int) -> str:
    return desk.lanes.name(desk.db.execute("select lane from run where n = ?", (n,)).fetchone()[0])[2]


def _next_due(desk: Desk) -> float | None:
    row = desk.db.execute("select wake_at from run where wake_at is not null order by wake_at limit 1").fetchone()
    return None if row is None else max(0.0, row[0] - desk.wall)


def fresh(row: Row) -> bool:
    """Whether a claimed run has nothing to resume: first epoch, no fork."""
    return bool(row[6] == 1 and row[24] is None)


def reference(row: Row) -> ClaimRef:
    """The proof of ownership of a row that was taken."""
    return ClaimRef(run_id=row[0], epoch=row[6], token=row[41])


def load(desk: Desk, row: Row) -> Claim:
    """The claim of a row that was taken, with journal, waits and snapshots."""
    db, n = desk.db, row[39]
    if fresh(row):
        return Claim(ref=reference(row), run=rows.run_from(row, desk.lanes, db, desk.steady))
    journal = rows.journal(db, n)
    done = sum(entry.kind is EntryKind.DONE and not entry.step.startswith(RESERVED) for entry in journal)
    last = journal[-1].step if journal else ""
    return Claim(
        ref=reference(row),
        run=rows.run_from(row, desk.lanes, db, desk.steady, entries=len(journal), steps=done, last_step=last),
        journal=tuple(journal),
        waits=tuple(rows.waits(db, n)),
        snapshots=dict(db.execute("select branch, payload from snapshot where run = ?", (n,)).fetchall()),
        taken_over=bool(row[-1]),
    )


def beat(desk: Desk, worker: Worker, claims: Sequence[ClaimRef], lease_s: float) -> Beat:
    """See `WorkerStore.beat`."""
    db = desk.db
    seen = msgspec.structs.replace(worker, seen_at=desk.wall)
    (state,) = db.execute(
        "insert into worker (id, state, seen_at, seen, lease_s, data) values (?, ?, ?, ?, ?, ?) on conflict (id) do update"
        " set seen_at = excluded.seen_at, seen = excluded.seen, lease_s = excluded.lease_s, data = excluded.data"
        " returning state",
        (worker.id, worker.state.value, desk.wall, desk.steady, lease_s, encode(seen)),
    ).fetchone()
    lost: list[ClaimRef] = []
    mine: list[tuple[int, str, bool, bool]] = []
    for ref in claims:
        row = db.execute(
            f"update run set lease_until = ?, beat_at = ? where id = ? and epoch = ? and token = ? and state = {RUNNING}"  # noqa: S608
            " returning n, cancelling, paused",
            (desk.steady + lease_s, desk.steady, ref.run_id, ref.epoch, ref.token),
        ).fetchone()
        if row is None:
            lost.append(ref)
        else:
            mine.append((row[0], ref.run_id, bool(row[1]), bool(row[2])))
    return Beat(
        lost=tuple(lost),
        cancel=tuple(run_id for _, run_id, cancelling, _ in mine if cancelling),
        pause=tuple(run_id for _, run_id, _, paused in mine if paused),
        arrivals=tuple(run_id for n, run_id, _, _ in mine if arrived(db, n)),
        state=WorkerState(state),
    )


def arrived(db: sqlite3.Connection, n: int) -> bool:
    """Whether something that an open wait of run number ``n`` waits for is there, time aside."""
    for kind, ref in db.execute("select kind, ref from wait where run = ?", (n,)).fetchall():
        if kind == "signal":
            query = "select 1 from signal where run = ? and name = ? and consumed = 0"
            found = db.execute(query, (n, ref)).fetchone()
        elif kind == "child":
            found = db.execute("select 1 from run where id = ? and state >= 4", (ref,)).fetchone()
        else:
            found = None
        if found is not None:
            return True
    return False


def leave(desk: Desk, worker_id: str) -> None:
    """See `WorkerStore.leave`."""
    bury(desk, (worker_id,))
    desk.ring(work=True)


def bury(desk: Desk, worker_ids: Iterable[str]) -> None:
    """Expire what these workers hold and remove their rows."""
    for worker_id in worker_ids:
        desk.db.execute("delete from worker where id = ?", (worker_id,))
        desk.db.execute(
            "update run set lease_until = ? where lease_until > ? and owner = ?", (desk.steady, desk.steady, worker_id)
        )
        desk.ring(work=True)


def owners(db: sqlite3.Connection) -> list[str]:
    """Workers that hold running runs."""
    return [row[0] for row in db.execute("select distinct owner from run where lease_until is not null")]

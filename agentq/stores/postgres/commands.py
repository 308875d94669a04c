"""Steering runs and workers: what each command does under the run's lock."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from agentq.message import Cancel, DropLetters, EntryKind, Fork, Pause, Reply, Requeue, Resume, Send, SetWorker
from agentq.stores.columns import CANCELLED, FAILED, KIND_CODES, WAITED, failure_from
from agentq.stores.postgres import arrivals, lines

if TYPE_CHECKING:
    from agentq.message import Command
    from agentq.stores.postgres.desk import Desk, Held

_SUPERSEDE: Final = """
insert into ~.journal (run, seq, kind, branch, step, occurrence, attempt, epoch, args_hash, started_at, ended_at, tokens,
  cost_nanos)
select j.run, (select seq + 1 from ~.journal where run = $1 order by seq desc limit 1), $3, j.branch, j.step, j.occurrence,
  j.attempt, $4, '', $5, $5, 0, 0
from ~.journal j where j.run = $1 and j.seq = $2 and j.kind = any($6::smallint[])
on conflict do nothing
"""
_SUPERSEDABLE: Final = [KIND_CODES[EntryKind.FAILED], WAITED]
"""A step's failure, or a child's."""

_FORK: Final = """
insert into ~.run (id, lane, state, ready, priority, rank, since, submitted_at, timeout_s, max_attempts, tenant, tags,
  args_hash, version, fork_of, traceparent, args, args_blob)
select $2, lane, 0, true, priority, $3, $3, $3, timeout_s, max_attempts, tenant, tags, args_hash, version, id, traceparent,
  args, args_blob
from ~.run where n = $1 on conflict (id) do nothing returning n
"""
_FORK_JOURNAL: Final = """
insert into ~.journal (run, seq, kind, branch, step, occurrence, attempt, epoch, args_hash, started_at, ended_at, tokens,
  cost_nanos, value, blob)
select $2, seq, kind, branch, step, occurrence, attempt, epoch, args_hash, started_at, ended_at, tokens, cost_nanos, value, blob
from ~.journal where run = $1 and seq < $3
"""
_FORK_BLOBS: Final = """
insert into ~.blob_ref (run, sha)
select $2, sha from (
  select blob as sha from ~.journal where run = $2 and blob is not null
  union select args_blob from ~.run where n = $1 and args_blob is not null) b
"""
_FORK_SNAPSHOTS: Final = """
insert into ~.snapshot (run, branch, seq, payload)
select $2, branch, seq, payload from ~.snapshot where run = $1 and seq < $3
"""


async def command(desk: Desk, order: Command) -> Reply:
    """See `ProducerStore.command`."""
    if isinstance(order, SetWorker):
        return await _set_worker(desk, order)
    if isinstance(order, DropLetters):
        return await arrivals.drop_letters(desk.db, order.ids)
    if isinstance(order, Cancel):
        return await _cancel(desk, order)
    if isinstance(order, Requeue):
        await lines.hold_of(desk.db, order.run_id)
    run = (await desk.lock([order.run_id])).get(order.run_id)
    if run is None:
        return await _early(desk, order)
    match order:
        case Pause() | Resume():
            reply = _hold(desk, run, paused=isinstance(order, Pause))
        case Requeue():
            reply = await _requeue(desk, run)
        case Send():
            reply = await _send(desk, run, order)
        case Fork():
            reply = await _fork(desk, run, order)
    await desk.save()
    return reply


async def _set_worker(desk: Desk, order: SetWorker) -> Reply:
    state = await desk.db.value("select state from ~.worker where id = $1 for no key update", order.worker_id)
    if state is None:
        return Reply.NOT_FOUND
    if state == order.state.value:
        return Reply.UNCHANGED
    await desk.db.fetch("update ~.worker set state = $1 where id = $2", order.state.value, order.worker_id)
    desk.ring(work=True)
    return Reply.DONE


async def _cancel(desk: Desk, order: Cancel) -> Reply:
    """Mark the whole subtree. A child that is being inserted meanwhile holds its parent's lock: look until nobody is new."""
    members: set[str] = set()
    while not (found := await desk.family([order.run_id])) <= members:
        members |= found
        await desk.lock(members, finishing=members)
    run = desk.held.get(order.run_id)
    if run is None:
        return await _early(desk, order)
    if run.cancelling or run.state == CANCELLED:
        return Reply.UNCHANGED
    if run.final:
        return Reply.REFUSED
    desk.cancel_all(members)
    await desk.save()
    return Reply.DONE


async def _early(desk: Desk, order: Cancel | Pause | Resume | Send | Requeue | Fork) -> Reply:
    """No run is there. One that comes at this very moment is."""
    if isinstance(order, Requeue | Fork) or not order.early:
        return Reply.NOT_FOUND
    kept = await arrivals.wait_for_run(desk.db, order, desk.wall)
    return await command(desk, order) if kept is None else kept


def _hold(desk: Desk, run: Held, *, paused: bool) -> Reply:
    if run.final:
        return Reply.REFUSED
    if run.paused is paused:
        return Reply.UNCHANGED
    run.paused = paused
    desk.change(run)
    desk.ring(work=True)
    return Reply.DONE


async def _requeue(desk: Desk, run: Held) -> Reply:
    if run.state not in {FAILED, CANCELLED}:
        return Reply.REFUSED
    failure = failure_from(await desk.db.value("select failure from ~.run where n = $1", run.n))
    if failure is not None and failure.seq is not None:
        kind = KIND_CODES[EntryKind.SUPERSEDED]
        await desk.db.fetch(_SUPERSEDE, run.n, failure.seq, kind, run.epoch, desk.wall, _SUPERSEDABLE)
    # A fresh set of attempts has its whole running time again, else a run that timed out could never be retried.
    run.attempt, run.running_s, run.deaths, run.losses = 1, 0.0, 0, 0
    run.cancelling = run.paused = run.suspect = False
    run.finished_at = None
    run.ends, run.result, run.result_blob = True, None, None
    desk.queue(run, rank=desk.wall)
    await lines.rejoin(desk, run)
    return Reply.DONE


async def _send(desk: Desk, run: Held, order: Send) -> Reply:
    known = "select 1 from ~.signal where run = $1 and name = $2 and signal_id = $3"
    if await desk.db.value(known, run.n, order.name, order.signal_id):
        return Reply.UNCHANGED
    if run.final:
        return Reply.REFUSED
    query = "insert into ~.signal (run, name, signal_id, payload) values ($1, $2, $3, $4)"
    await desk.db.fetch(query, run.n, order.name, order.signal_id, order.payload)
    query = "select 1 from ~.wait where run = $1 and kind = 'signal' and ref = $2 limit 1"
    if await desk.db.value(query, run.n, order.name):
        desk.wake(run)
    desk.ring(work=False)
    return Reply.DONE


async def _fork(desk: Desk, run: Held, order: Fork) -> Reply:
    db = desk.db
    new = await db.value(_FORK, run.n, order.new_id, desk.wall)
    if new is None:
        return Reply.UNCHANGED
    upto = min(max(order.upto, 0), 2**31 - 1)
    await db.fetch(_FORK_JOURNAL, run.n, new, upto)
    await db.fetch(_FORK_BLOBS, run.n, new)
    await db.fetch(_FORK_SNAPSHOTS, run.n, new, upto)
    desk.ring(work=True)
    return Reply.DONE

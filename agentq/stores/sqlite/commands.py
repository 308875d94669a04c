"""The producer's other verb: commands, each applied to one run or worker."""

from __future__ import annotations

from typing import TYPE_CHECKING

from agentq.errors import StoreError
from agentq.message import Cancel, DropLetters, EntryKind, Fork, Pause, Reply, Requeue, Resume, Send, SetWorker
from agentq.stores.columns import CANCELLED, FAILED, KIND_CODES, QUEUED, SUCCEEDED, WAITING, failure_from
from agentq.stores.sqlite import early, letters, ordering
from agentq.stores.sqlite.rows import length
from agentq.stores.sqlite.schema import SEQ_BITS, SEQ_MASK

if TYPE_CHECKING:
    from agentq.message import Command
    from agentq.stores.sqlite.desk import Desk


def command(desk: Desk, order: Command) -> Reply:
    """See `ProducerStore.command`."""
    if isinstance(order, SetWorker):
        return _set_worker(desk, order)
    if isinstance(order, DropLetters):
        return letters.drop(desk, order)
    row = desk.db.execute("select n, state, cancelling, paused from run where id = ?", (order.run_id,)).fetchone()
    if row is None:
        return early.keep(desk, order)
    n, state, cancelling, paused = row
    match order:
        case Cancel():
            reply = _cancel(desk, n, state, cancelling=bool(cancelling))
        case Pause() | Resume():
            reply = _hold(desk, n, state, before=bool(paused), paused=isinstance(order, Pause))
        case Requeue():
            reply = _requeue(desk, n, state)
        case Send():
            reply = _send(desk, n, state, order)
        case Fork():
            reply = _fork(desk, n, order)
    return reply


def _set_worker(desk: Desk, order: SetWorker) -> Reply:
    row = desk.db.execute("select state from worker where id = ?", (order.worker_id,)).fetchone()
    if row is None:
        return Reply.NOT_FOUND
    if row[0] == order.state.value:
        return Reply.UNCHANGED
    desk.db.execute("update worker set state = ? where id = ?", (order.state.value, order.worker_id))
    desk.ring(work=True)
    return Reply.DONE


def _cancel(desk: Desk, n: int, state: int, *, cancelling: bool) -> Reply:
    if cancelling or state == CANCELLED:
        return Reply.UNCHANGED
    if state >= SUCCEEDED:
        return Reply.REFUSED
    desk.cancel_subtree(n)
    return Reply.DONE


def _hold(desk: Desk, n: int, state: int, *, before: bool, paused: bool) -> Reply:
    if state >= SUCCEEDED:
        return Reply.REFUSED
    if before is paused:
        return Reply.UNCHANGED
    desk.db.execute("update run set paused = ? where n = ?", (paused, n))
    if state in {QUEUED, WAITING}:
        desk.place(n)
    desk.ring(work=True)
    return Reply.DONE


def _requeue(desk: Desk, n: int, state: int) -> Reply:
    if state not in {FAILED, CANCELLED}:
        return Reply.REFUSED
    failure = failure_from(desk.db.execute("select failure from run where n = ?", (n,)).fetchone()[0])
    if failure is not None and failure.seq is not None:
        _supersede(desk, n, failure.seq)
    # A fresh set of attempts has its whole running time again, else a run that timed out could never be retried.
    desk.db.execute(
        "update run set attempt = 1, cancelling = 0, paused = 0, suspect = 0, deaths = 0, losses = 0, finished_at = null,"
        " result = null, result_blob = null, running_s = 0 where n = ?",
        (n,),
    )
    ordering.rejoin(desk, n)
    desk.queue(n, rank=desk.wall)
    return Reply.DONE


def _supersede(desk: Desk, n: int, seq: int) -> None:
    """Append the entry that takes the escaped failure at ``seq`` out of force, unless it is there already."""
    key = n << SEQ_BITS | seq
    query = "select kind, branch, step, occurrence, attempt from journal where k = ? and run = ?"
    row = desk.db.execute(query, (key, n)).fetchone()
    if row is None or row[0] not in {KIND_CODES[EntryKind.FAILED], KIND_CODES[EntryKind.WAITED]}:
        return
    desk.db.execute(
        "insert or ignore into journal (k, run, kind, branch, step, occurrence, attempt, epoch, args_hash, started_at,"
        " ended_at, tokens, cost_nanos) select ?, ?, ?, ?, ?, ?, ?, epoch, '', ?, ?, 0, 0 from run where n = ?",
        (n << SEQ_BITS | length(desk.db, n), n, KIND_CODES[EntryKind.SUPERSEDED], *row[1:], desk.wall, desk.wall, n),
    )


def _send(desk: Desk, n: int, state: int, order: Send) -> Reply:
    known = desk.db.execute(
        "select 1 from signal where run = ? and name = ? and signal_id = ?", (n, order.name, order.signal_id)
    ).fetchone()
    if known is not None:
        return Reply.UNCHANGED
    if state >= SUCCEEDED:
        return Reply.REFUSED
    desk.db.execute(
        "insert into signal (run, name, signal_id, payload) values (?, ?, ?, ?)",
        (n, order.name, order.signal_id, order.payload),
    )
    if desk.db.execute("select 1 from wait where run = ? and kind = 'signal' and ref = ?", (n, order.name)).fetchone():
        desk.wake(n)
    desk.ring(work=False)
    return Reply.DONE


def _fork(desk: Desk, n: int, order: Fork) -> Reply:
    db = desk.db
    if db.execute("select 1 from run where id = ?", (order.new_id,)).fetchone():
        return Reply.UNCHANGED
    new = db.execute(
        "insert into run (id, lane, state, ready, priority, rank, since, submitted_at, timeout_s, max_attempts, tenant, tags,"
        " args_hash, version, fork_of, traceparent, args, args_blob)"
        " select ?, lane, 0, 1, priority, ?, ?, ?, timeout_s, max_attempts, tenant, tags, args_hash, version, id, traceparent,"
        " args, args_blob from run where n = ?",
        (order.new_id, desk.wall, desk.wall, desk.wall, n),
    ).lastrowid
    if new is None:
        raise StoreError(f"run {order.new_id} could not be made")
    first = n << SEQ_BITS
    last = first + min(max(order.upto, 0), SEQ_MASK) - 1
    db.execute(
        "insert into journal (k, run, kind, branch, step, occurrence, attempt, epoch, args_hash, started_at, ended_at, tokens,"
        " cost_nanos, blob, value) select k - ? + ?, ?, kind, branch, step, occurrence, attempt, epoch, args_hash, started_at,"
        " ended_at, tokens, cost_nanos, blob, value from journal where k between ? and ?",
        (first, new << SEQ_BITS, new, first, last),
    )
    db.execute(
        "insert or ignore into blob_ref (run, sha) select ?, blob from journal where k between ? and ? and blob is not null",
        (new, first, last),
    )
    db.execute(
        "insert or ignore into blob_ref (run, sha) select ?, args_blob from run where n = ? and args_blob is not null", (new, n)
    )
    db.execute(
        "insert into snapshot (run, branch, seq, payload)"
        " select ?, branch, seq, payload from snapshot where run = ? and seq < ?",
        (new, n, order.upto),
    )
    desk.ring(work=True)
    return Reply.DONE

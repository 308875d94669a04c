"""What one claim commits: a single write with its own verdict, and the shared fast path for plain ones."""

from __future__ import annotations

import sqlite3
import zlib
from typing import TYPE_CHECKING, Any, Final

from agentq.errors import StoreError
from agentq.message import (
    Cancelled,
    Crashed,
    EntryKind,
    Failed,
    Released,
    Retried,
    Succeeded,
    Suspended,
    Verdict,
)
from agentq.stores.columns import FAILED, KIND_CODES, RUNNING, SUCCEEDED, WAITED, WAITING, encode
from agentq.stores.sqlite import claims, producer
from agentq.stores.sqlite.desk import INLINE_BYTES, INLINE_PAYLOAD_BYTES, Desk, News
from agentq.stores.sqlite.rows import ENTRY_COLUMNS, entry_from, length
from agentq.stores.sqlite.schema import SEQ_BITS, SEQ_MASK, STREAM_BITS, STREAM_MASK

if TYPE_CHECKING:
    from collections.abc import Sequence

    from agentq.message import Chunk, ClaimRef, Entry, Wait, Write

_APPEND: Final = f"""
insert into journal (k, run, kind, branch, step, occurrence, attempt, epoch, args_hash, started_at, ended_at, tokens,
  cost_nanos, value)
select (n << {SEQ_BITS}) | ?1, n, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13
from run where id = ?14 and epoch = ?15 and token = ?16 and state = {RUNNING}
  and (?1 = 0 or exists (select 1 from journal where k = ((run.n << {SEQ_BITS}) | ?1) - 1))
"""  # noqa: S608 - constants

_SPEND: Final = "update run set tokens = tokens + ?, cost_nanos = cost_nanos + ? where id = ?"

_SUCCEED: Final = f"""
update run set state = {SUCCEEDED}, lease_until = null, owner = null, settled = ?, token = null, finished_at = ?,
  result = ?, failure = null, running_s = running_s + ?
where id = ? and epoch = ? and token = ? and state = {RUNNING} and cancelling = 0 and ordering_key is null
  and not exists (select 1 from wait where run = n) and not exists (select 1 from wait where kind = 'child' and ref = id)
"""  # noqa: S608

_ENTRY: Final = """
insert into journal (k, run, kind, branch, step, occurrence, attempt, epoch, args_hash, started_at, ended_at, tokens,
  cost_nanos, value, blob) values (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)
"""


class Redo(Exception):
    """The fast path found entries that need a verdict of their own: roll back, and take the writes one by one."""


def plain(write: Write) -> bool:
    """Whether the fast path may take it: small entries, perhaps a small success, and nothing else."""
    settle = write.settle
    if settle is None:
        if not write.entries:
            return False
    elif type(settle) is not Succeeded or len(settle.result) > INLINE_PAYLOAD_BYTES:
        return False
    if write.waits or write.children or write.signals or write.chunks or write.snapshot or write.progress or write.begins:
        return False
    return all(map(_small, write.entries))


def _small(entry: Entry) -> bool:
    if entry.kind is EntryKind.WAITED or entry.blob is not None or entry.seq > SEQ_MASK:
        return False
    return entry.value is None or len(entry.value) <= INLINE_BYTES


def apply_plain(desk: Desk, writes: Sequence[Write]) -> list[Verdict]:
    """Commit many plain writes at once; a verdict for each.

    Raises:
        Redo: at least one of them is stale, repeated or out of order.
    """
    entries: list[tuple[Any, ...]] = []
    spent: list[tuple[int, int, str]] = []
    for write in writes:
        ref = write.ref
        for entry in write.entries:
            entries.append((entry.seq, *_columns(entry), entry.value, ref.run_id, ref.epoch, ref.token))
            if entry.tokens or entry.cost_nanos:
                spent.append((entry.tokens, entry.cost_nanos, ref.run_id))
    if entries and desk.db.executemany(_APPEND, entries).rowcount != len(entries):
        raise Redo
    if spent:
        desk.db.executemany(_SPEND, spent)
    desk.news = max(desk.news, News.STEPS)
    return [_succeed(desk, write) for write in writes]


def _succeed(desk: Desk, write: Write) -> Verdict:
    """Settle a plain write whose entries are in, if it settles."""
    if type(write.settle) is not Succeeded:
        return Verdict.COMMITTED
    ref = write.ref
    values = (_seal(write), desk.wall, write.settle.result, write.running_s, ref.run_id, ref.epoch, ref.token)
    if desk.db.execute(_SUCCEED, values).rowcount:
        desk.ring(work=False)
        return Verdict.COMMITTED
    # Cancelled, waited for, in a line, or stale: the long way finds out; the entries are repeated there, which is harmless.
    return apply(desk, write)


def _columns(entry: Entry) -> tuple[Any, ...]:
    return (
        KIND_CODES[entry.kind], entry.branch, entry.step, entry.occurrence, entry.attempt, entry.epoch, entry.args_hash,
        entry.started_at, entry.ended_at, entry.tokens, entry.cost_nanos,
    )  # fmt: skip


def apply(desk: Desk, write: Write) -> Verdict:
    """See `WorkerStore.write`: all parts or none (the caller's savepoint), with a verdict."""
    ref = write.ref
    row = desk.db.execute("select n, state, epoch, token, cancelling, settled from run where id = ?", (ref.run_id,)).fetchone()
    if row is None:
        return Verdict.FENCED
    n, state, epoch, token, cancelling, settled = row
    if state != RUNNING or epoch != ref.epoch or token != ref.token:
        return _repeated(write, settled)
    if write.children and cancelling and not _applied(desk, n, write):
        return Verdict.CANCELLED
    desk.news = max(desk.news, News.STEPS)
    _journal(desk, n, write)
    _parts(desk, n, write)
    if write.settle is None:
        return Verdict.COMMITTED
    return _settle(desk, n, ref, write, cancelling=bool(cancelling))


def _seal(write: Write) -> int:
    """Tells a settling write from every other, its own repetition excepted. Kept inverted where the cancel flag came first."""
    return write.ref.token ^ zlib.crc32(encode(write))


def _repeated(write: Write, settled: int | None) -> Verdict:
    """The verdict on a claim that is over: its own settlement once more, or another owner's run."""
    if write.settle is None or settled is None:
        return Verdict.FENCED
    seal = _seal(write)
    return {seal: Verdict.COMMITTED, ~seal: Verdict.CANCELLED}.get(settled, Verdict.FENCED)


def _applied(desk: Desk, n: int, write: Write) -> bool:
    """Whether a write that starts children came before, so that the cancel flag came after it."""
    if write.entries:
        return write.entries[-1].seq < length(desk.db, n)
    query = "select 1 from run where id = ?"
    return all(desk.db.execute(query, (child.id,)).fetchone() for child in write.children)


def _journal(desk: Desk, n: int, write: Write) -> None:
    """Append the entries; those that are there already, as they are, are left."""
    if not write.entries:
        return
    ref = write.ref
    following = length(desk.db, n)
    tokens = cost = 0
    for entry in write.entries:
        if entry.seq < following:
            _same(desk, n, entry, ref)
            continue
        if entry.seq > SEQ_MASK:
            raise StoreError(f"run {ref.run_id}: its journal is full at {SEQ_MASK + 1} entries; split the task into child runs")
        if entry.seq > following:
            raise StoreError(f"run {ref.run_id}: journal entry {entry.seq} leaves a gap; the next is {following}")
        _append(desk, n, write, entry)
        tokens += entry.tokens
        cost += entry.cost_nanos
        following += 1
    if tokens or cost:
        desk.db.execute(_SPEND, (tokens, cost, ref.run_id))


def _append(desk: Desk, n: int, write: Write, entry: Entry) -> None:
    """Insert one entry with what belongs to its kind."""
    value, sha = entry.value, entry.blob
    if value is not None and len(value) > INLINE_BYTES:
        sha = desk.keep(n, value)
        value = None
    try:
        desk.db.execute(_ENTRY, (n << SEQ_BITS | entry.seq, n, *_columns(entry), value, sha))
    except sqlite3.IntegrityError as error:
        raise StoreError(
            f"run {write.ref.run_id}: journal entry {entry.seq} repeats {entry.kind} of step {entry.step!r}"
            f" (branch {entry.branch!r}, occurrence {entry.occurrence}, try {entry.attempt})"
        ) from error
    if entry.kind is EntryKind.WAITED:
        place = (n, entry.branch, entry.step, entry.occurrence)
        desk.db.execute("delete from wait where run = ? and branch = ? and step = ? and occurrence = ?", place)
    elif entry.kind is EntryKind.SAVED and write.snapshot is not None and write.snapshot[0] == entry.branch:
        query = "insert or replace into snapshot (run, branch, seq, payload) values (?, ?, ?, ?)"
        desk.db.execute(query, (n, entry.branch, entry.seq, write.snapshot[1]))


def _same(desk: Desk, n: int, entry: Entry, ref: ClaimRef) -> None:
    """Raise `StoreError` unless the journal holds exactly this entry."""
    key = n << SEQ_BITS | entry.seq
    row = desk.db.execute(f"select {ENTRY_COLUMNS} from journal where k = ? and run = ?", (key, n)).fetchone()  # noqa: S608
    if row is None:
        raise StoreError(f"run {ref.run_id}: journal entry {entry.seq} does not fit; entries count from 0")
    there = entry_from(row)
    value = there.value
    if there.blob is not None and entry.blob is None:
        value = desk.db.execute("select data from blob where sha = ?", (there.blob,)).fetchone()[0]
    if (there.identity, there.kind, there.attempt, there.epoch, value) != (
        entry.identity, entry.kind, entry.attempt, entry.epoch, entry.value,
    ):  # fmt: skip
        raise StoreError(
            f"run {ref.run_id}: journal entry {entry.seq} is {there.kind} of {there.step!r} already,"
            f" not {entry.kind} of {entry.step!r}"
        )


def _parts(desk: Desk, n: int, write: Write) -> None:
    """Everything of a write but its entries and its settlement."""
    db = desk.db
    for wait in write.waits:
        _open(desk, n, wait)
    if write.children:
        (root,) = db.execute("select ifnull(root_id, id) from run where n = ?", (n,)).fetchone()
        producer.submit_children(desk, write.children, parent=write.ref.run_id, root=root)
    for number in write.signals:
        db.execute("update signal set consumed = 1 where n = ? and run = ?", (number, n))
    if write.chunks:
        _stream(desk, n, write.chunks)
    if write.progress is not None:
        db.execute("update run set progress = ?, progress_note = ? where n = ?", (*write.progress, n))
    if write.begins:
        db.execute("update run set suspect = 0, losses = losses + 1 where n = ? and suspect", (n,))


def _open(desk: Desk, n: int, wait: Wait) -> None:
    """Open a wait, unless its end is in the journal already (a repeated write)."""
    place = (n, wait.branch, wait.step, wait.occurrence, wait.attempt)
    desk.db.execute(
        "insert or ignore into wait (run, branch, step, occurrence, attempt, kind, ref, due_at, ask)"
        " select ?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9 where not exists (select 1 from journal"
        " where run = ?1 and kind = ?10 and branch = ?2 and step = ?3 and occurrence = ?4 and attempt >= ?5)",
        (*place, wait.kind.value, wait.ref, wait.due_at, wait.ask, WAITED),
    )


def _stream(desk: Desk, n: int, chunks: Sequence[Chunk]) -> None:
    first = n << STREAM_BITS
    row = desk.db.execute(
        "select k from stream where k between ? and ? order by k desc limit 1", (first, first | STREAM_MASK)
    ).fetchone()
    k = first if row is None else row[0]
    for chunk in chunks:
        values = (k + 1, n, chunk.epoch, chunk.n, chunk.topic, chunk.branch, chunk.at, chunk.payload)
        query = "insert or ignore into stream (k, run, epoch, n, topic, branch, at, payload) values (?, ?, ?, ?, ?, ?, ?, ?)"
        k += desk.db.execute(query, values).rowcount


def _settle(desk: Desk, n: int, ref: ClaimRef, write: Write, *, cancelling: bool) -> Verdict:
    settle = write.settle
    assert settle is not None  # noqa: S101 - narrows; the caller looked
    seal = _seal(write)
    if write.running_s:
        desk.db.execute("update run set running_s = running_s + ? where n = ?", (write.running_s, n))
    if cancelling or isinstance(settle, Cancelled):
        asked = isinstance(settle, Cancelled)
        desk.cancel(n, ref.run_id, settled=seal if asked else ~seal)
        return Verdict.COMMITTED if asked else Verdict.CANCELLED
    if isinstance(settle, Succeeded):
        desk.finish(n, ref.run_id, SUCCEEDED, result=settle.result, settled=seal)
    elif isinstance(settle, Failed):
        desk.finish(n, ref.run_id, FAILED, failure=settle.failure, settled=seal)
    else:
        _hand_back(desk, n, settle, seal)
    return Verdict.COMMITTED


def _hand_back(desk: Desk, n: int, settle: Retried | Suspended | Released | Crashed, seal: int) -> None:
    claimed = desk.db.execute("select claimed from run where n = ?", (n,)).fetchone()[0]
    barren = isinstance(settle, Crashed) and length(desk.db, n) <= claimed
    query = "update run set suspect = ?, deaths = (deaths + 1) * ?, losses = max(0, losses - not suspect) * ? where n = ?"
    desk.db.execute(query, (isinstance(settle, Crashed), barren, barren, n))
    if isinstance(settle, Suspended):
        _suspend(desk, n, seal)
    elif isinstance(settle, Released):
        desk.queue(n, settled=seal)
    else:
        query = "update run set failure = ?, attempt = attempt + ? where n = ?"
        desk.db.execute(query, (encode(settle.failure), isinstance(settle, Retried), n))
        due_at = desk.wall + settle.delay_s if settle.delay_s > 0 else None
        desk.queue(n, due_at=due_at, rank=due_at or desk.wall, settled=seal)


def _suspend(desk: Desk, n: int, seal: int) -> None:
    """Let a run wait, or queue it where a wait is over already (or there is none that could wake it)."""
    db = desk.db
    waits, due_at = db.execute("select count(*), min(due_at) from wait where run = ?", (n,)).fetchone()
    if not waits or (due_at is not None and due_at <= desk.wall) or claims.arrived(db, n):
        desk.queue(n, settled=seal)
        return
    db.execute(
        f"update run set state = {WAITING}, due_at = ?, lease_until = null, token = null, owner = null, settled = ?"  # noqa: S608
        " where n = ?",
        (due_at, seal, n),
    )
    desk.place(n)
    # An idle worker has to hear of the timer, else it would sleep past it.
    desk.ring(work=due_at is not None)

"""What claims commit that is more than plain entries: a batch of writes in one transaction, each with its own verdict."""

from __future__ import annotations

from dataclasses import dataclass, field
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
    WaitKind,
)
from agentq.stores.columns import FAILED, RUNNING, SUCCEEDED, WAITED, WAITING, encode
from agentq.stores.postgres import lines, submit
from agentq.stores.postgres.desk import Desk, Held, News, arrived
from agentq.stores.postgres.plain import entry_columns, seal
from agentq.stores.postgres.rows import ENTRY_COLUMNS, INLINE_BYTES, entry_from

if TYPE_CHECKING:
    from collections.abc import Sequence

    from agentq.message import Entry, Write
    from agentq.stores.postgres.connection import Db
    from agentq.stores.postgres.rows import Lanes

_LENGTHS: Final = """
select u.n, coalesce((select seq + 1 from ~.journal where run = u.n order by seq desc limit 1), 0)
from unnest($1::bigint[]) as u (n)
"""

_THERE: Final = f"""
select j.run, {ENTRY_COLUMNS.replace("seq,", "j.seq,").replace("value", "coalesce(j.value, b.data)")}
from unnest($1::bigint[], $2::int[]) as u (run, seq)
join ~.journal j on j.run = u.run and j.seq = u.seq left join ~.blob b on b.sha = j.blob
"""  # noqa: S608 - constants

_APPEND: Final = """
insert into ~.journal (run, seq, kind, branch, step, occurrence, attempt, epoch, args_hash, started_at, ended_at, tokens,
  cost_nanos, value, blob)
select * from unnest($1::bigint[], $2::int[], $3::smallint[], $4::text[], $5::text[], $6::int[], $7::int[], $8::int[],
  $9::text[], $10::float8[], $11::float8[], $12::bigint[], $13::bigint[], $14::bytea[], $15::text[])
"""

_CLOSE: Final = """
delete from ~.wait w using unnest($1::bigint[], $2::text[], $3::text[], $4::int[]) as u (run, branch, step, occurrence)
where w.run = u.run and w.branch = u.branch and w.step = u.step and w.occurrence = u.occurrence
"""

_OPEN: Final = """
insert into ~.wait (run, branch, step, occurrence, kind, ref, due_at, ask, attempt)
select u.* from unnest($1::bigint[], $2::text[], $3::text[], $4::int[], $5::text[], $6::text[], $7::float8[], $8::text[],
  $9::int[]) as u (run, branch, step, occurrence, kind, ref, due_at, ask, attempt)
where not exists (select 1 from ~.journal j where j.run = u.run and j.kind = $10 and j.branch = u.branch and j.step = u.step
  and j.occurrence = u.occurrence and j.attempt >= u.attempt)
on conflict do nothing
"""

_SNAPSHOT: Final = """
insert into ~.snapshot (run, branch, seq, payload) select * from unnest($1::bigint[], $2::text[], $3::int[], $4::bytea[])
on conflict (run, branch) do update set seq = excluded.seq, payload = excluded.payload
"""

# Offsets are given under the run's lock; a repeated chunk leaves a gap in them, which nobody minds.
_STREAM: Final = """
insert into ~.stream (run, "offset", epoch, n, topic, branch, at, payload)
select u.run, coalesce((select s."offset" from ~.stream s where s.run = u.run order by s."offset" desc limit 1), 0) + u.place,
  u.epoch, u.n, u.topic, u.branch, u.at, u.payload
from unnest($1::bigint[], $2::bigint[], $3::int[], $4::bigint[], $5::text[], $6::text[], $7::float8[], $8::bytea[])
  as u (run, place, epoch, n, topic, branch, at, payload)
on conflict do nothing
"""

_CONSUME: Final = """
update ~.signal s set consumed = true from unnest($1::bigint[], $2::bigint[]) as u (run, n) where s.n = u.n and s.run = u.run
"""

_WAITING: Final = "select run, count(*), min(due_at) from ~.wait where run = any($1::bigint[]) group by run"


@dataclass(slots=True)
class _Rows:
    """What a batch adds to the tables, a list of rows for each statement."""

    entries: list[tuple[Any, ...]] = field(default_factory=list)
    closed: list[tuple[Any, ...]] = field(default_factory=list)
    opened: list[tuple[Any, ...]] = field(default_factory=list)
    snapshots: list[tuple[Any, ...]] = field(default_factory=list)
    chunks: list[tuple[Any, ...]] = field(default_factory=list)
    consumed: list[tuple[Any, ...]] = field(default_factory=list)
    families: list[tuple[Any, tuple[str, str]]] = field(default_factory=list)


class Batch:
    """Writes of different runs, in one transaction."""

    def __init__(self, db: Db, lanes: Lanes, writes: Sequence[Write]) -> None:
        """``lanes`` knows those of all children."""
        self.desk = Desk(db)
        self._db = db
        self._lanes = lanes
        self._writes = writes
        self._lengths: dict[int, int] = {}
        self._there: dict[tuple[int, int], Entry] = {}
        self._children: set[str] = set()
        self._rows = _Rows()
        self._suspending: list[tuple[Held, int]] = []

    async def apply(self) -> list[Verdict | StoreError]:
        """A verdict for each write, or why it cannot be; such a one changed nothing. Not yet committed."""
        await self._look()
        verdicts = [self._judge(write) for write in self._writes]
        await self._add()
        await self._suspend()
        await self.desk.save()
        return verdicts

    async def _look(self) -> None:
        """Lock what the writes touch, then read what they are judged by."""
        await lines.hold(self._db, [child for write in self._writes for child in write.children])
        ids = {write.ref.run_id for write in self._writes}
        ids |= {wait.ref for write in self._writes for wait in write.waits if wait.kind is WaitKind.CHILD}
        await self.desk.lock(
            ids,
            suspending=[write.ref.run_id for write in self._writes if isinstance(write.settle, Suspended)],
            finishing=[write.ref.run_id for write in self._writes if write.settle is not None],
            failing=[write.ref.run_id for write in self._writes if isinstance(write.settle, Failed)],
        )
        numbers = [run.n for write in self._writes if (run := self.desk.held.get(write.ref.run_id)) is not None]
        self._lengths = dict(await self._db.fetch(_LENGTHS, numbers))
        asked = [
            (run.n, entry.seq)
            for write in self._writes
            if (run := self.desk.held.get(write.ref.run_id)) is not None
            for entry in write.entries
            if entry.seq < self._lengths[run.n]
        ]
        if asked:
            for row in await self._db.fetch(_THERE, *_columns(asked)):
                entry = entry_from(row[1:])
                self._there[row[0], entry.seq] = entry
        children = [child.id for write in self._writes if not write.entries for child in write.children]
        if children:
            query = "select id from ~.run where id = any($1::text[])"
            self._children = {row[0] for row in await self._db.fetch(query, children)}

    def _judge(self, write: Write) -> Verdict | StoreError:
        ref = write.ref
        run = self.desk.held.get(ref.run_id)
        if run is None:
            return Verdict.FENCED
        if run.state != RUNNING or run.epoch != ref.epoch or run.token != ref.token:
            return _repeated(write, run.settled)
        if write.children and run.cancelling and not self._applied(run, write):
            return Verdict.CANCELLED
        try:
            fresh = self._fresh(run, write)
        except StoreError as error:
            return error
        self.desk.news = max(self.desk.news, News.STEPS)
        self._record(run, write, fresh)
        return Verdict.COMMITTED if write.settle is None else self._settle(run, write)

    def _applied(self, run: Held, write: Write) -> bool:
        """Whether a write that starts children came before, so that the cancel flag came after it."""
        if write.entries:
            return write.entries[-1].seq < self._lengths[run.n]
        return all(child.id in self._children for child in write.children)

    def _fresh(self, run: Held, write: Write) -> list[Entry]:
        """The entries that the journal does not have yet, which must go on where it ends. `StoreError` otherwise."""
        following = self._lengths[run.n]
        fresh: list[Entry] = []
        for entry in write.entries:
            if entry.seq < self._lengths[run.n]:
                self._same(run, entry)
                continue
            if entry.seq != following:
                raise StoreError(f"run {run.id}: journal entry {entry.seq} leaves a gap; the next is {following}")
            fresh.append(entry)
            following += 1
        return fresh

    def _same(self, run: Held, entry: Entry) -> None:
        """Raise `StoreError` unless the journal holds exactly this entry."""
        there = self._there.get((run.n, entry.seq))
        if there is None:
            raise StoreError(f"run {run.id}: journal entry {entry.seq} does not fit; entries count from 0")
        same = (there.identity, there.kind, there.attempt, there.epoch) == (
            entry.identity, entry.kind, entry.attempt, entry.epoch,
        )  # fmt: skip
        if not same or (there.value != entry.value and entry.blob is None):
            raise StoreError(
                f"run {run.id}: journal entry {entry.seq} is {there.kind} of {there.step!r} already,"
                f" not {entry.kind} of {entry.step!r}"
            )

    def _record(self, run: Held, write: Write, fresh: list[Entry]) -> None:
        """Note down all parts of a write but its settlement."""
        rows, n = self._rows, run.n
        for entry in fresh:
            self._append(run, write, entry)
        for wait in write.waits:
            rows.opened.append((
                n, wait.branch, wait.step, wait.occurrence, wait.kind.value, wait.ref, wait.due_at, wait.ask, wait.attempt,
            ))  # fmt: skip
            child = self.desk.held.get(wait.ref) if wait.kind is WaitKind.CHILD else None
            if child is not None and not child.watched and not child.final:
                child.watched = True
                self.desk.change(child)
        kin = (run.id, run.root_id or run.id)
        rows.families += [(envelope, kin) for envelope in write.children]
        rows.consumed += [(n, number) for number in write.signals]
        rows.chunks += [
            (n, place, chunk.epoch, chunk.n, chunk.topic, chunk.branch, chunk.at, chunk.payload)
            for place, chunk in enumerate(write.chunks, 1)
        ]
        if write.progress is not None:
            run.progress, run.progress_note = write.progress
            self.desk.change(run)
        if write.begins and run.suspect:
            run.suspect, run.losses = False, run.losses + 1
            self.desk.change(run)

    def _append(self, run: Held, write: Write, entry: Entry) -> None:
        """Note down one entry with what belongs to its kind."""
        value, sha = entry.value, entry.blob
        if value is not None and len(value) > INLINE_BYTES:
            sha = self.desk.keep(run.n, value)
            value = None
        self._rows.entries.append((run.n, *entry_columns(entry), value, sha))
        if entry.tokens or entry.cost_nanos:
            run.tokens += entry.tokens
            run.cost_nanos += entry.cost_nanos
            self.desk.change(run)
        if entry.kind is EntryKind.WAITED:
            self._rows.closed.append((run.n, entry.branch, entry.step, entry.occurrence))
        elif entry.kind is EntryKind.SAVED and write.snapshot is not None and write.snapshot[0] == entry.branch:
            self._rows.snapshots.append((run.n, entry.branch, entry.seq, write.snapshot[1]))

    def _settle(self, run: Held, write: Write) -> Verdict:
        settle, settled = write.settle, seal(write)
        run.running_s += write.running_s
        if run.cancelling or isinstance(settle, Cancelled):
            asked = isinstance(settle, Cancelled)
            self.desk.cancel(run, settled=settled if asked else ~settled)
            return Verdict.COMMITTED if asked else Verdict.CANCELLED
        if isinstance(settle, Succeeded):
            self.desk.finish(run, SUCCEEDED, result=settle.result, settled=settled)
        elif isinstance(settle, Failed):
            self.desk.finish(run, FAILED, failure=settle.failure, settled=settled)
        else:
            assert settle is not None  # noqa: S101 - narrows; the caller looked
            self._hand_back(run, write, settle, settled)
        return Verdict.COMMITTED

    def _hand_back(self, run: Held, write: Write, settle: Retried | Suspended | Released | Crashed, settled: int) -> None:
        crashed = isinstance(settle, Crashed)
        grown = max([self._lengths[run.n], *(entry.seq + 1 for entry in write.entries)]) > run.claimed
        barren = crashed and not grown
        run.deaths, run.losses = (run.deaths + 1, max(0, run.losses - (not run.suspect))) if barren else (0, 0)
        run.suspect = crashed
        if isinstance(settle, Suspended):
            self._suspending.append((run, settled))
        elif isinstance(settle, Released):
            self.desk.queue(run, settled=settled)
        else:
            run.fails, run.failure = True, encode(settle.failure)
            run.attempt += isinstance(settle, Retried)
            due_at = self.desk.wall + settle.delay_s if settle.delay_s > 0 else None
            self.desk.queue(run, due_at=due_at, rank=due_at or self.desk.wall, settled=settled)

    async def _add(self) -> None:
        """Insert what was noted down. Waits are closed before others are opened, and opened before children go in."""
        rows, db = self._rows, self._db
        if rows.entries:
            await db.fetch(_APPEND, *_columns(rows.entries))
        if rows.closed:
            await db.fetch(_CLOSE, *_columns(rows.closed))
        if rows.opened:
            await db.fetch(_OPEN, *_columns(rows.opened), WAITED)
        if rows.families:
            envelopes, kin = zip(*rows.families, strict=True)
            if (await submit.insert(db, self._lanes, envelopes, parents=kin)).numbers:
                self.desk.ring(work=True)
        if rows.snapshots:
            await db.fetch(_SNAPSHOT, *_columns(list({row[:2]: row for row in rows.snapshots}.values())))
        if rows.chunks:
            await db.fetch(_STREAM, *_columns(rows.chunks))
        if rows.consumed:
            await db.fetch(_CONSUME, *_columns(rows.consumed))

    async def _suspend(self) -> None:
        """Let runs wait, or queue them where a wait is over already (or there is none that could wake them)."""
        if not self._suspending:
            return
        desk, numbers = self.desk, [run.n for run, _ in self._suspending]
        waits = {row[0]: row[1:] for row in await self._db.fetch(_WAITING, numbers)}
        over = await arrived(self._db, numbers)
        for run, settled in self._suspending:
            count, due_at = waits.get(run.n, (0, None))
            if not count or (due_at is not None and due_at <= desk.wall) or run.n in over:
                desk.queue(run, settled=settled)
                continue
            run.state, run.due_at, run.settled = WAITING, due_at, settled
            desk.change(run)
            # An idle worker has to hear of the timer, else it would sleep past it.
            desk.ring(work=due_at is not None)


def _repeated(write: Write, settled: int | None) -> Verdict:
    """The verdict on a claim that is over: its own settlement once more, or another owner's run."""
    if write.settle is None or settled is None:
        return Verdict.FENCED
    mine = seal(write)
    return {mine: Verdict.COMMITTED, ~mine: Verdict.CANCELLED}.get(settled, Verdict.FENCED)


def _columns(rows: Sequence[tuple[Any, ...]]) -> list[list[Any]]:
    return [list(column) for column in zip(*rows, strict=True)]

"""Rows and values: how runs, entries, waits and chunks lie in the tables."""

from __future__ import annotations

import sqlite3
from typing import TYPE_CHECKING, Any, Final, TypeAlias

from agentq.message import Chunk, Entry, Run, Wait
from agentq.stores.columns import KINDS, STATES, WAIT_COLUMNS, failure_from, tags_decoder, wait_from
from agentq.stores.sqlite.schema import SEQ_BITS, SEQ_MASK, STREAM_MASK

if TYPE_CHECKING:
    from collections.abc import Sequence

Row: TypeAlias = tuple[Any, ...]

RUN_COLUMNS: Final = (
    "id, lane, state, args, args_hash, submitted_at, epoch, attempt, priority, key, tenant, tags, version, due_at, deadline,"
    " timeout_s, max_attempts, started_at, finished_at, running_s, owner, lease_until, parent_id, root_id, fork_of,"
    " traceparent, result, failure, cancelling, paused, suspect, deaths, takeovers, progress, progress_note, tokens,"
    " cost_nanos, args_blob, result_blob, n, claimed, token, ordering_key, losses"
)
ENTRY_COLUMNS: Final = (
    "k, kind, branch, step, occurrence, attempt, epoch, args_hash, started_at, ended_at, tokens, cost_nanos, blob, value"
)


class Lanes:
    """The (app, queue, task) combinations, which runs name by number. One per connection."""

    def __init__(self, db: sqlite3.Connection) -> None:
        """Keep what ``db`` has told."""
        self._db = db
        self._ids: dict[tuple[str, str, str], int] = {}
        self._names: dict[int, tuple[str, str, str]] = {}

    def forget(self) -> None:
        """After a rollback: numbers may have been given that no longer exist."""
        self._ids.clear()
        self._names.clear()

    def load(self) -> dict[tuple[str, str, str], int]:
        """All lanes there are now."""
        newest = self._db.execute("select max(id) from lane").fetchone()[0] or 0
        if newest not in self._names and newest:
            for number, app, queue, task in self._db.execute("select id, app, queue, task from lane"):
                self._names[number] = (app, queue, task)
                self._ids[(app, queue, task)] = number
        return self._ids

    def number(self, app: str, queue: str, task: str) -> int:
        """The lane's number; it is made if need be (inside a write transaction)."""
        key = (app, queue, task)
        found = self._ids.get(key)
        if found is None:
            self._db.execute("insert or ignore into lane (app, queue, task) values (?, ?, ?)", key)
            self.load()
            row = self._db.execute("select id from lane where app = ? and queue = ? and task = ?", key).fetchone()
            found = self._ids[key] = int(row[0])
            self._names[found] = key
        return found

    def name(self, number: int) -> tuple[str, str, str]:
        """(app, queue, task) of a lane."""
        found = self._names.get(number)
        if found is None:
            self.load()
            found = self._names[number]
        return found


def blob(db: sqlite3.Connection, sha: str) -> bytes | None:
    """The bytes behind a content address."""
    row = db.execute("select data from blob where sha = ?", (sha,)).fetchone()
    return None if row is None else row[0]


def run_from(
    row: Row, lanes: Lanes, db: sqlite3.Connection, steady: float, *, entries: int = 0, steps: int = 0, last_step: str = ""
) -> Run:
    """A `Run` from a row of `RUN_COLUMNS`."""
    app, queue, task = lanes.name(row[1])
    return Run(
        id=row[0],
        app=app,
        task=task,
        queue=queue,
        state=STATES[row[2]],
        args=row[3] if row[37] is None else blob(db, row[37]) or b"",
        args_hash=row[4],
        submitted_at=row[5],
        epoch=row[6],
        attempt=row[7],
        priority=row[8],
        key=row[9],
        tenant=row[10],
        tags=tags_decoder.decode(row[11]) if row[11] else {},
        version=row[12],
        due_at=row[13],
        deadline=row[14],
        timeout_s=row[15],
        max_attempts=row[16],
        started_at=row[17],
        finished_at=row[18],
        running_s=row[19],
        owner=row[20],
        lease_s=None if row[21] is None else row[21] - steady,
        parent_id=row[22],
        root_id=row[23],
        fork_of=row[24],
        ordering_key=row[42],
        traceparent=row[25],
        result=row[26] if row[38] is None else blob(db, row[38]),
        failure=failure_from(row[27]),
        cancelling=bool(row[28]),
        paused=bool(row[29]),
        suspect=bool(row[30]),
        deaths=row[31],
        losses=row[43],
        takeovers=row[32],
        progress=row[33],
        progress_note=row[34],
        tokens=row[35],
        cost_nanos=row[36],
        entries=entries,
        steps=steps,
        last_step=last_step,
    )


def entry_from(row: Row) -> Entry:
    """An `Entry` from a row of `ENTRY_COLUMNS`."""
    k, kind, branch, step, occurrence, attempt, epoch, args_hash, started, ended, tokens, cost, sha, value = row
    return Entry(
        seq=k & SEQ_MASK,
        kind=KINDS[kind],
        step=step,
        branch=branch,
        occurrence=occurrence,
        attempt=attempt,
        epoch=epoch,
        args_hash=args_hash,
        value=value,
        blob=sha,
        started_at=started,
        ended_at=ended,
        tokens=tokens,
        cost_nanos=cost,
    )


def chunk_from(row: Row) -> Chunk:
    """A `Chunk` from (k, epoch, n, topic, branch, at, payload)."""
    k, epoch, n, topic, branch, at, payload = row
    return Chunk(topic=topic, payload=payload, epoch=epoch, n=n, at=at, branch=branch, offset=k & STREAM_MASK)


def length(db: sqlite3.Connection, n: int) -> int:
    """How many entries the journal of run number ``n`` has."""
    first = n << SEQ_BITS
    row = db.execute(
        "select k from journal where k between ? and ? order by k desc limit 1", (first, first | SEQ_MASK)
    ).fetchone()
    return 0 if row is None else (row[0] & SEQ_MASK) + 1


def journal(db: sqlite3.Connection, n: int, after: int = -1) -> list[Entry]:
    """Entries of run number ``n`` with ``seq > after``."""
    first = n << SEQ_BITS
    return [
        entry_from(row)
        for row in db.execute(
            f"select {ENTRY_COLUMNS} from journal where k between ? and ? order by k",  # noqa: S608 - a constant
            (first + max(after + 1, 0), first | SEQ_MASK),
        )
    ]


def waits(db: sqlite3.Connection, n: int) -> list[Wait]:
    """Open waits of run number ``n``."""
    return [wait_from(row) for row in db.execute(f"select {WAIT_COLUMNS} from wait where run = ?", (n,))]  # noqa: S608


def marks(values: Sequence[object]) -> str:
    """Placeholders for an ``in`` list."""
    return ",".join("?" * len(values))

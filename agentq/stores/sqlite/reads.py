"""What readers ask of a snapshot of the file: runs, inboxes, streams."""

from __future__ import annotations

import sqlite3
from typing import TYPE_CHECKING, Any, Final

from agentq.journal import RESERVED
from agentq.message import Arrival, Chunk, Run, RunQuery, WaitKind
from agentq.stores.columns import CODES, DONE, STATES, failure_from
from agentq.stores.sqlite import rows
from agentq.stores.sqlite.rows import RUN_COLUMNS, Row
from agentq.stores.sqlite.schema import SEQ_BITS, SEQ_MASK, STREAM_BITS, STREAM_MASK

if TYPE_CHECKING:
    from collections.abc import Sequence

    from agentq.stores.sqlite.desk import Desk

PREFIX_CHARS: Final = 4
"""Shorter run id prefixes match nothing."""

_STEPS: Final = f"select count(*) from journal where run = ? and kind = ? and step not like '{RESERVED}%'"  # noqa: S608
"""What the context records for itself is no step."""
_OWNED: Final = "n in (select n from run indexed by run_lease where lease_until is not null and owner = ?)"
"""Leased runs are few; without the hint SQLite walks all runs, newest first."""


def number(db: sqlite3.Connection, run_id: str) -> int | None:
    """The row number of a run."""
    row = db.execute("select n from run where id = ?", (run_id,)).fetchone()
    return None if row is None else row[0]


def runs(desk: Desk, query: RunQuery) -> list[Run]:
    """See `ReaderStore.runs`."""
    found: dict[int, Row] = {}
    limit = max(query.limit, 0)
    for where, values in _ranges(desk, query):
        sql = f"select {RUN_COLUMNS} from run where {where} order by n desc limit ?"  # noqa: S608 - constants
        found.update((row[39], row) for row in desk.db.execute(sql, (*values, limit)))
    return [_run(desk, found[n]) for n in sorted(found, reverse=True)[:limit]]


def _run(desk: Desk, row: Row) -> Run:
    db, n = desk.db, row[39]
    first = n << SEQ_BITS
    last = db.execute(
        "select k, step from journal where k between ? and ? order by k desc limit 1", (first, first | SEQ_MASK)
    ).fetchone()
    if last is None:
        return rows.run_from(row, desk.lanes, db, desk.steady)
    (done,) = db.execute(_STEPS, (n, DONE)).fetchone()
    return rows.run_from(row, desk.lanes, db, desk.steady, entries=(last[0] & SEQ_MASK) + 1, steps=done, last_step=last[1])


def _ranges(desk: Desk, query: RunQuery) -> list[tuple[str, tuple[Any, ...]]]:
    """Conditions that together give the answer, each served by one range of one index."""
    filters, values = _filters(query)
    states = [CODES[state] for state in query.states]
    if query.ids:
        filters += _lanes_filter(desk, query)
        return [_and(filters, values, *_identity(desk.db, id_), states=states) for id_ in query.ids]
    if filters:
        return [_and([*filters, *_lanes_filter(desk, query)], values, states=states)]
    lanes = _lanes(desk, query)
    if lanes is None and not states:
        return [("1", ())]
    numbers = desk.lanes.load().values() if lanes is None else lanes
    return [
        (f"lane = {lane} and state = {state}", ()) for lane in numbers for state in (states or range(len(STATES)))
    ]  # fmt: skip


def _filters(query: RunQuery) -> tuple[list[str], list[Any]]:
    wanted = {"parent_id = ?": query.parent_id, "tenant = ?": query.tenant, _OWNED: query.owner}
    given = {part: value for part, value in wanted.items() if value is not None}
    return list(given), list(given.values())


def _identity(db: sqlite3.Connection, run_id: str) -> tuple[str, tuple[str, ...]]:
    if len(run_id) < PREFIX_CHARS or number(db, run_id) is not None:
        return "id = ?", (run_id,)
    return "id >= ? and id < ?", (run_id, run_id + "\U0010ffff")


def _and(
    filters: list[str], values: list[Any], extra: str = "", more: tuple[Any, ...] = (), *, states: list[int]
) -> tuple[str, tuple[Any, ...]]:
    parts = [*filters, *([extra] if extra else [])]
    if states:
        parts.append(f"state in ({','.join(map(str, states))})")
    return " and ".join(parts), (*values, *more)


def _lanes(desk: Desk, query: RunQuery) -> list[int] | None:
    """Numbers of the lanes that the query names; None where it names none."""
    if query.queue is None and query.task is None:
        return None
    return [
        lane
        for (_, queue, task), lane in desk.lanes.load().items()
        if query.queue in {None, queue} and query.task in {None, task}
    ]


def _lanes_filter(desk: Desk, query: RunQuery) -> list[str]:
    lanes = _lanes(desk, query)
    return [] if lanes is None else [f"lane in ({','.join(map(str, lanes))})"]


def stream(db: sqlite3.Connection, run_id: str, after: int, limit: int) -> list[Chunk]:
    """See `ReaderStore.stream`."""
    n = number(db, run_id)
    if n is None:
        return []
    first = n << STREAM_BITS
    query = "select k, epoch, n, topic, branch, at, payload from stream where k > ? and k <= ? order by k limit ?"
    return [rows.chunk_from(row) for row in db.execute(query, (first + max(after, 0), first | STREAM_MASK, limit))]


def inbox(db: sqlite3.Connection, run_ids: Sequence[str]) -> list[Arrival]:
    """See `WorkerStore.inbox`."""
    found: list[Arrival] = []
    for run_id in dict.fromkeys(run_ids):
        n = number(db, run_id)
        if n is None:
            continue
        waits = db.execute("select distinct kind, ref from wait where run = ?", (n,)).fetchall()
        for kind, ref in waits:
            if kind == WaitKind.SIGNAL.value:
                query = "select n, payload from signal where run = ? and name = ? and consumed = 0 order by n"
                found += [
                    Arrival(run_id=run_id, kind=WaitKind.SIGNAL, ref=ref, signal=at, payload=payload)
                    for at, payload in db.execute(query, (n, ref))
                ]
            elif kind == WaitKind.CHILD.value:
                found += _child(db, run_id, ref)
    return sorted(found, key=lambda arrival: arrival.signal)


def _child(db: sqlite3.Connection, run_id: str, ref: str) -> list[Arrival]:
    row = db.execute(
        "select state, result, result_blob, failure, tokens, cost_nanos from run where id = ? and state >= 4", (ref,)
    ).fetchone()
    if row is None:
        return []
    state, result, sha, failure, tokens, cost = row
    payload = result if sha is None else rows.blob(db, sha)
    arrival = Arrival(
        run_id=run_id,
        kind=WaitKind.CHILD,
        ref=ref,
        payload=b"null" if payload is None else payload,
        state=STATES[state],
        failure=failure_from(failure),
        tokens=tokens,
        cost_nanos=cost,
    )
    return [arrival]

"""What readers ask: runs, inboxes, streams. Each is one snapshot per statement, and waits for nobody."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from agentq.journal import RESERVED
from agentq.message import Arrival, WaitKind
from agentq.stores.columns import CODES, DONE, STATES, failure_from
from agentq.stores.postgres import rows
from agentq.stores.postgres.rows import RUN_COLUMNS

if TYPE_CHECKING:
    from collections.abc import Sequence

    from agentq.message import Chunk, Entry, Run, RunQuery, Wait
    from agentq.stores.postgres.connection import Db
    from agentq.stores.postgres.rows import Lanes, Row

PREFIX_CHARS: Final = 4
"""Shorter run id prefixes match nothing."""

_LENGTHS: Final = f"""
select u.n, l.seq + 1,
  (select count(*) from ~.journal j where j.run = u.n and j.kind = {DONE} and not starts_with(j.step, '{RESERVED}')), l.step
from unnest($1::bigint[]) as u (n)
cross join lateral (select seq, step from ~.journal where run = u.n order by seq desc limit 1) l
"""  # noqa: S608 - a constant

_SIGNALS: Final = """
select r.id, s.name, s.n, s.payload from ~.run r
cross join lateral (select distinct ref from ~.wait where run = r.n and kind = 'signal' offset 0) w
join ~.signal s on s.run = r.n and s.name = w.ref and not s.consumed
where r.id = any($1::text[]) order by s.n
"""
_CHILDREN: Final = """
select p.id, c.id, c.state, coalesce(c.result, b.data), c.failure, c.tokens, c.cost_nanos from ~.run p
cross join lateral (select distinct ref from ~.wait where run = p.n and kind = 'child' offset 0) w
join ~.run c on c.id = w.ref and c.state >= 4 left join ~.blob b on b.sha = c.result_blob
where p.id = any($1::text[])
"""


async def runs(db: Db, lanes: Lanes, query: RunQuery) -> list[Run]:
    """See `ReaderStore.runs`."""
    found: dict[int, Row] = {}
    limit = max(query.limit, 0)
    for where, values in await _ranges(db, lanes, query):
        sql = f"select {RUN_COLUMNS} from ~.run r where {where} order by r.n desc limit ${len(values) + 1}"  # noqa: S608
        found.update((rows.number(row), row) for row in await db.fetch(sql, *values, limit))
    wanted = [found[n] for n in sorted(found, reverse=True)[:limit]]
    lengths = {row[0]: row for row in await db.fetch(_LENGTHS, [rows.number(row) for row in wanted])} if wanted else {}
    return await rows.runs_from(db, lanes, wanted, lengths)


async def _ranges(db: Db, lanes: Lanes, query: RunQuery) -> list[tuple[str, tuple[Any, ...]]]:
    """Conditions that together give the answer, each served by one range of one index."""
    # The owner stands on leased runs alone, which are few and have an index of their own.
    wanted: dict[str, Any] = {
        "r.parent_id = ${}": query.parent_id,
        "r.tenant = ${}": query.tenant,
        "r.lease_until is not null and r.owner = ${}": query.owner,
    }
    given = [(part, value) for part, value in wanted.items() if value is not None]
    states = [CODES[state] for state in query.states]
    names = await lanes.load(db)
    numbers = [
        lane
        for lane, (_, queue, task) in names.items()
        if query.queue in {None, queue} and query.task in {None, task}
    ]  # fmt: skip
    if query.queue is not None or query.task is not None:
        given.append(("r.lane = any(${}::int[])", numbers))
        named = True
    else:
        named = False
    narrow = bool(query.ids) or len(given) > named
    if states and narrow:
        given.append(("r.state = any(${}::smallint[])", states))
    if query.ids:
        return [_and([*given, *await _identity(db, run_id)]) for run_id in query.ids]
    if narrow:
        return [_and(given)]
    if not named and not states:
        return [("true", ())]
    return [
        ("r.lane = $1 and r.state = $2", (lane, state)) for lane in numbers for state in (states or range(len(STATES)))
    ]  # fmt: skip


def _and(given: Sequence[tuple[str, Any]]) -> tuple[str, tuple[Any, ...]]:
    return (
        " and ".join(part.format(place) for place, (part, _) in enumerate(given, 1)),
        tuple(value for _, value in given),
    )


async def _identity(db: Db, run_id: str) -> list[tuple[str, str]]:
    if len(run_id) < PREFIX_CHARS or await db.value("select 1 from ~.run where id = $1", run_id):
        return [("r.id = ${}", run_id)]
    return [("r.id >= ${}", run_id), ("r.id < ${}", run_id + "\U0010ffff")]


async def journal(db: Db, run_id: str, after: int) -> list[Entry]:
    """See `ReaderStore.journal`."""
    n = await db.value("select n from ~.run where id = $1", run_id)
    return [] if n is None else await rows.journal(db, n, after)


async def waits(db: Db, run_id: str) -> list[Wait]:
    """See `ReaderStore.waits`."""
    n = await db.value("select n from ~.run where id = $1", run_id)
    return [] if n is None else await rows.waits(db, n)


async def stream(db: Db, run_id: str, after: int, limit: int) -> list[Chunk]:
    """See `ReaderStore.stream`."""
    query = """
    select "offset", epoch, n, topic, branch, at, payload from ~.stream
    where run = (select n from ~.run where id = $1) and "offset" > $2 order by "offset" limit $3
    """
    return [rows.chunk_from(row) for row in await db.fetch(query, run_id, max(after, 0), max(limit, 0))]


async def inbox(db: Db, run_ids: Sequence[str]) -> list[Arrival]:
    """See `WorkerStore.inbox`."""
    ids = list(dict.fromkeys(run_ids))
    children = [
        Arrival(
            run_id=run_id,
            kind=WaitKind.CHILD,
            ref=ref,
            payload=b"null" if payload is None else payload,
            state=STATES[state],
            failure=failure_from(failure),
            tokens=tokens,
            cost_nanos=cost,
        )
        for run_id, ref, state, payload, failure, tokens, cost in await db.fetch(_CHILDREN, ids)
    ]
    signals = [
        Arrival(run_id=run_id, kind=WaitKind.SIGNAL, ref=ref, signal=n, payload=payload)
        for run_id, ref, n, payload in await db.fetch(_SIGNALS, ids)
    ]
    return children + signals

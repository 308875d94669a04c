"""Envelopes become rows."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from agentq.message import RunState, Submitted
from agentq.stores.columns import STATES, encode
from agentq.stores.postgres import lines
from agentq.stores.postgres.desk import keep_blobs
from agentq.stores.postgres.rows import INLINE_BYTES, blobs

if TYPE_CHECKING:
    from collections.abc import Sequence

    from agentq.message import Envelope
    from agentq.stores.postgres.connection import Db
    from agentq.stores.postgres.rows import Lanes

# Numbers are drawn in the order given, because equals start in that order; rows go in by id, so that two submissions of the
# same ids wait for each other in a line. The oldest columns of a run say when it may start, on the server's clock. Who has an
# ordering key stands behind until `lines.advance` looks at the line. `received` does what was asked before these runs came.
_INSERT: Final = """
with fresh as (
insert into ~.run (n, id, lane, state, ready, priority, rank, since, due_at, wake_at, submitted_at, deadline, timeout_s,
  max_attempts, key, tenant, tags, args_hash, parent_id, root_id, fork_of, traceparent, args, args_blob, ordering_key, line,
  behind, watched)
select n, id, lane, 0, line is null and (due_at is null or due_at <= now), priority, coalesce(due_at, submitted_at),
  coalesce(due_at, now), due_at, least(case when line is null and due_at > now then due_at end, deadline), submitted_at,
  deadline, timeout_s, max_attempts, key, tenant, tags, args_hash, parent_id, root_id, fork_of, traceparent, args, args_blob,
  ordering_key, line, line is not null, exists (select 1 from ~.wait w where w.kind = 'child' and w.ref = e.id)
from (
  select nextval('~.run_n') as n, coalesce($1::float8, ~now) as now, u.*
  from unnest($2::text[], $3::int[], $4::bigint[], $5::float8[], $6::float8[], $7::float8[], $8::float8[], $9::bigint[],
    $10::text[], $11::text[], $12::bytea[], $13::text[], $14::text[], $15::text[], $16::text[], $17::text[], $18::bytea[],
    $19::text[], $20::text[], $21::bigint[])
    as u (id, lane, priority, submitted_at, due_at, deadline, timeout_s, max_attempts, key, tenant, tags, args_hash, parent_id,
      root_id, fork_of, traceparent, args, args_blob, ordering_key, line)
  offset 0
) e order by id
on conflict (id) do nothing returning id, n
)
select a.ids, a.numbers, r.gone, r.dead from (select array_agg(id) as ids, array_agg(n) as numbers from fresh) a
cross join lateral ~.received(a.ids, coalesce($1::float8, ~now)) r where a.ids is not null
"""

_STANDING: Final = """
select id, null::bytea, null::text, args_hash, state from ~.tombstone where id = any($1::text[])
union all
select id, args, args_blob, args_hash, state from ~.run where id = any($1::text[])
"""
"""A run comes after a tombstone of the same id, which only a child disregards."""

ATOMIC_SUBMIT: Final = 5000
"""Envelopes in one transaction."""


def lanes_of(envelopes: Sequence[Envelope]) -> set[tuple[str, str, str]]:
    """The lanes that must be known before `submit`."""
    return {(envelope.app, envelope.queue, envelope.task) for envelope in envelopes}


def simple(envelopes: Sequence[Envelope]) -> bool:
    """Whether `insert` is one statement, so that it may be its own transaction."""
    return all(len(envelope.args) <= INLINE_BYTES and envelope.ordering_key is None for envelope in envelopes)


@dataclass(slots=True)
class Created:
    """What an insertion has made."""

    numbers: dict[str, int]
    """By id."""
    cancelled: frozenset[str] = frozenset()
    """Those that were cancelled before they came."""


async def submit(db: Db, lanes: Lanes, envelopes: Sequence[Envelope], *, current: bool = True) -> list[Submitted]:
    """See `ProducerStore.submit`; ``db`` is in a transaction. ``current``: its statements see what is committed meanwhile."""
    return await answers(db, envelopes, await insert(db, lanes, envelopes, current=current))


async def insert(
    db: Db, lanes: Lanes, envelopes: Sequence[Envelope], *, parents: Sequence[tuple[str, str]] = (), current: bool = True
) -> Created:
    """Insert those that do not exist. ``parents``: (parent id, root id) by position.

    Where some have an ordering key their lines stay locked until the transaction ends. Whoever holds rows already must have
    locked them before.
    """
    found = await lines.hold(db, envelopes)
    large = {envelope.id: envelope for envelope in envelopes if len(envelope.args) > INLINE_BYTES}
    shas = {run_id: hashlib.sha256(envelope.args).hexdigest() for run_id, envelope in large.items()}
    family: Sequence[tuple[str | None, str | None]] = parents or [(None, None)] * len(envelopes)
    columns = zip(*(_row(e, lanes, shas.get(e.id), *kin) for e, kin in zip(envelopes, family, strict=True)), strict=True)
    row = await db.row(_INSERT, db.wall, *(list(column) for column in columns))
    if row is None:
        return Created({})
    ids, numbers, gone, dead = row
    created = dict(zip(ids, numbers, strict=True))
    for run_id in gone or ():
        del created[run_id]
    fresh = {shas[run_id]: large[run_id].args for run_id in large.keys() & created.keys()}
    if fresh:
        await keep_blobs(db, fresh, {(created[run_id], shas[run_id]) for run_id in large.keys() & created.keys()})
    if found:
        await (lines.advance if current else lines.vacate)(db, found)
    return Created(created, frozenset(dead or ()))


def _row(envelope: Envelope, lanes: Lanes, sha: str | None, parent: str | None, root: str | None) -> tuple[Any, ...]:
    return (
        envelope.id,
        lanes.number(envelope.app, envelope.queue, envelope.task),
        envelope.priority,
        envelope.submitted_at,
        envelope.due_at,
        envelope.deadline,
        envelope.timeout_s,
        envelope.max_attempts,
        envelope.key,
        envelope.tenant,
        encode(envelope.tags) if envelope.tags else None,
        envelope.args_hash,
        parent if envelope.parent_id is None else envelope.parent_id,
        root if envelope.root_id is None else envelope.root_id,
        envelope.fork_of,
        envelope.traceparent,
        envelope.args if sha is None else None,
        sha,
        envelope.ordering_key,
        lines.line_of(envelope),
    )


async def answers(db: Db, envelopes: Sequence[Envelope], created: Created) -> list[Submitted]:
    """Tell the new from those that stood already, came twice, or were swept."""
    fresh = dict.fromkeys(created.numbers)
    standing: dict[str, Any] = {}
    data: dict[str, bytes] = {}
    if len(fresh) < len(envelopes):
        standing = {row[0]: row for row in await db.fetch(_STANDING, [envelope.id for envelope in envelopes])}
        wanted = {row[2] for row in standing.values() if row[2] is not None}
        data = await blobs(db, wanted) if wanted else {}
    told = []
    for envelope in envelopes:
        if envelope.id in fresh:
            del fresh[envelope.id]
            state = RunState.CANCELLED if envelope.id in created.cancelled else RunState.QUEUED
            told.append(Submitted(id=envelope.id, created=True, args_hash=envelope.args_hash, state=state))
            continue
        _, args, sha, args_hash, code = standing[envelope.id]
        stands = args if sha is None else data.get(sha)
        told.append(Submitted(id=envelope.id, created=False, args=stands, args_hash=args_hash, state=STATES[code]))
    return told

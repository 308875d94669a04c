"""The fast path: many small writes of many runs in one statement, each fenced in its own row."""

from __future__ import annotations

import zlib
from typing import TYPE_CHECKING, Any, Final

from agentq.message import EntryKind, Succeeded
from agentq.stores.columns import KIND_CODES, encode
from agentq.stores.postgres.rows import INLINE_BYTES

if TYPE_CHECKING:
    from collections.abc import Sequence

    from agentq.message import Entry, Write
    from agentq.stores.postgres.connection import Db

_MOST_SEQ: Final = 2**31 - 1

# Every condition is about the locked row itself, because only those are looked at again when the lock had to be waited for:
# the epoch, the token and the state, the cancel flag, and `watched`, by which a run that others wait for goes the long way.
# The journal is looked at as the statement saw it, which may be too early; then the write is answered on the long way too.
# A write's first entry travels beside its claim and the rest apart, because most have one and need no join then.
_COMMIT: Final = """
with held as materialized (
  select a.*, r.n, r.ordered
  from (
    select * from unnest($1::text[], $2::int[], $3::bigint[], $4::bigint[], $5::bigint[], $6::bigint[], $7::bytea[],
      $8::float8[], $9::int[], $10::int[], $11::smallint[], $12::text[], $13::text[], $14::int[], $15::int[], $16::int[],
      $17::text[], $18::float8[], $19::float8[], $20::bigint[], $21::bigint[], $22::bytea[])
      as w (id, fence, token, spent, paid, settled, result, running_s, at, seq, kind, branch, step, occurrence, attempt, epoch,
        args_hash, started_at, ended_at, tokens, cost_nanos, value)
    order by id offset 0
  ) a cross join lateral (
    select n, line is not null as ordered from ~.run where id = a.id and epoch = a.fence and token = a.token and state = 1
      and (a.settled is null or not (cancelling or watched)) for no key update
  ) r
  where (a.seq is null or a.seq = coalesce((select seq + 1 from ~.journal where run = r.n order by seq desc limit 1), 0))
    and (a.settled is null or not exists (select 1 from ~.wait where run = r.n))
), added as (
  insert into ~.journal (run, seq, kind, branch, step, occurrence, attempt, epoch, args_hash, started_at, ended_at, tokens,
    cost_nanos, value)
  select n, seq, kind, branch, step, occurrence, attempt, epoch, args_hash, started_at, ended_at, tokens, cost_nanos, value
  from held where seq is not null
  union all
  select h.n, e.seq, e.kind, e.branch, e.step, e.occurrence, e.attempt, e.epoch, e.args_hash, e.started_at, e.ended_at,
    e.tokens, e.cost_nanos, e.value
  from unnest($23::int[], $24::int[], $25::smallint[], $26::text[], $27::text[], $28::int[], $29::int[], $30::int[],
    $31::text[], $32::float8[], $33::float8[], $34::bigint[], $35::bigint[], $36::bytea[])
    as e (at, seq, kind, branch, step, occurrence, attempt, epoch, args_hash, started_at, ended_at, tokens, cost_nanos, value)
  join held h on h.at = e.at
), changed as (
  update ~.run r set tokens = r.tokens + h.spent, cost_nanos = r.cost_nanos + h.paid,
    state = case when h.settled is null then r.state else 4 end,
    token = case when h.settled is null then r.token end,
    owner = case when h.settled is null then r.owner end,
    lease_until = case when h.settled is null then r.lease_until end,
    settled = coalesce(h.settled, r.settled),
    finished_at = case when h.settled is null then r.finished_at else coalesce($37::float8, ~now) end,
    failure = case when h.settled is null then r.failure end,
    result = case when h.settled is null then r.result else h.result end,
    running_s = r.running_s + h.running_s
  from held h where r.n = h.n and (h.settled is not null or h.spent <> 0 or h.paid <> 0)
)
select at, settled is not null and ordered from held
"""
_NO_ENTRY: Final = (None,) * 13
_NO_ROWS: Final[list[list[Any]]] = [[] for _ in range(14)]


def plain(write: Write) -> bool:
    """Whether the fast path may take it: small entries in a row, perhaps a success, and nothing else."""
    settle = write.settle
    if settle is None:
        if not write.entries:
            return False
    elif type(settle) is not Succeeded or len(settle.result) > INLINE_BYTES:
        return False
    if write.waits or write.children or write.signals or write.chunks or write.snapshot or write.progress or write.begins:
        return False
    first = write.entries[0].seq if write.entries else 0
    return all(entry.seq == seq and _small(entry) for seq, entry in enumerate(write.entries, first))


def _small(entry: Entry) -> bool:
    if entry.kind is EntryKind.WAITED or entry.blob is not None or not 0 <= entry.seq < _MOST_SEQ:
        return False
    return entry.value is None or len(entry.value) <= INLINE_BYTES


def seal(write: Write) -> int:
    """Tells a settling write from every other, its own repetition excepted. Kept inverted where the cancel flag came first."""
    return write.ref.token ^ zlib.crc32(encode(write))


async def commit(db: Db, writes: Sequence[Write]) -> dict[int, bool]:
    """Commit plain writes of different runs in one statement; the positions of those that were committed.

    True stands at those that ended a run with an ordering key. The others changed nothing and want a verdict of their own.
    """
    asked: list[tuple[Any, ...]] = []
    rest: list[tuple[Any, ...]] = []
    for at, write in enumerate(writes):
        ref, settle = write.ref, write.settle
        entries = [(*entry_columns(entry), entry.value) for entry in write.entries]
        rest += [(at, *entry) for entry in entries[1:]]
        asked.append((
            ref.run_id, ref.epoch, ref.token,
            sum(entry.tokens for entry in write.entries), sum(entry.cost_nanos for entry in write.entries),
            *((seal(write), settle.result, write.running_s) if isinstance(settle, Succeeded) else (None, None, 0.0)),
            at, *(entries[0] if entries else _NO_ENTRY),
        ))  # fmt: skip
    columns = [list(column) for column in zip(*asked, strict=True)]
    others = [list(column) for column in zip(*rest, strict=True)] or _NO_ROWS
    return dict(await db.fetch(_COMMIT, *columns, *others, db.wall))


def entry_columns(entry: Entry) -> tuple[Any, ...]:
    """An entry's columns, its number first, its value left out."""
    return (
        entry.seq, KIND_CODES[entry.kind], entry.branch, entry.step, entry.occurrence, entry.attempt, entry.epoch,
        entry.args_hash, entry.started_at, entry.ended_at, entry.tokens, entry.cost_nanos,
    )  # fmt: skip

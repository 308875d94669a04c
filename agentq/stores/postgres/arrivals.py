"""What intake brings beside runs: dead letters, positions of logs, parcels; and commands that come before their run."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING, Any, Final

from agentq.message import Cancel, DeadLetter, Pause, Reply, Resume, Send
from agentq.stores.columns import encode, tags_decoder
from agentq.stores.postgres.desk import keep_blobs
from agentq.stores.postgres.reads import PREFIX_CHARS

if TYPE_CHECKING:
    from collections.abc import Sequence

    from agentq.message import LetterQuery, Position
    from agentq.stores.postgres.connection import Db

_PARCEL_RUN: Final = 0
"""No run has this number: references under it keep the blobs of parcels."""

# Numbers are drawn in the order given; rows go in by id, so that two admissions of the same letters wait in a line.
_LETTERS: Final = """
insert into ~.letter (n, id, queue, body, reason, attributes, origin, received_at)
select l.* from (
  select nextval('~.letter_n') as n, u.*
  from unnest($1::text[], $2::text[], $3::bytea[], $4::text[], $5::bytea[], $6::text[], $7::float8[])
    as u (id, queue, body, reason, attributes, origin, received_at)
  offset 0
) l order by id on conflict (id) do nothing
"""
_LETTER_COLUMNS: Final = "id, queue, body, reason, attributes, origin, received_at"

_POSITIONS: Final = """
insert into ~.position as p (source, partition, "offset")
select source, partition, max("offset") from unnest($1::text[], $2::int[], $3::bigint[]) as u (source, partition, "offset")
group by source, partition order by source, partition
on conflict (source, partition) do update set "offset" = excluded."offset" where excluded."offset" > p."offset"
"""

# Whoever inserts a run of this id meanwhile waits for us, by the index that keeps ids unique, and finds the command then.
_STAND_IN: Final = """
insert into ~.run (id, lane, state, rank, since, submitted_at, args_hash) values ($1, 0, 6, 0, 0, 0, '')
on conflict (id) do nothing returning n
"""
_EARLY: Final = """
insert into ~.early (run_id, kind, name, signal_id, payload, kept_at) values ($1, $2, $3, $4, $5, $6) on conflict do nothing
"""


async def keep_letters(db: Db, letters: Sequence[DeadLetter]) -> None:
    """Keep dead letters; those that are there already stay as they are."""
    if not letters:
        return
    rows = [
        (each.id, each.queue, each.body, each.reason, encode(each.attributes), each.origin, each.received_at)
        for each in letters
    ]
    await db.fetch(_LETTERS, *(list(column) for column in zip(*rows, strict=True)))


async def letters(db: Db, query: LetterQuery) -> list[DeadLetter]:
    """See `ReaderStore.letters`."""
    parts, values = ["true"], list[Any]()
    if query.queue is not None:
        values.append(query.queue)
        parts.append(f"queue = ${len(values)}")
    if query.ids:
        values += [list(query.ids), [each for each in query.ids if len(each) >= PREFIX_CHARS]]
        full, short = len(values) - 1, len(values)
        parts.append(
            f"(id = any(${full}::text[]) or exists (select 1 from unnest(${short}::text[]) as s (prefix)"  # noqa: S608 - constants
            " where starts_with(id, prefix) and not exists (select 1 from ~.letter f where f.id = prefix)))"
        )
    values.append(max(query.limit, 0))
    where = " and ".join(parts)
    sql = f"select {_LETTER_COLUMNS} from ~.letter where {where} order by n desc limit ${len(values)}"  # noqa: S608 - constants
    return [
        DeadLetter(
            id=letter_id,
            queue=queue,
            body=body,
            reason=reason,
            attributes=tags_decoder.decode(attributes),
            origin=origin,
            received_at=received_at,
        )
        for letter_id, queue, body, reason, attributes, origin, received_at in await db.fetch(sql, *values)
    ]


async def drop_letters(db: Db, ids: Sequence[str]) -> Reply:
    """Delete dead letters."""
    gone = await db.fetch("delete from ~.letter where id = any($1::text[]) returning 1", list(ids))
    return Reply.DONE if gone else Reply.UNCHANGED


async def move(db: Db, positions: Sequence[Position]) -> None:
    """Note how far logs have been read; a position never moves back."""
    if positions:
        rows = [(each.source, each.partition, each.offset) for each in positions]
        await db.fetch(_POSITIONS, *(list(column) for column in zip(*rows, strict=True)))


async def positions(db: Db, source: str) -> dict[int, int]:
    """See `IntakeStore.positions`."""
    return dict(await db.fetch('select partition, "offset" from ~.position where source = $1', source))


async def keep(db: Db, data: bytes) -> str:
    """See `ProducerStore.keep`."""
    sha = hashlib.sha256(data).hexdigest()
    # The parcel first: a sweep that is about to drop it is waited for, or finds it young again.
    await db.fetch(
        "insert into ~.parcel (sha, kept_at) values ($1, coalesce($2::float8, ~now))"
        " on conflict (sha) do update set kept_at = excluded.kept_at",
        sha,
        db.wall,
    )
    await keep_blobs(db, {sha: data}, {(_PARCEL_RUN, sha)})
    return sha


async def sweep_parcels(db: Db, kept_s: float) -> list[str]:
    """Forget parcels and early commands that are older; answer the blobs that may have become orphans."""
    await db.fetch("delete from ~.early where kept_at <= coalesce($1::float8, ~now) - $2::float8", db.wall, kept_s)
    query = "delete from ~.parcel where kept_at <= coalesce($1::float8, ~now) - $2::float8 returning sha"
    shas = [row[0] for row in await db.fetch(query, db.wall, kept_s)]
    if shas:
        await db.fetch("delete from ~.blob_ref where run = $1 and sha = any($2::text[])", _PARCEL_RUN, shas)
    return shas


async def wait_for_run(db: Db, order: Cancel | Pause | Resume | Send, wall: float) -> Reply | None:
    """Keep a command until its run comes. None: the run is there after all."""
    n = await db.value(_STAND_IN, order.run_id)
    if n is None:
        return None
    known = await db.value("select 1 from ~.tombstone where id = $1 and until > $2", order.run_id, wall)
    if not known:
        sent = (order.name, order.signal_id, order.payload) if isinstance(order, Send) else (None, None, None)
        await db.fetch(_EARLY, order.run_id, type(order).__name__.lower(), *sent, wall)
    await db.fetch("delete from ~.run where n = $1", n)
    return Reply.NOT_FOUND if known else Reply.DONE

"""How workers keep what they own, and leave it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from agentq.message import Beat, WorkerState
from agentq.stores.columns import encode
from agentq.stores.postgres.desk import arrived

if TYPE_CHECKING:
    from collections.abc import Sequence

    from agentq.message import ClaimRef, Worker
    from agentq.stores.postgres.connection import Db
    from agentq.stores.postgres.rows import Row

_SEEN: Final = """
insert into ~.worker (id, state, seen_at, seen, lease_s, data)
values ($1, $2, coalesce($3::float8, ~now), coalesce($4::float8, ~now), $5, $6)
on conflict (id) do update
  set seen_at = excluded.seen_at, seen = excluded.seen, lease_s = excluded.lease_s, data = excluded.data
returning state
"""

# A row that somebody works on is skipped: its own step is being committed, or a user's transaction holds it and nobody else
# can take it meanwhile. It still is ours, and the next beat renews it.
_RENEW: Final = """
with asked as materialized (
  select * from unnest($1::text[], $2::int[], $3::bigint[]) as a (id, epoch, token)
), free as materialized (
  select r.n from asked a cross join lateral (
    select n from ~.run where id = a.id and epoch = a.epoch and token = a.token and state = 1
    for no key update skip locked) r
), renewed as (
  update ~.run r set lease_until = coalesce($4::float8, ~now) + $5, beat_at = coalesce($4::float8, ~now)
  from free where r.n = free.n
)
select r.n, r.id, r.cancelling, r.paused, exists (select 1 from free where free.n = r.n), a.epoch, a.token
from asked a cross join lateral (
  select * from ~.run where id = a.id and epoch = a.epoch and token = a.token and state = 1 offset 0) r
"""


async def beat(db: Db, worker: Worker, claims: Sequence[ClaimRef], lease_s: float) -> tuple[Beat, list[ClaimRef]]:
    """See `WorkerStore.beat`; also the claims that are ours and could not be renewed just now."""
    state = await db.value(_SEEN, worker.id, worker.state.value, db.wall, db.steady, lease_s, encode(worker))
    found = await renew(db, claims, lease_s)
    mine = {(row[1], row[5], row[6]): row[4] for row in found}
    came = await arrived(db, [row[0] for row in found])
    answer = Beat(
        lost=tuple(ref for ref in claims if (ref.run_id, ref.epoch, ref.token) not in mine),
        cancel=tuple(row[1] for row in found if row[2]),
        pause=tuple(row[1] for row in found if row[3]),
        arrivals=tuple(row[1] for row in found if row[0] in came),
        state=WorkerState(state),
    )
    return answer, [ref for ref in claims if mine.get((ref.run_id, ref.epoch, ref.token)) is False]


async def renew(db: Db, claims: Sequence[ClaimRef], lease_s: float) -> list[Row]:
    """Renew leases; (number, id, cancelling, paused, whether it was renewed, epoch, token) of those that are ours."""
    if not claims:
        return []
    ids, epochs, tokens = zip(*((ref.run_id, ref.epoch, ref.token) for ref in claims), strict=True)
    return await db.fetch(_RENEW, list(ids), list(epochs), list(tokens), db.steady, lease_s)


async def leave(db: Db, worker_id: str) -> None:
    """See `WorkerStore.leave`."""
    await db.fetch("delete from ~.worker where id = $1", worker_id)
    await db.fetch(
        "update ~.run set lease_until = least(lease_until, coalesce($2::float8, ~now))"
        " where lease_until is not null and owner = $1",
        worker_id,
        db.steady,
    )

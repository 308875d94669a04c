"""What a verb works with inside one transaction: runs whose rows it has locked, and the transitions that verbs share.

Rows are locked first, all in the order of their ids, so that transactions wait for each other in a line and not in a ring.
Transitions then change the values in memory, and `Desk.save` writes all of them with one statement.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from enum import IntEnum
from operator import attrgetter
from typing import TYPE_CHECKING, Final

from agentq.message import Failure
from agentq.stores.columns import CANCELLED, FAILED, QUEUED, RUNNING, SUCCEEDED, WAITING, encode
from agentq.stores.postgres.rows import INLINE_BYTES

if TYPE_CHECKING:
    from collections.abc import Iterable

    from agentq.stores.postgres.connection import Db
    from agentq.stores.postgres.rows import Row

_COLUMNS: Final = (
    "n, id, lane, state, epoch, token, cancelling, paused, suspect, deaths, claimed, attempt, submitted_at, due_at, deadline,"
    " rank, since, settled, root_id, running_s, watched, finished_at, progress, progress_note, line, behind, losses"
)

_SUBTREE: Final = """
with recursive tree (id) as (
  select unnest($1::text[]) collate "C"
  union
  select r.id from tree join ~.run r on r.parent_id = tree.id
)
select id from tree
"""

_LOCK: Final = f"""
select r.* from (
  select distinct a.id from (
    select unnest($1::text[]) as id
    union all select w.ref from ~.run p join ~.wait w on w.run = p.n where w.kind = 'child' and p.id = any($2::text[])
    union all select p.id from ~.wait w join ~.run p on p.n = w.run where w.kind = 'child' and w.ref = any($3::text[])
    union all select id from (
      with recursive below (id) as (
        select r.id from ~.run r where r.parent_id = any($4::text[])
        union
        select r.id from below join ~.run r on r.parent_id = below.id
      ) select id from below) b
  ) a order by 1 offset 0
) a cross join lateral (select {_COLUMNS} from ~.run where id = a.id for no key update) r
"""  # noqa: S608 - constants

_LOCK_NUMBERS: Final = f"select {_COLUMNS} from ~.run where n = any($1::bigint[]) order by id for no key update"  # noqa: S608

_SAVE: Final = """
update ~.run r set
  state = v.state, ready = v.ready, due_at = v.due_at, wake_at = v.wake_at, rank = v.rank, since = v.since,
  settled = v.settled, cancelling = v.cancelling, paused = v.paused, suspect = v.suspect, deaths = v.deaths,
  attempt = v.attempt, running_s = v.running_s, watched = v.watched, finished_at = v.finished_at,
  tokens = r.tokens + v.tokens, cost_nanos = r.cost_nanos + v.cost_nanos,
  progress = v.progress, progress_note = v.progress_note,
  failure = case when v.fails then v.failure else r.failure end,
  result = case when v.ends then v.result else r.result end,
  result_blob = case when v.ends then v.result_blob else r.result_blob end,
  token = case when v.state = 1 then r.token end,
  owner = case when v.state = 1 then r.owner end,
  lease_until = case when v.state = 1 then r.lease_until end,
  behind = v.behind, losses = v.losses
from unnest($1::bigint[], $2::smallint[], $3::boolean[], $4::float8[], $5::float8[], $6::float8[], $7::float8[],
  $8::bigint[], $9::boolean[], $10::boolean[], $11::boolean[], $12::int[], $13::int[], $14::float8[], $15::boolean[],
  $16::float8[], $17::bigint[], $18::bigint[], $19::float8[], $20::text[], $21::boolean[], $22::bytea[], $23::boolean[],
  $24::bytea[], $25::text[], $26::boolean[], $27::int[])
  as v (n, state, ready, due_at, wake_at, rank, since, settled, cancelling, paused, suspect, deaths, attempt, running_s,
    watched, finished_at, tokens, cost_nanos, progress, progress_note, fails, failure, ends, result, result_blob, behind,
    losses)
where r.n = v.n
"""


class News(IntEnum):
    """How soon readers should hear of a commit."""

    NONE = 0
    STEPS = 1
    """Something moved: now and then is enough."""
    STATES = 2
    """A run changed its state: somebody may wait for it."""


@dataclass(slots=True, kw_only=True, eq=False)
class Held:
    """A run whose row this transaction has locked. The first fields are columns, the others what is to be added to them."""

    n: int
    id: str
    lane: int
    state: int
    epoch: int
    token: int | None
    cancelling: bool
    paused: bool
    suspect: bool
    deaths: int
    claimed: int
    attempt: int
    submitted_at: float
    due_at: float | None
    deadline: float | None
    rank: float
    since: float
    settled: int | None
    root_id: str | None
    running_s: float
    watched: bool
    finished_at: float | None
    progress: float | None
    progress_note: str
    line: int | None
    behind: bool
    losses: int
    ready: bool = False
    wake_at: float | None = None
    tokens: int = 0
    cost_nanos: int = 0
    fails: bool = False
    failure: bytes | None = None
    ends: bool = False
    result: bytes | None = None
    result_blob: str | None = None

    @property
    def final(self) -> bool:
        """Whether it can never change again by itself."""
        return self.state >= SUCCEEDED

    def place(self, wall: float) -> None:
        """Set ``ready`` and ``wake_at`` from the other columns."""
        queued = self.state == QUEUED and not self.paused
        due = self.due_at is None or self.due_at <= wall
        self.ready = queued and due and not self.behind
        delayed = queued and not due and not self.behind
        timed = delayed or self.state == WAITING
        self.wake_at = min(
            (at for at in (self.due_at if timed else None, None if self.final else self.deadline) if at is not None),
            default=None,
        )
        if self.state == RUNNING:
            self.wake_at = None


_FIELDS: Final = tuple(Held.__slots__)
_VALUES: Final = attrgetter(
    "n", "state", "ready", "due_at", "wake_at", "rank", "since", "settled", "cancelling", "paused", "suspect", "deaths",
    "attempt", "running_s", "watched", "finished_at", "tokens", "cost_nanos", "progress", "progress_note", "fails", "failure",
    "ends", "result", "result_blob", "behind", "losses",
)  # fmt: skip


class Desk:
    """One transaction at work. ``wall`` is its time; rings are kept until it commits."""

    __slots__ = ("blobs", "changed", "db", "held", "news", "refs", "wall", "work")

    def __init__(self, db: Db) -> None:
        """Every method runs in the transaction that ``db`` is in."""
        self.db = db
        self.held: dict[str, Held] = {}
        self.changed: dict[int, Held] = {}
        self.blobs: dict[str, bytes] = {}
        self.refs: set[tuple[int, str]] = set()
        self.wall = 0.0
        self.work = False
        self.news = News.NONE

    async def lock(
        self,
        ids: Iterable[str],
        *,
        suspending: Iterable[str] = (),
        finishing: Iterable[str] = (),
        failing: Iterable[str] = (),
    ) -> dict[str, Held]:
        """Lock runs, and whom their change may concern.

        That is: what the suspending wait for, who waits for the finishing, and all below the failing.
        """
        self._hold(await self.db.fetch(_LOCK, list(ids), list(suspending), list(finishing), list(failing)))
        await self.tell_time()
        return self.held

    async def tell_time(self) -> None:
        """Read the clock, after the locks: what was waited for has already happened."""
        wall = self.db.wall
        self.wall = await self.db.value("select extract(epoch from clock_timestamp())::float8") if wall is None else wall

    def _hold(self, found: Iterable[Row]) -> None:
        for row in found:
            if row[1] not in self.held:  # else it may have been changed already
                self.held[row[1]] = Held(**dict(zip(_FIELDS, row, strict=False)))

    def ring(self, *, work: bool) -> None:
        """A run changed its state; ``work``: something may be claimable, or a worker has to look."""
        self.news = News.STATES
        self.work = self.work or work

    def change(self, run: Held) -> Held:
        """Have ``run`` saved."""
        self.changed[run.n] = run
        return run

    def keep(self, n: int, data: bytes) -> str:
        """Store a large value by content for run number ``n``; answer its address."""
        sha = hashlib.sha256(data).hexdigest()
        self.blobs[sha] = data
        self.refs.add((n, sha))
        return sha

    def queue(self, run: Held, *, due_at: float | None = None, rank: float | None = None, settled: int | None = None) -> None:
        """Queue a run, not before ``due_at``. ``rank`` None ranks it by its submission: what was begun goes on first."""
        run.state = QUEUED
        run.due_at = due_at
        run.rank = run.submitted_at if rank is None else rank
        run.since = self.wall if due_at is None else due_at
        run.settled = run.settled if settled is None else settled
        self.change(run)
        self.ring(work=True)

    def finish(
        self, run: Held, state: int, *, result: bytes | None = None, failure: Failure | None = None, settled: int | None = None
    ) -> None:
        """Make a run final; `save` wakes those that wait for it."""
        run.state = state
        run.due_at = None
        run.cancelling = False
        run.finished_at = self.wall
        run.settled = run.settled if settled is None else settled
        run.ends = True
        run.result, run.result_blob = result, None
        if result is not None and len(result) > INLINE_BYTES:
            run.result, run.result_blob = None, self.keep(run.n, result)
        if state == SUCCEEDED or failure is not None:
            run.fails = True
            run.failure = None if failure is None else encode(failure)
        self.change(run)
        self.ring(work=run.line is not None and not run.behind)  # somebody has to hand its line over
        run.behind = False

    def cancel(self, run: Held, *, settled: int | None = None) -> None:
        """Settle a run that nobody runs as cancelled."""
        self.finish(run, CANCELLED, settled=settled)

    def expire(self, run: Held) -> None:
        """Settle a run whose deadline has passed."""
        message = f"the deadline of run {run.id} passed before it was done"
        self.finish(run, FAILED, failure=Failure(type="DeadlineExceeded", message=message, permanent=True))

    async def save(self) -> None:
        """Write everything. Call it last, once."""
        failed = [run.id for run in self.changed.values() if run.ends and run.state == FAILED]
        if failed:
            await self._take_down(failed)
        ended = [run for run in self.changed.values() if run.ends and run.final]
        if ended:
            await self._wake_waiters(ended)
        if self.blobs:
            await keep_blobs(self.db, self.blobs, self.refs)
        if not self.changed:
            return
        for run in self.changed.values():
            run.place(self.wall)
        columns = [list(column) for column in zip(*map(_VALUES, self.changed.values()), strict=True)]
        await self.db.fetch(_SAVE, *columns)

    async def family(self, roots: Iterable[str]) -> set[str]:
        """Ids of these runs and of all below them."""
        return {row[0] for row in await self.db.fetch(_SUBTREE, list(roots))}

    async def _take_down(self, failed: list[str]) -> None:
        """What a run that failed for good has started goes with it."""
        while missing := (members := await self.family(failed)) - self.held.keys() - set(failed):
            await self.lock(missing, finishing=missing)
            if not missing & self.held.keys():
                break  # swept meanwhile
        self.cancel_all(members - set(failed))

    def cancel_all(self, members: Iterable[str]) -> None:
        """Cancel those that are not final: at once, or by the flag where a worker has it. All are locked."""
        for run in [self.held[run_id] for run_id in members if run_id in self.held]:
            if run.state == RUNNING:
                run.cancelling = True
                self.change(run)
            elif not run.final:
                self.cancel(run)
            self.ring(work=True)

    async def _wake_waiters(self, ended: list[Held]) -> None:
        await self.db.fetch("delete from ~.wait where run = any($1::bigint[])", [run.n for run in ended])
        watched = [run.id for run in ended if run.watched]
        if not watched:
            return
        query = "select distinct run from ~.wait where kind = 'child' and ref = any($1::text[])"
        waiters = {row[0] for row in await self.db.fetch(query, watched)}
        by_number = {run.n: run for run in self.held.values()}
        missing = waiters - by_number.keys()
        if missing:  # they began to wait after we had looked for them
            self._hold(await self.db.fetch(_LOCK_NUMBERS, list(missing)))
            by_number = {run.n: run for run in self.held.values()}
        for n in waiters & by_number.keys():
            self.wake(by_number[n])

    def wake(self, run: Held) -> None:
        """Queue a waiting run at once; a worker that runs it is told to look."""
        if run.state == WAITING:
            self.queue(run)
        self.work = True


async def keep_blobs(db: Db, blobs: dict[str, bytes], refs: Iterable[tuple[int, str]]) -> None:
    """Store values by content. Each blob's row is locked, so that no sweep removes it before our reference can be seen."""
    shas = sorted(blobs)
    await db.fetch(
        "insert into ~.blob (sha, data) select * from unnest($1::text[], $2::bytea[])"
        " on conflict (sha) do update set sha = excluded.sha",
        shas,
        [blobs[sha] for sha in shas],
    )
    runs, names = zip(*sorted(refs), strict=True)
    await db.fetch(
        "insert into ~.blob_ref (run, sha) select * from unnest($1::bigint[], $2::text[]) on conflict do nothing",
        list(runs),
        list(names),
    )


async def arrived(db: Db, numbers: list[int]) -> set[int]:
    """Those runs for which something is there that an open wait waits for, time aside."""
    query = """
    select distinct w.run from ~.wait w where w.run = any($1::bigint[]) and (
      (w.kind = 'signal' and exists (select 1 from ~.signal s where s.run = w.run and s.name = w.ref and not s.consumed))
      or (w.kind = 'child' and exists (select 1 from ~.run r where r.id = w.ref and r.state >= 4)))
    """
    return {row[0] for row in await db.fetch(query, numbers)} if numbers else set()


assert (RUNNING, SUCCEEDED) == (1, 4)  # noqa: S101 - the statements say them as literals

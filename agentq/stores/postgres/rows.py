"""Rows and values: how runs, entries, waits and chunks lie in the tables."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final, TypeAlias

from agentq.message import Chunk, Entry, Run, Wait
from agentq.stores.columns import KINDS, STATES, WAIT_COLUMNS, failure_from, tags_decoder, wait_from

if TYPE_CHECKING:
    from collections.abc import Sequence

    from agentq.stores.postgres.connection import Db

Row: TypeAlias = Any
"""A row as the driver gives it: a sequence."""

INLINE_BYTES: Final = 32 * 1024
"""Larger entry values, arguments and results go to blobs, which runs share by content."""

RUN_COLUMNS: Final = (
    "r.id, r.lane, r.state, r.args, r.args_hash, r.submitted_at, r.epoch, r.attempt, r.priority, r.key, r.tenant, r.tags,"
    " r.version, r.due_at, r.deadline, r.timeout_s, r.max_attempts, r.started_at, r.finished_at, r.running_s, r.owner,"
    " r.lease_until, r.parent_id, r.root_id, r.fork_of, r.traceparent, r.result, r.failure, r.cancelling, r.paused, r.suspect,"
    " r.deaths, r.takeovers, r.progress, r.progress_note, r.tokens, r.cost_nanos, r.args_blob, r.result_blob, r.n, r.token,"
    " ~now as now, r.ordering_key, r.losses"
)
_N: Final = 39
_TOKEN: Final = 40
_NOW: Final = 41
_ORDERING_KEY: Final = 42
_LOSSES: Final = 43
ENTRY_COLUMNS: Final = (
    "seq, kind, branch, step, occurrence, attempt, epoch, args_hash, started_at, ended_at, tokens, cost_nanos, blob, value"
)


class Lanes:
    """The (app, queue, task) combinations, which runs name by number. Never removed, so that what was read stays true."""

    def __init__(self) -> None:
        """Know none."""
        self._ids: dict[tuple[str, str, str], int] = {}
        self._names: dict[int, tuple[str, str, str]] = {}

    async def load(self, db: Db) -> dict[int, tuple[str, str, str]]:
        """All lanes there are now."""
        for number, app, queue, task in await db.fetch("select id, app, queue, task from ~.lane"):
            self._names[number] = (app, queue, task)
            self._ids[app, queue, task] = number
        return self._names

    def unknown(self, keys: set[tuple[str, str, str]]) -> list[tuple[str, str, str]]:
        """Those of which no number is known."""
        return sorted(keys - self._ids.keys())

    async def make(self, db: Db, keys: Sequence[tuple[str, str, str]]) -> None:
        """Give numbers to new combinations; ``db`` is a transaction that holds nothing else."""
        columns = [list(column) for column in zip(*keys, strict=True)]
        await db.fetch(
            "insert into ~.lane (app, queue, task) select * from unnest($1::text[], $2::text[], $3::text[])"
            " on conflict do nothing",
            *columns,
        )
        await self.load(db)

    def number(self, app: str, queue: str, task: str) -> int:
        """The number of a lane that is known."""
        return self._ids[app, queue, task]

    async def know(self, db: Db, numbers: set[int]) -> None:
        """Make sure that `name` can tell these."""
        if not numbers <= self._names.keys():
            await self.load(db)

    def name(self, number: int) -> tuple[str, str, str]:
        """(app, queue, task) of a lane that is known."""
        return self._names[number]


async def runs_from(db: Db, lanes: Lanes, found: Sequence[Row], lengths: dict[int, Row] | None = None) -> list[Run]:
    """`Run` values from rows of `RUN_COLUMNS`; ``lengths`` gives (n, entries, steps, last step) by number."""
    await lanes.know(db, {row[1] for row in found})
    wanted = {sha for row in found for sha in (row[37], row[38]) if sha is not None}
    data = await blobs(db, wanted) if wanted else {}
    return [run_from(row, lanes, data, db.steady, (lengths or {}).get(row[_N])) for row in found]


async def blobs(db: Db, wanted: set[str]) -> dict[str, bytes]:
    """The bytes behind content addresses."""
    return dict(await db.fetch("select sha, data from ~.blob where sha = any($1::text[])", list(wanted)))


def run_from(row: Row, lanes: Lanes, data: dict[str, bytes], steady: float | None, journal: Row | None) -> Run:
    """A `Run` from a row of `RUN_COLUMNS`; ``data`` holds its blobs."""
    app, queue, task = lanes.name(row[1])
    _, entries, steps, last_step = journal or (0, 0, 0, "")
    now = row[_NOW] if steady is None else steady
    return Run(
        id=row[0],
        app=app,
        task=task,
        queue=queue,
        state=STATES[row[2]],
        args=(row[3] if row[37] is None else data.get(row[37])) or b"",
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
        lease_s=None if row[21] is None else row[21] - now,
        parent_id=row[22],
        root_id=row[23],
        fork_of=row[24],
        ordering_key=row[_ORDERING_KEY],
        traceparent=row[25],
        result=row[26] if row[38] is None else data.get(row[38]),
        failure=failure_from(row[27]),
        cancelling=row[28],
        paused=row[29],
        suspect=row[30],
        deaths=row[31],
        losses=row[_LOSSES],
        takeovers=row[32],
        progress=row[33],
        progress_note=row[34],
        tokens=row[35],
        cost_nanos=row[36],
        entries=entries,
        steps=steps,
        last_step=last_step,
    )


def number(row: Row) -> int:
    """The run's number, from a row of `RUN_COLUMNS`."""
    found: int = row[_N]
    return found


def token(row: Row) -> int:
    """The claim's token, from a row of `RUN_COLUMNS`."""
    found: int = row[_TOKEN]
    return found


def entry_from(row: Row) -> Entry:
    """An `Entry` from a row of `ENTRY_COLUMNS`."""
    seq, kind, branch, step, occurrence, attempt, epoch, args_hash, started, ended, tokens, cost, sha, value = row
    return Entry(
        seq=seq,
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


async def journal(db: Db, n: int, after: int = -1) -> list[Entry]:
    """Entries of run number ``n`` with ``seq > after``."""
    query = f"select {ENTRY_COLUMNS} from ~.journal where run = $1 and seq > $2 order by seq"  # noqa: S608 - constants
    return [entry_from(row) for row in await db.fetch(query, n, max(after, -1))]


async def waits(db: Db, n: int) -> list[Wait]:
    """Open waits of run number ``n``."""
    query = f"select {WAIT_COLUMNS} from ~.wait where run = $1"  # noqa: S608 - constants
    return [wait_from(row) for row in await db.fetch(query, n)]


def chunk_from(row: Row) -> Chunk:
    """A `Chunk` from (offset, epoch, n, topic, branch, at, payload)."""
    offset, epoch, n, topic, branch, at, payload = row
    return Chunk(topic=topic, payload=payload, epoch=epoch, n=n, at=at, branch=branch, offset=offset)

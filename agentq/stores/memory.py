"""A store in this process's memory, for tests: the same promises as any other store, gone when it is closed."""

from __future__ import annotations

import asyncio
import threading
from collections import Counter, defaultdict
from typing import TYPE_CHECKING, Self
from weakref import WeakValueDictionary

from agentq.clock import SystemClock
from agentq.message import Census, QueueStats, RunState
from agentq.stores.memory_arrivals import PREFIX_CHARS
from agentq.stores.memory_worker import WorkerLedger

if TYPE_CHECKING:
    from collections.abc import Sequence
    from types import TracebackType

    from agentq.clock import Clock
    from agentq.message import (
        Admission,
        Arrival,
        Beat,
        Chunk,
        ClaimRef,
        ClaimRequest,
        Claims,
        Command,
        DeadLetter,
        Entry,
        Envelope,
        LetterQuery,
        Reply,
        Run,
        RunQuery,
        Submitted,
        Verdict,
        Wait,
        Worker,
        Write,
    )
    from agentq.stores.memory_rows import Row

UNSEEN_LEASES = 3
"""A worker that missed so many leases is left out of the census."""


class _Bells:
    """Ticks per topic, and who waits for the next one, in whichever event loop."""

    def __init__(self) -> None:
        self.ticks: dict[str, int] = defaultdict(int)
        self.waiting: dict[str, set[tuple[asyncio.AbstractEventLoop, asyncio.Event]]] = defaultdict(set)

    def ring(self, topics: Sequence[str]) -> None:
        for topic in topics:
            self.ticks[topic] += 1
            waiting, self.waiting[topic] = self.waiting[topic], set()
            for loop, event in waiting:
                if not loop.is_closed():
                    loop.call_soon_threadsafe(event.set)


class _Place:
    """What stores of the same name share: the rows, the bells and the lock around both."""

    def __init__(self, clock: Clock) -> None:
        self.lock = threading.Lock()
        self.ledger = WorkerLedger(clock)
        self.bells = _Bells()


_PLACES: WeakValueDictionary[str, _Place] = WeakValueDictionary()


class MemoryStore:
    """Fulfils `agentq.stores.base.Store`. Stores of the same ``name`` in one process share their rows."""

    def __init__(self, name: str | None = None, *, clock: Clock | None = None) -> None:
        """``clock`` is the machine's unless given; of stores that share a name the first one's clock counts."""
        self._name = name
        place = None if name is None else _PLACES.get(name)
        self._place = _Place(clock or SystemClock()) if place is None else place
        if name is not None:
            _PLACES[name] = self._place
        self._ledger = self._place.ledger
        self._bells = self._place.bells
        self._lock = self._place.lock

    @property
    def where(self) -> str:
        """Where the data is, for people."""
        return "memory" if self._name is None else f"memory:{self._name}"

    @property
    def shared(self) -> bool:
        """Another process never sees this memory."""
        return False

    async def __aenter__(self) -> Self:
        """Nothing to open."""
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None, /
    ) -> None:
        """Nothing to close; the rows live as long as a store that refers to them."""

    async def submit(self, envelopes: Sequence[Envelope]) -> list[Submitted]:
        """See `ProducerStore.submit`."""
        with self._lock:
            self._bells.ring(("work", "news"))
            return self._ledger.submit(envelopes)

    async def keep(self, data: bytes) -> str:
        """See `ProducerStore.keep`."""
        with self._lock:
            return self._ledger.arrivals.keep(data, self._ledger.clock.wall())

    async def admit(self, admission: Admission) -> list[Submitted]:
        """See `IntakeStore.admit`."""
        with self._lock:
            self._bells.ring(("work", "news"))
            return self._ledger.admit(admission)

    async def positions(self, source: str) -> dict[int, int]:
        """See `IntakeStore.positions`."""
        with self._lock:
            return self._ledger.arrivals.positions(source)

    async def command(self, command: Command) -> Reply:
        """See `ProducerStore.command`."""
        with self._lock:
            self._bells.ring(("work", "news"))
            return self._ledger.command(command)

    async def beat(self, worker: Worker, claims: Sequence[ClaimRef], lease_s: float) -> Beat:
        """See `WorkerStore.beat`."""
        with self._lock:
            return self._ledger.beat(worker, claims, lease_s)

    async def leave(self, worker_id: str) -> None:
        """See `WorkerStore.leave`."""
        with self._lock:
            self._bells.ring(("work", "news"))
            self._ledger.leave(worker_id)

    async def claim(self, request: ClaimRequest) -> Claims:
        """See `WorkerStore.claim`."""
        with self._lock:
            live = len(self._ledger.live)
            claims = self._ledger.claim(request)
            if len(self._ledger.live) < live:
                self._bells.ring(("work", "news"))
            elif claims.claims:
                self._bells.ring(("news",))
            return claims

    async def write(self, write: Write) -> Verdict:
        """See `WorkerStore.write`."""
        with self._lock:
            verdict = self._ledger.write(write)
            self._bells.ring(("news", "work") if write.settle is not None or write.children else ("news",))
            return verdict

    async def inbox(self, run_ids: Sequence[str]) -> list[Arrival]:
        """See `WorkerStore.inbox`."""
        with self._lock:
            return self._ledger.inbox(run_ids)

    async def sweep(self, *, retention_s: float, limit: int = 1000) -> int:
        """See `WorkerStore.sweep`."""
        with self._lock:
            return self._ledger.sweep(retention_s, limit)

    async def runs(self, query: RunQuery) -> list[Run]:
        """See `ReaderStore.runs`."""
        with self._lock:
            steady = self._ledger.clock.steady()
            found = [row for row in self._ledger.rows.values() if _matches(row, query)]
            if query.ids:
                found = _named(found, query.ids)
            found.sort(key=lambda row: row.order, reverse=True)
            return [row.view(steady) for row in found[: query.limit]]

    async def journal(self, run_id: str, after: int = -1) -> list[Entry]:
        """See `ReaderStore.journal`."""
        with self._lock:
            row = self._ledger.rows.get(run_id)
            return [] if row is None else row.journal[after + 1 :]

    async def waits(self, run_id: str) -> list[Wait]:
        """See `ReaderStore.waits`."""
        with self._lock:
            row = self._ledger.rows.get(run_id)
            return [] if row is None else list(row.waits.values())

    async def stream(self, run_id: str, after: int = 0, limit: int = 1000) -> list[Chunk]:
        """See `ReaderStore.stream`."""
        with self._lock:
            row = self._ledger.rows.get(run_id)
            return [] if row is None else [chunk for chunk in row.chunks if chunk.offset > after][:limit]

    async def census(self) -> Census:
        """See `ReaderStore.census`."""
        with self._lock:
            wall, steady = self._ledger.clock.wall(), self._ledger.clock.steady()
            queues: dict[str, list[Row]] = defaultdict(list)
            for row in self._ledger.live.values():
                queues[row.base.queue].append(row)
            dead = Counter(letter.queue for letter in self._ledger.arrivals.letters.values())
            seen = self._ledger.workers.values()
            return Census(
                queues=tuple(_stats(name, queues[name], dead[name], wall, steady) for name in sorted({*queues, *dead})),
                workers=tuple(s.listed(steady) for s in seen if steady - s.at <= UNSEEN_LEASES * s.lease_s),
            )

    async def blob(self, sha: str) -> bytes:
        """See `ReaderStore.blob`."""
        with self._lock:
            value = self._ledger.blobs.get(sha)
            return self._ledger.arrivals.parcel(sha) if value is None else value

    async def letters(self, query: LetterQuery) -> list[DeadLetter]:
        """See `ReaderStore.letters`."""
        with self._lock:
            return self._ledger.arrivals.find(query)

    async def watch(self, topic: str, seen: int, wait_s: float) -> int:
        """See `ReaderStore.watch`. ``wait_s`` are real seconds, whatever the store's clock."""
        event = asyncio.Event()
        waiter = (asyncio.get_running_loop(), event)
        with self._lock:
            if self._bells.ticks[topic] > seen:
                return self._bells.ticks[topic]
            self._bells.waiting[topic].add(waiter)
        try:
            async with asyncio.timeout(wait_s):
                await event.wait()
        except TimeoutError:
            return seen
        finally:
            with self._lock:
                self._bells.waiting[topic].discard(waiter)
        with self._lock:
            return max(seen, self._bells.ticks[topic])


def _named(rows: list[Row], ids: Sequence[str]) -> list[Row]:
    """Those rows whose id is given in full, or else by a prefix; an ambiguous one names them all."""
    found: dict[str, Row] = {}
    for given in ids:
        fits = [row for row in rows if row.id == given]
        if not fits and len(given) >= PREFIX_CHARS:
            fits = [row for row in rows if row.id.startswith(given)]
        found |= {row.id: row for row in fits}
    return list(found.values())


def _matches(row: Row, query: RunQuery) -> bool:
    base = row.base
    return (
        (not query.states or row.state in query.states)
        and query.queue in {None, base.queue}
        and query.task in {None, base.task}
        and query.tenant in {None, base.tenant}
        and query.parent_id in {None, base.parent_id}
        and query.owner in {None, row.owner}
    )


def _runnable_s(row: Row, wall: float, steady: float) -> float:
    """How long a runnable row has been so."""
    if row.state is RunState.RUNNING:
        return steady - row.lease_until
    since = row.since if row.state is RunState.QUEUED else row.wakes_at
    return 0.0 if since is None else wall - since


def _stats(queue: str, rows: list[Row], dead: int, wall: float, steady: float) -> QueueStats:
    ages: list[float] = []
    count: dict[str, int] = defaultdict(int)
    for row in rows:
        nowhere = row.state is not RunState.RUNNING or row.expired(steady)
        to_settle = nowhere and (row.cancelling or row.late(wall))  # only a claim does it, so somebody has to come
        if row.behind and not to_settle:
            count["ordered"] += 1
        elif row.paused and row.state is not RunState.RUNNING and not to_settle:
            count["paused"] += 1
        elif to_settle or (row.due(wall, steady) and not row.paused):
            ages.append(max(0.0, _runnable_s(row, wall, steady)))
        elif row.state is RunState.QUEUED:
            count["delayed"] += 1
        else:
            count[row.state.value] += 1
    return QueueStats(
        queue=queue, runnable=len(ages), delayed=count["delayed"], running=count["running"], waiting=count["waiting"],
        parked=count["parked"], paused=count["paused"], ordered=count["ordered"], dead=dead,
        oldest_age_s=max(ages, default=0.0),
    )  # fmt: skip

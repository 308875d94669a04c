"""`PostgresStore`: the contract of a store, fulfilled by the rooms of this package."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from functools import partial
from typing import TYPE_CHECKING, Final, Self, TypeVar

from agentq.errors import NotFound, NotOpen
from agentq.message import Claims, Released, Write
from agentq.stores.postgres import arrivals, beats, claims, commands, lines, reads, rights, rows, sweep
from agentq.stores.postgres import census as counting
from agentq.stores.postgres import submit as submitting
from agentq.stores.postgres.address import address
from agentq.stores.postgres.bell import Bell
from agentq.stores.postgres.connection import CONNECT_S, PATIENT_S, Db, Names
from agentq.stores.postgres.desk import Desk, News
from agentq.stores.postgres.guest import guest, visit
from agentq.stores.postgres.place import Place
from agentq.stores.postgres.pool import Pool
from agentq.stores.postgres.rows import Lanes
from agentq.stores.postgres.schema import migrate
from agentq.stores.postgres.shared import share
from agentq.stores.postgres.submit import ATOMIC_SUBMIT
from agentq.stores.postgres.unheard import Unheard
from agentq.stores.ticks import Ticks

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
    from types import TracebackType

    from agentq.clock import Clock
    from agentq.message import (
        Admission,
        Arrival,
        Beat,
        Census,
        Chunk,
        Claim,
        ClaimRef,
        ClaimRequest,
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
    )
    from agentq.stores.transactional import StepTransaction

T = TypeVar("T")

_CLAIM_TRIES: Final = 3
"""How often a claim looks again when others were taking what it wanted."""
_SOON_S: Final = 0.02
"""When a claim that lost to others is to ask again."""
_HELD_S: Final = 0.05
"""When a claim that met a line in somebody's hands is to ask again."""
_RENEW_PAUSES_S: Final = (0.01, 0.05, 0.2)
"""After which pauses a heartbeat tries rows again that were locked."""


class PostgresStore:
    """One schema of a PostgreSQL database. Fulfils `agentq.stores.base.Store`.

    ``postgresql://user:password@host:port/database`` with the driver's parameters and ours: ``schema=agentq``, ``notify=off``
    behind a transaction pooler, ``pool=8`` connections per event loop.
    """

    def __init__(self, url: str, *, clock: Clock | None = None, create: bool = True) -> None:
        """``clock`` is for tests; without one the server's decides. Tables are made if missing and ``create``."""
        self._create = create
        self._address = address(url)
        self._clock = clock
        self._lanes = Lanes()
        self._ticks = Ticks()
        self._lock = threading.Lock()
        self._places: dict[asyncio.AbstractEventLoop, Place] = {}
        self._names = Names(self._address.schema)
        self._unheard: dict[str, Unheard] = {}
        self._identity = ""
        self._open = False
        self._bell: Bell | None = None

    @property
    def where(self) -> str:
        """Server, database and schema."""
        return self._address.where

    @property
    def shared(self) -> bool:
        """Whoever reaches the server can open the same schema."""
        return True

    async def __aenter__(self) -> Self:
        """Connect, migrate if the schema is older, listen."""
        if self._bell is not None:
            raise NotOpen(f"the store {self.where} is open already; make another PostgresStore for another user of it")
        pool = Pool(self._address, self._clock, 1)
        try:
            self._identity = await migrate(pool, create=self._create)
        finally:
            await pool.close()
        self._bell = Bell(self._address, self._ticks)
        await self._bell.open()
        self._open = True
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None, /
    ) -> None:
        """Finish what was handed in, then close."""
        self._open = False
        with self._lock:
            places = list(self._places.values())
        await asyncio.gather(*map(_close, places))
        if self._bell is not None:
            await self._bell.close()
            self._bell = None

    def _rung(self, work: bool, news: News) -> None:  # noqa: FBT001 - called by position
        if self._bell is not None:
            self._bell.ring(work, news)

    async def _here(self) -> Place:
        """The place of the running loop."""
        if not self._open:
            raise NotOpen(f"the store {self.where} is not open; use it inside `async with`")
        loop = asyncio.get_running_loop()
        place = self._places.get(loop)
        if place is None:

            def left() -> None:
                with self._lock:
                    self._places.pop(loop, None)

            place = Place(self._address, self._clock, self._lanes, self._rung, left)
            with self._lock:
                self._places[loop] = place
            await place.begin()
        return place

    async def _ask(self, work: Callable[[Db], Awaitable[T]]) -> T:
        """Do ``work``, whose statements are each their own transaction."""
        place = await self._here()
        return await place.do(place.pool.again(work, alone=True))

    async def _change(self, work: Callable[[Desk], Awaitable[T]]) -> T:
        """Do ``work`` in a transaction, then ring for what it changed."""
        place = await self._here()
        return await place.do(self._changed(place, work))

    async def _changed(self, place: Place, work: Callable[[Desk], Awaitable[T]]) -> T:
        async def transact(db: Db) -> tuple[T, Desk]:
            desk = Desk(db)
            await desk.tell_time()
            return await work(desk), desk

        answer, desk = await place.pool.again(transact, answer_s=PATIENT_S)
        if desk.work or desk.news:
            self._rung(desk.work, desk.news)
        return answer

    async def submit(self, envelopes: Sequence[Envelope]) -> list[Submitted]:
        """See `ProducerStore.submit`."""
        place = await self._here()
        answers: list[Submitted] = []
        for start in range(0, len(envelopes), ATOMIC_SUBMIT):
            answers += await place.do(self._submit(place, envelopes[start : start + ATOMIC_SUBMIT]))
        return answers

    async def _submit(self, place: Place, envelopes: Sequence[Envelope]) -> list[Submitted]:
        await self._know_lanes(place, envelopes)
        answers = await place.pool.again(
            lambda db: submitting.submit(db, self._lanes, envelopes),
            alone=submitting.simple(envelopes),
            answer_s=PATIENT_S,
        )
        if any(answer.created for answer in answers):
            self._rung(True, News.STATES)  # noqa: FBT003 - work
        return answers

    async def _know_lanes(self, place: Place, envelopes: Sequence[Envelope]) -> None:
        unknown = self._lanes.unknown(submitting.lanes_of(envelopes))
        if unknown:
            await place.pool.again(lambda db: self._lanes.make(db, unknown), alone=True)

    async def submit_on(self, connection: object, envelopes: Sequence[Envelope]) -> list[Submitted]:
        """See `Transactional.submit_on`.

        Idle workers hear of it at the commit. Lanes are made on a connection of our own; they outlive a rollback, unseen.
        """
        if not envelopes:
            return []
        db = guest(connection, self._names, self._clock, self.where)
        place = await self._here()
        await place.do(self._know_lanes(place, envelopes))
        async with visit(db, self._identity) as current:
            answers = await submitting.submit(db, self._lanes, envelopes, current=current)
            if self._address.notify:
                await db.value("select pg_notify($1::text, 'nw')", self._address.channel)
        return answers

    @contextlib.asynccontextmanager
    async def transaction(self, ref: ClaimRef) -> AsyncIterator[StepTransaction]:
        """See `Transactional.transaction`."""
        async with share(await self._here(), ref, self._lanes, self._rung) as shared:
            yield shared

    async def admit(self, admission: Admission) -> list[Submitted]:
        """See `IntakeStore.admit`."""
        place = await self._here()
        return await place.do(self._admit(place, admission))

    async def _admit(self, place: Place, admission: Admission) -> list[Submitted]:
        await self._know_lanes(place, admission.envelopes)

        async def work(db: Db) -> list[Submitted]:
            answers = await submitting.submit(db, self._lanes, admission.envelopes) if admission.envelopes else []
            await arrivals.keep_letters(db, admission.letters)
            await arrivals.move(db, admission.positions)
            return answers

        answers = await place.pool.again(work, answer_s=PATIENT_S)
        self._rung(any(answer.created for answer in answers), News.STATES)
        return answers

    async def positions(self, source: str) -> dict[int, int]:
        """See `IntakeStore.positions`."""
        return await self._ask(lambda db: arrivals.positions(db, source))

    async def keep(self, data: bytes) -> str:
        """See `ProducerStore.keep`."""
        place = await self._here()
        return await place.do(place.pool.again(lambda db: arrivals.keep(db, data), answer_s=PATIENT_S))

    async def command(self, command: Command) -> Reply:
        """See `ProducerStore.command`."""
        return await self._change(lambda desk: commands.command(desk, command))

    async def beat(self, worker: Worker, claims: Sequence[ClaimRef], lease_s: float) -> Beat:
        """See `WorkerStore.beat`."""
        place = await self._here()
        return await place.do(self._beat(place, worker, claims, lease_s))

    async def _beat(self, place: Place, worker: Worker, refs: Sequence[ClaimRef], lease_s: float) -> Beat:
        answer, locked = await place.pool.again(lambda db: beats.beat(db, worker, refs, lease_s), alone=True)
        for pause_s in _RENEW_PAUSES_S:
            if not locked:
                break
            await asyncio.sleep(pause_s)
            found = await place.pool.again(partial(beats.renew, claims=locked, lease_s=lease_s), alone=True)
            busy = {row[1] for row in found if not row[4]}
            locked = [ref for ref in locked if ref.run_id in busy]
        return answer

    async def leave(self, worker_id: str) -> None:
        """See `WorkerStore.leave`."""
        await self._ask(lambda db: beats.leave(db, worker_id))
        self._rung(True, News.STATES)  # noqa: FBT003 - work

    async def claim(self, request: ClaimRequest) -> Claims:
        """See `WorkerStore.claim`."""
        place = await self._here()
        asked = place.start(self._claim(place, request))
        try:
            return await asyncio.shield(asked)
        except asyncio.CancelledError:
            # Whoever asked is gone: its runs must not wait for the end of a lease that nobody renews.
            asked.add_done_callback(lambda done: _hand_back(place, done))
            raise

    async def _claim(self, place: Place, request: ClaimRequest) -> Claims:
        pool = place.pool
        seen = await pool.again(claims.look, alone=True)
        left = 0
        if seen.due or seen.expired:
            await self._changed(place, claims.settle_due)
            seen = await pool.again(claims.look, alone=True)
        if seen.vacant:
            left = await self._changed(place, lines.hand_over)
            seen = await pool.again(claims.look, alone=True)
        due_s = seen.next_due_s
        if left:
            due_s = _HELD_S if due_s is None else min(due_s, _HELD_S)
        if request.limit <= 0:
            return Claims(next_due_s=due_s)
        got, lost = await pool.again(lambda db: self._take(db, request, expired=seen.expired), alone=True)
        if got:
            self._rung(False, News.STATES)  # noqa: FBT003 - work
        if lost:
            due_s = _SOON_S if due_s is None else min(due_s, _SOON_S)
        return Claims(claims=got, next_due_s=due_s)

    async def _take(self, db: Db, request: ClaimRequest, *, expired: bool) -> tuple[tuple[Claim, ...], bool]:
        """Take runs, those first of which the answer was lost before; also whether others were taking some that we wanted."""
        unheard = self._unheard.setdefault(request.worker, Unheard())
        taken = await unheard.find(db, request)
        base = unheard.begin(request.lease_s)
        lost = False
        for _ in range(_CLAIM_TRIES if len(taken) < request.limit else 0):
            found, lost = await claims.take(db, request, base, request.limit - len(taken), expired=expired)
            taken += found
            if found or not lost:
                break
        got = await claims.load(db, self._lanes, taken)
        unheard.heard(base, taken)
        return got, lost

    async def write(self, write: Write) -> Verdict:
        """See `WorkerStore.write`."""
        return await (await self._here()).writer.put(write)

    async def inbox(self, run_ids: Sequence[str]) -> list[Arrival]:
        """See `WorkerStore.inbox`."""
        return await self._ask(lambda db: reads.inbox(db, run_ids))

    async def sweep(self, *, retention_s: float, limit: int = 1000) -> int:
        """See `WorkerStore.sweep`."""
        place = await self._here()
        await place.do(place.pool.again(sweep.forget, answer_s=PATIENT_S))
        gone = 0
        while gone < limit:
            chunk = min(sweep.CHUNK, limit - gone)
            work = partial(sweep.sweep, retention_s=retention_s, limit=chunk)
            went = await place.do(place.pool.again(work, answer_s=PATIENT_S))
            gone += went
            if went < chunk:
                break
        return gone

    async def runs(self, query: RunQuery) -> list[Run]:
        """See `ReaderStore.runs`."""
        return await self._ask(lambda db: reads.runs(db, self._lanes, query))

    async def journal(self, run_id: str, after: int = -1) -> list[Entry]:
        """See `ReaderStore.journal`."""
        return await self._ask(lambda db: reads.journal(db, run_id, after))

    async def waits(self, run_id: str) -> list[Wait]:
        """See `ReaderStore.waits`."""
        return await self._ask(lambda db: reads.waits(db, run_id))

    async def stream(self, run_id: str, after: int = 0, limit: int = 1000) -> list[Chunk]:
        """See `ReaderStore.stream`."""
        return await self._ask(lambda db: reads.stream(db, run_id, after, limit))

    async def now(self) -> float:
        """The server's wall time, in Unix seconds."""
        return float(await self._ask(lambda db: db.value("select extract(epoch from clock_timestamp())::float8")))

    async def lacking(self) -> str:
        """Which rights of a worker the user has not, and what to do; empty if it has all."""
        return await self._ask(rights.lacking)

    async def census(self) -> Census:
        """See `ReaderStore.census`."""
        return await self._ask(counting.census)

    async def blob(self, sha: str) -> bytes:
        """See `ReaderStore.blob`."""
        found = await self._ask(lambda db: rows.blobs(db, {sha}))
        if sha not in found:
            raise NotFound(f"no blob {sha} in {self.where}")
        return found[sha]

    async def letters(self, query: LetterQuery) -> list[DeadLetter]:
        """See `ReaderStore.letters`."""
        return await self._ask(lambda db: arrivals.letters(db, query))

    async def watch(self, topic: str, seen: int, wait_s: float) -> int:
        """See `ReaderStore.watch`."""
        return await self._ticks.watch(topic, seen, wait_s)


def _hand_back(place: Place, asked: asyncio.Task[Claims]) -> None:
    if asked.cancelled() or asked.exception() is not None:
        return
    for claim in asked.result().claims:
        with contextlib.suppress(NotOpen):
            released = place.writer.put(Write(ref=claim.ref, settle=Released(reason="unclaimed")))
            released.add_done_callback(lambda done: done.cancelled() or done.exception())


async def _close(place: Place) -> None:
    """Close a place, whichever loop it belongs to."""
    if place.loop is asyncio.get_running_loop():
        await place.close()
    elif place.loop.is_running():
        with contextlib.suppress(RuntimeError, TimeoutError):
            closing = asyncio.run_coroutine_threadsafe(place.close(), place.loop)
            await asyncio.wait_for(asyncio.wrap_future(closing), CONNECT_S)

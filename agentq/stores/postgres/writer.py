"""Group commit: what waits goes out together, and each write has its own verdict."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Final

import asyncpg

from agentq.errors import NotOpen, StoreError, StoreUnavailable
from agentq.message import Verdict
from agentq.stores.postgres import plain
from agentq.stores.postgres.desk import Desk, News
from agentq.stores.postgres.pool import Pool
from agentq.stores.postgres.submit import lanes_of
from agentq.stores.postgres.writes import Batch

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from agentq.clock import Clock
    from agentq.message import Write
    from agentq.stores.postgres.address import Address
    from agentq.stores.postgres.connection import Db
    from agentq.stores.postgres.rows import Lanes

BATCH: Final = 1000
"""Most writes that share a transaction."""


class Job:
    """One write in the writer's hands."""

    __slots__ = ("future", "plain", "write")

    def __init__(self, write: Write) -> None:
        """The future belongs to the running loop."""
        self.write = write
        self.plain = plain.plain(write)
        self.future: asyncio.Future[Verdict] = asyncio.get_running_loop().create_future()

    def answer(self, outcome: Verdict | Exception) -> None:
        """Tell whoever still waits."""
        if self.future.done():
            return
        if isinstance(outcome, Exception):
            self.future.set_exception(outcome)
        else:
            self.future.set_result(outcome)


class Writer:
    """Two lanes with a connection each: small writes in single statements, the others in transactions.

    Writes of one run go one after the other, in the order in which they came. Everything belongs to one event loop.
    """

    def __init__(self, address: Address, clock: Clock | None, lanes: Lanes, rung: Callable[[bool, News], None]) -> None:
        """``rung(work, news)`` is told of commits after they are durable."""
        self._where = address.where
        self._lanes = lanes
        self._rung = rung
        self._pools = {True: Pool(address, clock, 1), False: Pool(address, clock, 1)}
        self._waiting: list[Job] = []
        self._busy: set[str] = set()
        self._tasks: dict[bool, asyncio.Task[None]] = {}
        self._closed = False

    def put(self, write: Write) -> asyncio.Future[Verdict]:
        """Hand a write in."""
        if self._closed:
            raise NotOpen(f"the store {self._where} is closed")
        job = Job(write)
        self._waiting.append(job)
        self._stir(job.plain)
        return job.future

    def _stir(self, lane: bool) -> None:  # noqa: FBT001 - which of the two lanes
        if lane not in self._tasks:
            # It begins with the loop's next turn, when all that came in this turn is there.
            self._tasks[lane] = asyncio.get_running_loop().create_task(self._drive(lane))

    async def _drive(self, lane: bool) -> None:  # noqa: FBT001
        try:
            while jobs := self._take(lane):
                runs = {job.write.ref.run_id for job in jobs}
                self._busy |= runs
                try:
                    await (self._plain(jobs) if lane else self._full(jobs))
                except asyncio.CancelledError:
                    _answer(jobs, StoreUnavailable(f"{self._where}: closed before it answered"))
                    raise
                except Exception as error:  # noqa: BLE001 - a defect of ours must not leave anybody waiting
                    for job in jobs:
                        job.answer(error)
                finally:
                    self._busy -= runs
        finally:
            del self._tasks[lane]
        for job in self._waiting:  # what this lane held up
            self._stir(job.plain)

    def _take(self, lane: bool) -> list[Job]:  # noqa: FBT001
        """Jobs of this lane whose runs have nothing earlier under way."""
        taken: list[Job] = []
        left: list[Job] = []
        held: set[str] = set()
        for job in self._waiting:
            run_id = job.write.ref.run_id
            if job.plain is lane and run_id not in held and run_id not in self._busy and len(taken) < BATCH:
                taken.append(job)
            else:
                left.append(job)
            held.add(run_id)
        self._waiting = left
        return taken

    async def _plain(self, jobs: Sequence[Job]) -> None:
        try:
            async with self._pools[True].statement() as db:
                committed = await plain.commit(db, [job.write for job in jobs])
        except StoreUnavailable as error:
            if not isinstance(error.__cause__, asyncpg.TransactionRollbackError):
                _answer(jobs, error)
                return
            committed = {}
        except StoreError:  # one of them spoils the statement; which, shows when each has its own
            committed = {}
        rest = []
        settled = False
        for at, job in enumerate(jobs):
            if at in committed:
                settled = settled or job.write.settle is not None
                job.answer(Verdict.COMMITTED)
            else:
                job.plain = False
                rest.append(job)
        if committed:
            self._rung(any(committed.values()), News.STATES if settled else News.STEPS)
        if rest:
            self._waiting = rest + self._waiting
            self._stir(False)  # noqa: FBT003

    async def _full(self, jobs: Sequence[Job]) -> None:
        try:
            outcomes, desk = await self._together(jobs)
        except StoreError as error:
            # A lock that somebody holds for long (a user's transaction: the line of a child) is one job's trouble alone.
            if isinstance(error, StoreUnavailable) and not isinstance(error.__cause__, asyncpg.LockNotAvailableError):
                _answer(jobs, error)
            elif len(jobs) == 1:
                jobs[0].answer(_named(error, jobs[0].write))
            else:
                for job in jobs:
                    await self._full([job])
            return
        for job, outcome in zip(jobs, outcomes, strict=True):
            job.answer(outcome)
        if desk.work or desk.news:
            self._rung(desk.work, desk.news)

    async def _together(self, jobs: Sequence[Job]) -> tuple[list[Verdict | StoreError], Desk]:
        pool = self._pools[False]
        writes = [job.write for job in jobs]
        unknown = self._lanes.unknown(lanes_of([child for write in writes for child in write.children]))
        if unknown:
            async with pool.statement() as db:
                await self._lanes.make(db, unknown)

        async def work(db: Db) -> tuple[list[Verdict | StoreError], Desk]:
            batch = Batch(db, self._lanes, writes)
            return await batch.apply(), batch.desk

        return await pool.again(work)

    async def finish(self) -> None:
        """Take nothing more, and return when what was handed in is answered."""
        self._closed = True
        while self._tasks:
            await asyncio.wait(list(self._tasks.values()))

    def abandon(self) -> None:
        """Wait for no answer any more: whether what is under way was committed, nobody knows."""
        self._closed = True
        waiting, self._waiting = self._waiting, []
        _answer(waiting, StoreUnavailable(f"{self._where}: closed before it answered"))
        for task in self._tasks.values():
            task.cancel()
        for pool in self._pools.values():
            pool.cut()

    async def close(self) -> None:
        """Finish what was handed in, then close the connections."""
        await self.finish()
        for pool in self._pools.values():
            await pool.close()


def _named(error: StoreError, write: Write) -> StoreError:
    """Say what a refused statement means for a write."""
    cause = error.__cause__
    if isinstance(cause, asyncpg.UniqueViolationError) and cause.constraint_name == "journal_once":
        refused = StoreError(f"run {write.ref.run_id}: a journal entry repeats one that is there already: {cause.detail}")
        refused.__cause__ = cause
        return refused
    return error


def _answer(jobs: Sequence[Job], error: Exception) -> None:
    for job in jobs:
        job.answer(error)

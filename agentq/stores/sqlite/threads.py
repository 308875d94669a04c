"""The two threads of a store: one commits whatever waits as one transaction, the other reads snapshots beside it."""

from __future__ import annotations

import asyncio
import contextlib
import queue
import sqlite3
import threading
import time
from collections import defaultdict
from typing import TYPE_CHECKING, Any, Final, TypeVar

from agentq.errors import NotOpen
from agentq.stores.sqlite import writes
from agentq.stores.sqlite.connection import fault
from agentq.stores.sqlite.desk import Desk, News

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from agentq.message import Verdict, Write
    from agentq.stores.sqlite.gate import Gate

T = TypeVar("T")

BATCH: Final = 1000
"""Most jobs that share a transaction."""

_PAUSE_S: Final = {News.NONE: 0.0, News.STEPS: 0.05, News.STATES: 0.002}
"""How long after a ring the next of its kind may come, in seconds."""


class Job:
    """One verb in a thread's hands."""

    __slots__ = ("error", "future", "loop", "peek", "result", "work", "write")

    def __init__(self, work: Callable[[Desk], Any], peek: Callable[[Desk], Any] | None, write: Write | None) -> None:
        """``peek`` may answer without a transaction (None: it cannot); ``write`` is for the fast path."""
        self.loop = asyncio.get_running_loop()
        self.future: asyncio.Future[Any] = self.loop.create_future()
        self.work = work
        self.peek = peek
        self.write = write
        self.result: Any = None
        self.error: BaseException | None = None


class _Clerk:
    """A thread with a queue of jobs. Jobs may come from any event loop."""

    def __init__(self, desk: Desk, name: str, where: str) -> None:
        self.desk = desk
        self.where = where
        self._jobs: queue.SimpleQueue[Job | None] = queue.SimpleQueue()
        self._closed = False
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)
        self._thread.start()

    def do(self, work: Callable[[Desk], T], *, peek: Callable[[Desk], T | None] | None = None) -> asyncio.Future[T]:
        """Hand ``work`` in; the future belongs to the running event loop."""
        return self._put(Job(work, peek, None))

    def _put(self, job: Job) -> asyncio.Future[Any]:
        if self._closed:
            raise NotOpen(f"the store {self.where} is closed")
        self._jobs.put(job)
        return job.future

    def close(self) -> None:
        """Finish what was handed in, then end. Blocks."""
        self._closed = True
        self._jobs.put(None)
        self._thread.join()
        self.desk.db.close()

    def _run(self) -> None:
        jobs: list[Job] = []
        while self._take(jobs):
            try:
                self._serve(jobs)
            except Exception as error:  # noqa: BLE001 - a thread that died would leave everybody waiting
                for job in jobs:
                    job.error = job.error or error
            _answer(jobs)
            jobs = []
        self._end()

    def _end(self) -> None:
        """Refuse what came in while the store was being closed."""
        late: list[Job] = []
        while not self._jobs.empty():
            job = self._jobs.get()
            if job is not None:
                job.error = NotOpen(f"the store {self.where} was closed")
                late.append(job)
        _answer(late)

    def _take(self, jobs: list[Job]) -> bool:
        """Collect what waits; False when the thread is to end."""
        raise NotImplementedError

    def _serve(self, jobs: Sequence[Job]) -> None:
        """Give every job a result or an error."""
        raise NotImplementedError


class Reader(_Clerk):
    """Reads, each in its own snapshot."""

    def _take(self, jobs: list[Job]) -> bool:
        job = self._jobs.get()
        if job is None:
            return False
        jobs.append(job)
        return True

    def _serve(self, jobs: Sequence[Job]) -> None:
        for job in jobs:
            db = self.desk.db
            try:
                self.desk.begin()
                db.execute("begin")
                job.result = job.work(self.desk)
            except sqlite3.Error as error:
                job.error = fault(error, self.where)
            except Exception as error:  # noqa: BLE001 - it belongs to whoever asked
                job.error = error
            finally:
                if db.in_transaction:
                    db.execute("rollback")


class Writer(_Clerk):
    """Writes: group commit, one verdict for each, no one's error for another."""

    def __init__(self, desk: Desk, gate: Gate, rung: Callable[[bool, bool], None], where: str) -> None:
        """``rung(work, news)`` is told of commits after they are durable."""
        self._gate = gate
        self._rung = rung
        self._told = 0.0
        self._untold = News.NONE
        self._ended = False
        super().__init__(desk, "agentq-writer", where)

    def write(self, write: Write) -> asyncio.Future[Verdict]:
        """Hand a claim's write in."""
        return self._put(Job(lambda desk: writes.apply(desk, write), None, write))

    def _take(self, jobs: list[Job]) -> bool:
        if self._ended:
            return False
        try:
            job = self._jobs.get(timeout=self._patience())
        except queue.Empty:
            self._tell(work=False)
            return True
        while job is not None:
            jobs.append(job)
            if len(jobs) >= BATCH:
                return True
            try:
                job = self._jobs.get_nowait()
            except queue.Empty:
                return True
        self._ended = True
        return True

    def _end(self) -> None:
        if self._untold is not News.NONE:
            self._rung(False, True)  # noqa: FBT003 - work, news
        super()._end()

    def _patience(self) -> float | None:
        if self._untold is News.NONE:
            return None
        return max(0.0, self._told + _PAUSE_S[self._untold] - time.monotonic())

    def _tell(self, *, work: bool) -> None:
        """Ring for what was committed: work at once, news not too often."""
        now = time.monotonic()
        news = self._untold is not News.NONE and now >= self._told + _PAUSE_S[self._untold]
        if news:
            self._untold = News.NONE
            self._told = now
        if work or news:
            self._rung(work, news)

    def _serve(self, jobs: Sequence[Job]) -> None:
        self.desk.begin()
        rest = [job for job in jobs if not self._peeked(job)]
        if not rest:
            return
        try:
            with self._gate.passing():
                self._transact(rest)
        except Exception as error:  # noqa: BLE001 - the whole batch failed; everybody hears it
            for job in rest:
                job.result, job.error = None, self._unknown(error)
            return
        self._untold = max(self._untold, self.desk.news)
        self._tell(work=self.desk.work)

    def _peeked(self, job: Job) -> bool:
        if job.peek is None:
            return False
        try:
            job.result = job.peek(self.desk)
        except sqlite3.Error as error:
            job.error = fault(error, self.where)
        return job.result is not None or job.error is not None

    def _unknown(self, error: Exception) -> Exception:
        return fault(error, self.where) if isinstance(error, sqlite3.Error | OSError) else error

    def _transact(self, jobs: Sequence[Job]) -> None:
        self._begin()
        try:
            self._together(jobs)
            self.desk.db.execute("commit")
        except Exception:  # noqa: BLE001 - whose fault it is shows when each has a savepoint of its own
            self._rollback()
            self._begin()
            try:
                for job in jobs:
                    self._alone(job)
                self.desk.db.execute("commit")
            finally:
                self._rollback()

    def _begin(self) -> None:
        self.desk.begin()
        self.desk.db.execute("begin immediate")

    def _rollback(self) -> None:
        if self.desk.db.in_transaction:
            with contextlib.suppress(sqlite3.Error):
                self.desk.db.execute("rollback")
            self.desk.lanes.forget()

    def _together(self, jobs: Sequence[Job]) -> None:
        """Plain writes in bulk, then the others in their order; raises on the first that fails."""
        bulk: list[Job] = []
        others: list[Job] = []
        held: set[str] = set()
        for job in jobs:
            write = job.write
            if write is None:
                others.append(job)
            elif write.ref.run_id not in held and writes.plain(write):
                bulk.append(job)
            else:
                held.add(write.ref.run_id)  # its later writes come after this one
                others.append(job)
        if bulk:
            verdicts = writes.apply_plain(self.desk, [job.write for job in bulk if job.write is not None])
            for job, verdict in zip(bulk, verdicts, strict=True):
                job.result = verdict
        for job in others:
            job.result = job.work(self.desk)

    def _alone(self, job: Job) -> None:
        """One job in a savepoint. Raises only where SQLite gave up the whole transaction."""
        db = self.desk.db
        db.execute("savepoint job")
        try:
            job.result, job.error = job.work(self.desk), None
            db.execute("release job")
        except Exception as error:
            job.result, job.error = None, self._unknown(error)
            if not db.in_transaction:
                raise
            db.execute("rollback to job")
            db.execute("release job")
            self.desk.lanes.forget()


def _answer(jobs: Sequence[Job]) -> None:
    """Resolve the futures, with one wake-up per event loop."""
    by_loop: dict[asyncio.AbstractEventLoop, list[Job]] = defaultdict(list)
    for job in jobs:
        by_loop[job.loop].append(job)
    for loop, its_jobs in by_loop.items():
        with contextlib.suppress(RuntimeError):  # the loop was closed; nobody waits any more
            loop.call_soon_threadsafe(_resolve, its_jobs)


def _resolve(jobs: Sequence[Job]) -> None:
    for job in jobs:
        if job.future.done():
            continue
        if job.error is not None:
            job.future.set_exception(job.error)
        else:
            job.future.set_result(job.result)

"""`SQLiteStore`: the contract of a store, fulfilled by the rooms of this package."""

from __future__ import annotations

import asyncio
import os
import sqlite3
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Final, Self, TypeAlias

import msgspec

from agentq.clock import SystemClock
from agentq.errors import NotFound, NotOpen, StoreMissing, StoreUnavailable
from agentq.message import Claim, Claims, Released, Write
from agentq.stores.sqlite import arrivals, commands, letters, producer, reads, rows
from agentq.stores.sqlite import census as counting
from agentq.stores.sqlite import claims as owning
from agentq.stores.sqlite import sweep as sweeping
from agentq.stores.sqlite.bell import Bell
from agentq.stores.sqlite.connection import BUSY_S, connect, fault
from agentq.stores.sqlite.desk import Desk
from agentq.stores.sqlite.gate import Gate
from agentq.stores.sqlite.liveness import Liveness, boot_id
from agentq.stores.sqlite.schema import migrate
from agentq.stores.sqlite.threads import Reader, Writer
from agentq.stores.ticks import NEWS, WORK, Ticks

if TYPE_CHECKING:
    from collections.abc import Sequence
    from types import TracebackType

    from agentq.clock import Clock
    from agentq.message import (
        Admission,
        Arrival,
        Beat,
        Census,
        Chunk,
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
    from agentq.stores.sqlite.rows import Row

Taken: TypeAlias = "tuple[list[Claim | Row], float | None]"
"""What a claim took, those with a journal still as rows, and the seconds until something is due."""

ATOMIC_SUBMIT: Final = 5000
"""Envelopes in one transaction."""


class SQLiteStore:
    """One SQLite file in WAL mode with full synchronisation. Fulfils `agentq.stores.base.Store`.

    Beside the file lies a folder ``<file>-live`` with the locks and sockets of the processes that have it open.
    """

    def __init__(
        self, path: str | os.PathLike[str], *, clock: Clock | None = None, boot: str | None = None, create: bool = True
    ) -> None:
        """``path`` is made if missing and ``create``; ``boot`` is whose steady clock counts, else the machine's now."""
        self._create = create
        self._path = Path(path).expanduser().resolve()
        self._clock = clock or SystemClock()
        self._boot = boot_id() if boot is None else boot
        self._stack: ExitStack | None = None
        self._ticks = Ticks()

    @property
    def where(self) -> str:
        """The file's absolute path."""
        return str(self._path)

    @property
    def shared(self) -> bool:
        """Other processes of this machine can open the same file."""
        return True

    async def __aenter__(self) -> Self:
        """Open the file and migrate it, start the threads.

        Raises:
            StoreMissing: there is no file, and none is to be made.
        """
        if self._stack is not None:
            raise NotOpen(f"the store {self.where} is open already; make another SQLiteStore for another user of it")
        self._stack = await asyncio.to_thread(self._open)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None, /
    ) -> None:
        """Finish what was handed in, then close."""
        stack, self._stack = self._stack, None
        if stack is not None:
            await asyncio.to_thread(stack.close)

    def _open(self) -> ExitStack:
        if not self._create and not self._path.exists():
            raise StoreMissing(f"there is no store at {self.where}")
        with ExitStack() as stack:
            try:
                folder = self._path.with_name(self._path.name + "-live")
                reading, writing = self._connect(stack), self._connect(stack)
                folder.mkdir(mode=0o700, exist_ok=True)
                self._liveness = Liveness(folder)
                stack.callback(self._liveness.close)
                self._liveness.tidy()
                gate = Gate(folder, BUSY_S)
                stack.callback(gate.close)
                with gate.passing():
                    migrate(writing, self.where)
                    self._note_boot(writing)
                self._bell = Bell(folder, self._ticks)
                stack.callback(self._bell.close)
            except (sqlite3.Error, OSError) as error:
                raise fault(error, self.where) from error
            self._opened = self._identity()
            self._reader = Reader(Desk(reading, self._clock), "agentq-reader", self.where)
            stack.callback(self._reader.close)
            self._writer = Writer(Desk(writing, self._clock), gate, self._rung, self.where)
            stack.callback(self._writer.close)
            return stack.pop_all()

    def _identity(self) -> tuple[int, int] | None:
        """Which file the path names now; its inode is asked for without opening it, which would drop SQLite's locks."""
        try:
            found = self._path.stat()
        except OSError:
            return None
        return found.st_dev, found.st_ino

    def _check_file(self) -> None:
        """Raise when the path names another file than the one that is open: what is written there nobody else will see."""
        if self._identity() != self._opened:
            raise StoreUnavailable(
                f"the file {self.where} was deleted or replaced while it was open; put it back, or restart this process"
            )

    def _connect(self, stack: ExitStack) -> sqlite3.Connection:
        db = connect(self._path)
        stack.callback(db.close)
        return db

    def _note_boot(self, db: sqlite3.Connection) -> None:
        """After a reboot the steady clock started anew and every worker is gone: expire all leases."""
        row = db.execute("select value from meta where key = 'boot'").fetchone()
        if row is not None and row[0] == self._boot:
            return
        db.execute("begin immediate")
        db.execute("insert or replace into meta (key, value) values ('boot', ?)", (self._boot,))
        db.execute("update run set lease_until = ? where lease_until is not null", (self._clock.steady(),))
        db.execute("delete from worker")
        db.execute("commit")

    def _rung(self, work: bool, news: bool) -> None:  # noqa: FBT001 - called by position from the writer alone
        if work:
            self._ticks.bump(WORK)
        if news:
            self._ticks.bump(NEWS)
        self._bell.ring(b"wn" if work and news else b"w" if work else b"n")

    @property
    def _write(self) -> Writer:
        if self._stack is None:
            raise NotOpen(f"the store {self.where} is not open; use it inside `async with`")
        return self._writer

    @property
    def _read(self) -> Reader:
        if self._stack is None:
            raise NotOpen(f"the store {self.where} is not open; use it inside `async with`")
        return self._reader

    async def submit(self, envelopes: Sequence[Envelope]) -> list[Submitted]:
        """See `ProducerStore.submit`."""
        answers: list[Submitted] = []
        for start in range(0, len(envelopes), ATOMIC_SUBMIT):
            part = envelopes[start : start + ATOMIC_SUBMIT]
            answers += await self._write.do(lambda desk, part=part: producer.submit(desk, part))  # type: ignore[misc]
        return answers

    async def keep(self, data: bytes) -> str:
        """See `ProducerStore.keep`."""
        return await self._write.do(lambda desk: arrivals.keep(desk, data))

    async def admit(self, admission: Admission) -> list[Submitted]:
        """See `IntakeStore.admit`."""
        return await self._write.do(lambda desk: arrivals.admit(desk, admission))

    async def positions(self, source: str) -> dict[int, int]:
        """See `IntakeStore.positions`."""
        return await self._read.do(lambda desk: arrivals.positions(desk.db, source))

    async def command(self, command: Command) -> Reply:
        """See `ProducerStore.command`."""
        return await self._write.do(lambda desk: commands.command(desk, command))

    async def beat(self, worker: Worker, claims: Sequence[ClaimRef], lease_s: float) -> Beat:
        """See `WorkerStore.beat`."""

        def work(desk: Desk) -> Beat:
            self._check_file()
            self._liveness.hold(worker.id)
            return owning.beat(desk, worker, claims, lease_s)

        return await self._write.do(work)

    async def leave(self, worker_id: str) -> None:
        """See `WorkerStore.leave`."""

        def work(desk: Desk) -> None:
            owning.leave(desk, worker_id)

        await self._write.do(work)
        self._liveness.drop(worker_id)

    async def claim(self, request: ClaimRequest) -> Claims:
        """See `WorkerStore.claim`."""
        dead: list[str] = []

        def peek(desk: Desk) -> Taken | None:
            self._liveness.hold(request.worker)
            if self._liveness.due():
                dead.extend(self._liveness.dead(owning.owners(desk.db)))
            answer = None if dead else owning.idle(desk, request)
            return None if answer is None else ([], answer.next_due_s)

        def work(desk: Desk) -> Taken:
            owning.bury(desk, dead)
            taken, due_s = owning.claim(desk, request)
            return [owning.load(desk, row) if owning.fresh(row) else row for row in taken], due_s

        handed = self._write.do(work, peek=peek)
        try:
            found, due_s = await asyncio.shield(handed)
            self._liveness.bury(dead)
            claims = tuple(item for item in found if isinstance(item, Claim))
            if len(claims) < len(found):
                # Journals may be long: they are read beside the writer, under a claim that nobody else can write to.
                claims = await self._read.do(lambda desk: tuple(_loaded(desk, item) for item in found))
        except asyncio.CancelledError:
            # Whoever asked is gone: its runs must not wait for the end of a lease that nobody renews.
            handed.add_done_callback(self._hand_back)
            raise
        return Claims(claims=claims, next_due_s=due_s)

    def _hand_back(self, handed: asyncio.Future[Taken]) -> None:
        if handed.cancelled() or handed.exception() is not None or self._stack is None:
            return
        for item in handed.result()[0]:
            ref = item.ref if isinstance(item, Claim) else owning.reference(item)
            released = self._writer.write(Write(ref=ref, settle=Released(reason="unclaimed")))
            released.add_done_callback(lambda done: done.cancelled() or done.exception())

    async def write(self, write: Write) -> Verdict:
        """See `WorkerStore.write`."""
        return await self._write.write(write)

    async def inbox(self, run_ids: Sequence[str]) -> list[Arrival]:
        """See `WorkerStore.inbox`."""
        return await self._read.do(lambda desk: reads.inbox(desk.db, run_ids))

    async def sweep(self, *, retention_s: float, limit: int = 1000) -> int:
        """See `WorkerStore.sweep`."""
        gone = 0
        while gone < limit:
            chunk = min(sweeping.CHUNK, limit - gone)
            went = await self._write.do(lambda desk, chunk=chunk: sweeping.sweep(desk, retention_s, chunk))  # type: ignore[misc]
            gone += went
            if went < chunk:
                break
        return gone

    async def runs(self, query: RunQuery) -> list[Run]:
        """See `ReaderStore.runs`."""
        return await self._read.do(lambda desk: reads.runs(desk, query))

    async def journal(self, run_id: str, after: int = -1) -> list[Entry]:
        """See `ReaderStore.journal`."""

        def work(desk: Desk) -> list[Entry]:
            n = reads.number(desk.db, run_id)
            return [] if n is None else rows.journal(desk.db, n, after)

        return await self._read.do(work)

    async def waits(self, run_id: str) -> list[Wait]:
        """See `ReaderStore.waits`."""

        def work(desk: Desk) -> list[Wait]:
            n = reads.number(desk.db, run_id)
            return [] if n is None else rows.waits(desk.db, n)

        return await self._read.do(work)

    async def stream(self, run_id: str, after: int = 0, limit: int = 1000) -> list[Chunk]:
        """See `ReaderStore.stream`."""
        return await self._read.do(lambda desk: reads.stream(desk.db, run_id, after, limit))

    async def census(self) -> Census:
        """See `ReaderStore.census`."""

        def work(desk: Desk) -> Census:
            seen = counting.census(desk)
            there = tuple(worker for worker in seen.workers if not self._liveness.gone(worker.id))
            return msgspec.structs.replace(seen, workers=there)

        return await self._read.do(work)

    async def blob(self, sha: str) -> bytes:
        """See `ReaderStore.blob`."""
        found = await self._read.do(lambda desk: rows.blob(desk.db, sha) or arrivals.parcel(desk.db, sha))
        if found is None:
            raise NotFound(f"no blob {sha} in {self.where}")
        return found

    async def letters(self, query: LetterQuery) -> list[DeadLetter]:
        """See `ReaderStore.letters`."""
        return await self._read.do(lambda desk: letters.find(desk, query))

    async def watch(self, topic: str, seen: int, wait_s: float) -> int:
        """See `ReaderStore.watch`."""
        return await self._ticks.watch(topic, seen, wait_s)


def _loaded(desk: Desk, item: Claim | Row) -> Claim:
    return item if isinstance(item, Claim) else owning.load(desk, item)

"""A run's only writer: numbers its entries, keeps one write in flight and lets the rest gather behind it."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from enum import IntEnum
from typing import Protocol

from agentq.clock import Clock
from agentq.errors import StoreError, StoreUnavailable
from agentq.journal import History
from agentq.message import Chunk, ClaimRef, Entry, EntryKind, Envelope, Settlement, Verdict, Wait, Write
from agentq.stores.base import WorkerStore
from agentq.telemetry.outage import outage_of

FLUSH_S = 0.1
"""Streamed pieces and progress wait so long for a journal entry to travel with."""
FLUSH_CHUNKS = 256
"""…or until there are so many of them."""
Sleep = Callable[[float], Awaitable[None]]
Alone = Callable[[], Awaitable[Entry | None]]
"""Commits one entry by itself; answers what takes the entry's place in the journal where it could not, once that is certain."""
_BACKOFF_S = (0.05, 0.1, 0.2, 0.5, 1.0, 2.0)


class Stop(IntEnum):
    """Why a run's code is being stopped; a higher one overrules a lower."""

    SUSPEND = 1
    PAUSE = 2
    DRAIN = 3
    ATTEMPT_TIMEOUT = 4
    TIMEOUT = 5
    DEADLINE = 6
    BROKEN = 7
    CANCEL = 8
    LOST = 9


class Lease(Protocol):
    """What a ledger must know of its claim."""

    ref: ClaimRef

    def fenced(self) -> bool:
        """Whether the claim has gone unconfirmed for so long that somebody may soon take it."""
        ...


@dataclass(slots=True, eq=False)
class _Part:
    entries: tuple[Entry, ...] = ()
    waits: tuple[Wait, ...] = ()
    children: tuple[Envelope, ...] = ()
    signals: tuple[int, ...] = ()
    snapshot: tuple[str, bytes] | None = None
    done: asyncio.Future[None] | None = None
    alone: Alone | None = None


class Ledger:
    """Commits what one claim of a run does, in order.

    One write is in flight at a time; parts that come meanwhile travel together in the next. A write whose outcome is
    unknown is sent again as it was, until the store answers or the lease is no longer safe.
    """

    def __init__(
        self,
        store: WorkerStore,
        lease: Lease,
        history: History,
        clock: Clock,
        stop: Callable[[Stop, str], None],
        sleep: Sleep = asyncio.sleep,
    ) -> None:
        """``stop`` is called when the store's answer ends the run here: lost, cancelled or broken."""
        self._sleep = sleep
        self._store = store
        self._lease = lease
        self._history = history
        self._clock = clock
        self._stop = stop
        self._outbox: list[_Part] = []
        self._unanswered: Write | None = None
        self._sending = False
        self._flusher: asyncio.Task[None] | None = None
        self._chunks: list[Chunk] = []
        self._chunk_count = 0
        self._progress: tuple[float | None, str] | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._closed = False
        self._refused: Stop | None = None
        self.grown_at = clock.steady()
        """Steady time of the last entry, or of the claim."""

    @property
    def busy(self) -> bool:
        """Whether something is on its way to the store."""
        return self._sending

    @property
    def safe(self) -> bool:
        """Whether the claim is still confirmed."""
        return not self._lease.fenced()

    def entry(
        self,
        kind: EntryKind,
        place: tuple[str, str, int],
        *,
        attempt: int = 1,
        args_hash: str = "",
        value: bytes | None = None,
        started_at: float | None = None,
        tokens: int = 0,
        cost_nanos: int = 0,
        keep: bool = True,
    ) -> Entry:
        """Number an entry and take it into the history (``keep``: or not yet); the caller commits it in the same breath."""
        now = self._clock.wall()
        entry = Entry(
            seq=self._history.next_seq if keep else self._history.reserve(),
            kind=kind,
            step=place[1],
            branch=place[0],
            occurrence=place[2],
            attempt=attempt,
            epoch=self._lease.ref.epoch,
            args_hash=args_hash,
            value=value,
            started_at=now if started_at is None else started_at,
            ended_at=now,
            tokens=tokens,
            cost_nanos=cost_nanos,
        )
        if keep:
            self.keep(entry)
        return entry

    def keep(self, entry: Entry) -> None:
        """Take an entry into the history."""
        self._history.append(entry)
        self.grown_at = self._clock.steady()

    async def begin(self) -> bool:
        """Note that the code of a suspect begins; whether the run is still ours."""
        verdict, _ = await deliver(self._store, self._lease, Write(ref=self._lease.ref, begins=True), self._sleep)
        return verdict in {Verdict.COMMITTED, Verdict.CANCELLED}

    async def commit(
        self,
        *entries: Entry,
        waits: tuple[Wait, ...] = (),
        children: tuple[Envelope, ...] = (),
        signals: tuple[int, ...] = (),
        snapshot: tuple[str, bytes] | None = None,
    ) -> None:
        """Make entries and what belongs to them durable; returns when the store has said so.

        Where the store says that the run is no longer ours, or is cancelled, this never returns: the run is being stopped
        and the caller is cancelled with it.
        """
        if self._closed:
            raise asyncio.CancelledError("the run is over")
        part = _Part(entries, waits, children, signals, snapshot)
        if self._sending or self._outbox or self._unanswered is not None:
            part.done = asyncio.get_running_loop().create_future()
            self._outbox.append(part)
            if not self._sending:
                self._flush_soon()
            await part.done
            return
        self._sending = True
        try:
            committed = await self._send(self._merge([part]))
        finally:
            self._sending = False
            if self._outbox or self._unanswered is not None:
                self._flush_soon()
        if not committed:
            await asyncio.get_running_loop().create_future()

    async def commit_alone(self, work: Alone) -> None:
        """Have ``work`` commit its entry when all before it is committed, and nothing else be sent until it is done.

        It is called, or goes on, also where the caller is cancelled. An entry that it answers is committed before this returns.
        """
        if self._closed:
            raise asyncio.CancelledError("the run is over")
        done: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._outbox.append(_Part(alone=work, done=done))
        if not self._sending:
            self._flush_soon()
        await done

    def post(self, *entries: Entry) -> None:
        """Send entries that nobody waits for, in order with all others; they are durable before the run is settled."""
        self._outbox.append(_Part(entries))
        if not self._sending:
            self._flush_soon()

    def stream(self, topic: str, payload: bytes, branch: str) -> None:
        """Send a piece out with the next write, or soon."""
        if self._closed:
            return
        self._chunks.append(
            Chunk(
                topic=topic,
                payload=payload,
                epoch=self._lease.ref.epoch,
                n=self._chunk_count,
                at=self._clock.wall(),
                branch=branch,
            )
        )
        self._chunk_count += 1
        self._arm(0.0 if len(self._chunks) >= FLUSH_CHUNKS else FLUSH_S)

    def progress(self, fraction: float | None, note: str) -> None:
        """Show progress with the next write, or soon; only the last word counts."""
        if not self._closed:
            self._progress = (fraction, note)
            self._arm(FLUSH_S)

    async def settle(self, settlement: Settlement, running_s: float, *entries: Entry) -> Verdict:
        """Write the run's outcome after all that is on its way, and commit nothing more.

        Returns `Verdict.FENCED` also when the lease is no longer safe: then nothing is written.
        """
        self._closed = True
        while (self._sending or self._outbox or self._unanswered is not None) and self._refused is None:
            self._flush_soon()
            if self._flusher is not None:
                await asyncio.wait([self._flusher])
        if self._refused is Stop.LOST:
            return Verdict.FENCED
        write = Write(
            ref=self._lease.ref,
            entries=entries if self._refused is None else (),
            chunks=tuple(self._chunks),
            progress=self._progress,
            settle=settlement,
            running_s=running_s,
        )
        self._disarm()
        verdict, _ = await deliver(self._store, self._lease, write, self._sleep)
        return verdict or Verdict.FENCED

    def _merge(self, parts: list[_Part]) -> Write:
        chunks, self._chunks = tuple(self._chunks), []
        progress, self._progress = self._progress, None
        self._disarm()
        if len(parts) == 1:
            (part,) = parts
            return Write(
                ref=self._lease.ref,
                entries=part.entries,
                waits=part.waits,
                children=part.children,
                signals=part.signals,
                snapshot=part.snapshot,
                chunks=chunks,
                progress=progress,
            )
        return Write(
            ref=self._lease.ref,
            entries=tuple(entry for part in parts for entry in part.entries),
            waits=tuple(wait for part in parts for wait in part.waits),
            children=tuple(child for part in parts for child in part.children),
            signals=tuple(number for part in parts for number in part.signals),
            snapshot=next((part.snapshot for part in parts if part.snapshot), None),
            chunks=chunks,
            progress=progress,
        )

    async def _send(self, write: Write) -> bool:
        """Whether the write is durable; if not, the run is being stopped."""
        self._unanswered = write
        verdict, reason = await deliver(self._store, self._lease, write, self._sleep)
        self._unanswered = None
        if verdict is Verdict.COMMITTED:
            return True
        self.refuse(verdict, reason)
        return False

    def refuse(self, verdict: Verdict | None, reason: str) -> None:
        """Stop the run: the store took its last write for good, or there is no telling."""
        self._closed = True
        if verdict is Verdict.CANCELLED:
            self._refused = Stop.CANCEL
        elif verdict is Verdict.FENCED or self._lease.fenced():
            self._refused = Stop.LOST
        else:
            self._refused = Stop.BROKEN
        self._outbox.clear()
        self._stop(self._refused, reason)

    def _flush_soon(self) -> None:
        if self._flusher is None or self._flusher.done():
            self._flusher = asyncio.get_running_loop().create_task(self._flush())

    async def _flush(self) -> None:
        """Send what gathered, until there is nothing left."""
        if self._sending:
            return
        self._sending = True
        try:
            if self._unanswered is not None and not await self._send(self._unanswered):
                return
            while self._outbox or self._chunks or self._progress is not None:
                if self._outbox and self._outbox[0].alone is not None:
                    if not await self._let_alone(self._outbox.pop(0)):
                        return
                    continue
                parts = self._next_parts()
                if not await self._send(self._merge(parts)):
                    return
                for part in parts:
                    if part.done is not None and not part.done.done():
                        part.done.set_result(None)
        except Exception as error:  # noqa: BLE001 - a defect of ours, or of a driver's, must not leave the run waiting for ever
            self.refuse(None, f"internal error: {error!r}")
        finally:
            self._sending = False

    async def _let_alone(self, part: _Part) -> bool:
        """Whether the run goes on."""
        substitute = None if part.alone is None else await part.alone()
        if self._refused is not None:
            return False
        if substitute is not None:
            self.keep(substitute)
            if not await self._send(Write(ref=self._lease.ref, entries=(substitute,))):
                return False
        if part.done is not None and not part.done.done():
            part.done.set_result(None)
        return True

    def _next_parts(self) -> list[_Part]:
        """All that waits, up to the second snapshot: a write carries one. What commits alone ends them too."""
        taken: list[_Part] = []
        snapshots = 0
        while self._outbox:
            snapshots += self._outbox[0].snapshot is not None
            if snapshots > 1 or self._outbox[0].alone is not None:
                break
            taken.append(self._outbox.pop(0))
        return taken

    def close(self) -> None:
        """Send nothing more."""
        self._closed = True
        self._disarm()
        if self._flusher is not None:
            self._flusher.cancel()

    def _arm(self, delay_s: float) -> None:
        if delay_s == 0.0:
            self._disarm()
            self._flush_soon()
        elif self._timer is None:
            self._timer = asyncio.get_running_loop().call_later(delay_s, self._timed)

    def _timed(self) -> None:
        self._timer = None
        if not self._closed:
            self._flush_soon()

    def _disarm(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None


async def deliver(store: WorkerStore, lease: Lease, write: Write, sleep: Sleep = asyncio.sleep) -> tuple[Verdict | None, str]:
    """Send a write until it is answered, as it is: the store knows a repetition.

    No verdict when the lease became unsafe first, or when the store will never take this write.
    """
    tries = 0
    while not lease.fenced():
        try:
            verdict = await store.write(write)
        except StoreUnavailable as error:
            outage_of(store).met(error, verb="write")
        except StoreError as error:
            return None, str(error)
        else:
            if tries:
                outage_of(store).over()
            return verdict, f"the store answered {verdict}"
        await sleep(_BACKOFF_S[min(tries, len(_BACKOFF_S) - 1)])
        tries += 1
    return None, "the lease was not confirmed in time"

"""The in-memory store's rules of ownership: beat, claim, write, settle, sweep. No I/O, no locks."""

from __future__ import annotations

import hashlib
import secrets
from typing import TYPE_CHECKING

import msgspec

from agentq.errors import StoreError
from agentq.message import (
    Arrival,
    Beat,
    Cancelled,
    Claims,
    Crashed,
    EntryKind,
    Failed,
    Failure,
    Released,
    Retried,
    RunState,
    Succeeded,
    Suspended,
    Verdict,
    WaitKind,
    WorkerState,
)
from agentq.stores.memory_ledger import Ledger, Seen

if TYPE_CHECKING:
    from collections.abc import Sequence

    from agentq.message import Claim, ClaimRef, ClaimRequest, Entry, Settlement, Wait, Worker, Write
    from agentq.stores.memory_rows import Row

INLINE_BYTES = 32 * 1024
"""Larger entry values are kept as blobs, as the stores with rows on disk do."""

FORGET_WORKER_S = 3600.0
"""A worker not seen for so long is swept."""


class WorkerLedger(Ledger):
    """The rows, and what workers do to them."""

    def beat(self, worker: Worker, claims: Sequence[ClaimRef], lease_s: float) -> Beat:
        """See `WorkerStore.beat`."""
        steady = self.clock.steady()
        known = self.workers.get(worker.id)
        state = worker.state if known is None else known.worker.state
        worker = msgspec.structs.replace(worker, state=state, seen_at=self.clock.wall())
        self.workers[worker.id] = Seen(worker, steady, lease_s)
        lost: list[ClaimRef] = []
        mine: list[Row] = []
        for ref in claims:
            row = self.rows.get(ref.run_id)
            if row is None or not row.owned_by(ref):
                lost.append(ref)
                continue
            row.lease_until, row.beat_at = steady + lease_s, steady
            mine.append(row)
        return Beat(
            lost=tuple(lost),
            cancel=tuple(row.id for row in mine if row.cancelling),
            pause=tuple(row.id for row in mine if row.paused),
            arrivals=tuple(row.id for row in mine if any(self.arrived(row, wait) for wait in row.waits.values())),
            state=state,
        )

    def leave(self, worker_id: str) -> None:
        """See `WorkerStore.leave`."""
        self.workers.pop(worker_id, None)
        steady = self.clock.steady()
        for row in self.live.values():
            if row.state is RunState.RUNNING and row.owner == worker_id:
                row.lease_until = min(row.lease_until, steady)

    def claim(self, request: ClaimRequest) -> Claims:
        """See `WorkerStore.claim`."""
        wall, steady = self.clock.wall(), self.clock.steady()
        self._promote(request.app, wall, steady)
        ready = self._ready(request, wall, steady)
        seen = self.workers.get(request.worker)
        if seen is not None and seen.worker.state is not WorkerState.ACTIVE:
            ready = []
        claims = tuple(self._take(row, request, wall, steady) for row in ready[: max(request.limit, 0)])
        dues = [row.wakes_at for row in self.live.values() if row.base.app == request.app]
        later = [due - wall for due in dues if due is not None and due > wall]
        return Claims(claims=claims, next_due_s=min(later, default=None))

    def _promote(self, app: str, wall: float, steady: float) -> None:
        """Settle what is cancelled or late and runs nowhere; queue what has waited long enough."""
        for row in [row for row in self.live.values() if row.base.app == app]:
            if row.state.final:
                continue  # the end of an earlier one took it along
            nowhere = row.state is not RunState.RUNNING or row.expired(steady)
            if nowhere and row.cancelling:
                self.finish(row, RunState.CANCELLED)
            elif nowhere and row.late(wall):
                message = f"the deadline of run {row.id} passed before it was done"
                self.finish(row, RunState.FAILED, failure=Failure(type="DeadlineExceeded", message=message, permanent=True))
            elif row.state is RunState.WAITING and row.due(wall, steady):
                row.queue(wall)

    def _ready(self, request: ClaimRequest, wall: float, steady: float) -> list[Row]:
        """What this request may have, in order."""
        rank = {queue: n for n, queue in enumerate(request.queues)}
        ready = [
            row
            for row in self.live.values()
            if row.base.app == request.app
            and row.base.queue in rank
            and row.base.task in request.tasks
            and not row.paused
            and row.due(wall, steady)
            and (request.suspects or not row.next_suspect)
            and request.root in {None, row.id, row.base.root_id}
        ]
        return sorted(ready, key=lambda row: (rank[row.base.queue], -row.base.priority, row.rank, row.order))

    def _take(self, row: Row, request: ClaimRequest, wall: float, steady: float) -> Claim:
        taken_over = row.state is RunState.RUNNING
        if taken_over:
            row.takeovers += 1
            row.running_s += row.lived(wall, steady)
            row.deaths, row.losses = (0, 0) if row.grown else (row.deaths, row.losses)
            row.suspect = not row.grown
        row.state = RunState.RUNNING
        row.epoch += 1
        row.token = secrets.randbits(62)
        row.owner = request.worker
        row.lease_until = steady + request.lease_s
        row.claimed_at = row.beat_at = steady
        row.claimed_entries = len(row.journal)
        row.due_at = None
        row.started_at = wall if row.started_at is None else row.started_at
        row.version = request.version.get(row.base.task) if row.version is None else row.version
        return msgspec.structs.replace(row.claim(steady), taken_over=taken_over)

    def write(self, write: Write) -> Verdict:
        """See `WorkerStore.write`."""
        row = self.rows.get(write.ref.run_id)
        if row is None:
            return Verdict.FENCED
        if row.settled is not None and row.settled[0] == write:
            return row.settled[1]
        if not row.owned_by(write.ref):
            return Verdict.FENCED
        entries, blobs = _outlined(write.entries)
        if entries and write.settle is None and _repeats(row, entries):
            return Verdict.COMMITTED
        if write.children and row.cancelling:
            return Verdict.CANCELLED
        _check(row, entries)
        self.blobs.update(blobs)
        self._apply(row, write, entries)
        if write.begins and row.suspect:
            row.suspect, row.losses = False, row.losses + 1
        verdict = Verdict.COMMITTED
        if write.settle is not None:
            verdict = self._settle(row, write.settle, write.running_s)
            row.settled = (write, verdict)
        return verdict

    def _apply(self, row: Row, write: Write, entries: Sequence[Entry]) -> None:
        for envelope in write.children:
            root = envelope.root_id or row.base.root_id or row.id
            self.insert(msgspec.structs.replace(envelope, parent_id=envelope.parent_id or row.id, root_id=root))
        for wait in write.waits:
            self._open(row, wait)
        for entry in entries:
            row.add(entry)
            closed = row.waits.get(entry.identity) if entry.kind is EntryKind.WAITED else None
            if closed is not None:
                self.close(row, closed)
            if entry.kind is EntryKind.SAVED and write.snapshot is not None and write.snapshot[0] == entry.branch:
                row.snapshots[entry.branch] = (entry.seq, write.snapshot[1])
        for mail in row.mail:
            mail.consumed = mail.consumed or mail.number in write.signals
        for chunk in write.chunks:
            if (chunk.epoch, chunk.n) not in row.chunk_keys:
                row.chunk_keys.add((chunk.epoch, chunk.n))
                row.chunks.append(msgspec.structs.replace(chunk, offset=self.number()))
        if write.progress is not None:
            row.progress = write.progress

    def _open(self, row: Row, wait: Wait) -> None:
        place = (wait.branch, wait.step, wait.occurrence)
        if place in row.waits or any(
            entry.kind is EntryKind.WAITED and entry.identity == place and entry.attempt >= wait.attempt
            for entry in row.journal
        ):
            return
        row.waits[place] = wait
        if wait.kind is WaitKind.CHILD:
            self.awaited.setdefault(wait.ref, set()).add(row.id)

    def _settle(self, row: Row, settle: Settlement, running_s: float) -> Verdict:
        row.running_s += running_s
        if row.cancelling or isinstance(settle, Cancelled):
            verdict = Verdict.COMMITTED if isinstance(settle, Cancelled) else Verdict.CANCELLED
            self.finish(row, RunState.CANCELLED)
            return verdict
        if isinstance(settle, Succeeded):
            self.finish(row, RunState.SUCCEEDED, result=settle.result)
        elif isinstance(settle, Failed):
            self.finish(row, RunState.FAILED, failure=settle.failure)
        else:
            self._hand_back(row, settle)
        return Verdict.COMMITTED

    def _hand_back(self, row: Row, settle: Retried | Suspended | Released | Crashed) -> None:
        now = self.clock.wall()
        barren = isinstance(settle, Crashed) and not row.grown
        row.deaths, row.losses = (row.deaths + 1, max(0, row.losses - (not row.suspect))) if barren else (0, 0)
        row.suspect = isinstance(settle, Crashed)
        if isinstance(settle, Suspended):
            row.let_go()
            row.state = RunState.WAITING
            if not row.waits or any(self.arrived(row, w) or _timed_out(w, now) for w in row.waits.values()):
                row.queue(now)
            return
        delay_s = 0.0
        if isinstance(settle, Retried | Crashed):
            row.failure = settle.failure
            delay_s = settle.delay_s
        row.attempt += isinstance(settle, Retried)
        row.queue(
            now, due_at=now + delay_s if delay_s > 0 else None, rank=None if isinstance(settle, Released) else now + delay_s
        )

    def inbox(self, run_ids: Sequence[str]) -> list[Arrival]:
        """See `WorkerStore.inbox`."""
        found: dict[tuple[str, str, int], Arrival] = {}
        for run_id in run_ids:
            row = self.rows.get(run_id)
            for wait in () if row is None else row.waits.values():
                for arrival in self._arrivals(run_id, wait):
                    found[run_id, arrival.ref, arrival.signal] = arrival
        return sorted(found.values(), key=lambda arrival: arrival.signal)

    def _arrivals(self, run_id: str, wait: Wait) -> list[Arrival]:
        if wait.kind is WaitKind.SIGNAL:
            unread = self.rows[run_id].unread(wait.ref)
            return [Arrival(run_id=run_id, kind=wait.kind, ref=wait.ref, signal=m.number, payload=m.payload) for m in unread]
        child = self.rows.get(wait.ref) if wait.kind is WaitKind.CHILD else None
        if child is None or not child.state.final:
            return []
        arrival = Arrival(
            run_id=run_id,
            kind=wait.kind,
            ref=wait.ref,
            payload=b"null" if child.result is None else child.result,
            state=child.state,
            failure=child.failure,
            tokens=child.tokens,
            cost_nanos=child.cost_nanos,
        )
        return [arrival]

    def sweep(self, retention_s: float, limit: int) -> int:
        """See `WorkerStore.sweep`."""
        before = self.clock.wall() - retention_s
        gone = [
            row
            for row in self.rows.values()
            if row.finished_at is not None
            and row.finished_at <= before
            and row.base.parent_id not in self.live
            and not self.awaited.get(row.id)
        ][:limit]
        for row in gone:
            self.arrivals.bury(row)
            del self.rows[row.id]
            if row.base.parent_id in self.children:
                siblings = self.children[row.base.parent_id]
                siblings.remove(row.id)
                if not siblings:
                    del self.children[row.base.parent_id]
        used = {entry.blob for row in self.rows.values() for entry in row.journal}
        self.blobs = {sha: value for sha, value in self.blobs.items() if sha in used}
        self.arrivals.sweep(self.clock.wall())
        steady = self.clock.steady()
        self.workers = {id_: seen for id_, seen in self.workers.items() if steady - seen.at <= FORGET_WORKER_S}
        return len(gone)


def _outlined(entries: Sequence[Entry]) -> tuple[list[Entry], dict[str, bytes]]:
    """The entries with large values replaced by their content addresses, and those values."""
    blobs: dict[str, bytes] = {}
    kept: list[Entry] = []
    for entry in entries:
        if entry.value is not None and len(entry.value) > INLINE_BYTES:
            sha = hashlib.sha256(entry.value).hexdigest()
            blobs[sha] = entry.value
            kept.append(msgspec.structs.replace(entry, value=None, blob=sha))
        else:
            kept.append(entry)
    return kept, blobs


def _repeats(row: Row, entries: Sequence[Entry]) -> bool:
    """Whether the journal holds exactly these entries already."""
    first = entries[0].seq
    return list(entries) == row.journal[first : first + len(entries)]


def _check(row: Row, entries: Sequence[Entry]) -> None:
    """Raise `StoreError` unless the entries continue the journal without a gap or a repeated identity."""
    places = set(row.places)
    for seq, entry in enumerate(entries, len(row.journal)):
        place = (*entry.identity, entry.kind, entry.attempt)
        if entry.seq != seq:
            raise StoreError(
                f"run {row.id}: entry {entry.seq} ({entry.kind} {entry.step!r}) does not continue the journal at {seq}"
            )
        if place in places:
            raise StoreError(f"run {row.id}: {entry.kind} {entry.step!r} #{entry.occurrence} is in the journal already")
        places.add(place)


def _timed_out(wait: Wait, now: float) -> bool:
    return wait.due_at is not None and wait.due_at <= now

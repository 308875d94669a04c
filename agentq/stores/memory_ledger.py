"""The in-memory store's rows and what submissions and commands do to them. No I/O, no locks."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from agentq.message import (
    Cancel,
    DropLetters,
    Entry,
    EntryKind,
    Failure,
    Fork,
    Pause,
    Reply,
    Requeue,
    Resume,
    RunState,
    Send,
    SetWorker,
    Submitted,
    Wait,
    WaitKind,
    WorkerState,
)
from agentq.stores.memory_arrivals import Arrivals
from agentq.stores.memory_ordering import Lines
from agentq.stores.memory_rows import Mail, Row, row_of

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from agentq.clock import Clock
    from agentq.message import Admission, Command, Envelope, Worker


_SUPERSEDABLE = {EntryKind.FAILED, EntryKind.WAITED}
"""A step's failure, or a child's."""


class Seen:
    """A worker's row, when it was last seen (steady clock) and the lease it asked for."""

    __slots__ = ("at", "lease_s", "worker")

    def __init__(self, worker: Worker, at: float, lease_s: float) -> None:
        """``at`` is steady time, ``lease_s`` seconds."""
        self.worker = worker
        self.at = at
        self.lease_s = lease_s

    def listed(self, steady: float) -> Worker:
        """The worker as a census shows it at this steady time."""
        return msgspec.structs.replace(self.worker, state=WorkerState.LOST) if self.at + self.lease_s < steady else self.worker


class Ledger:
    """All rows. Every method either applies its whole effect or raises before the first change."""

    def __init__(self, clock: Clock) -> None:
        """Start empty; ``clock`` decides leases (steady) and timers (wall)."""
        self.clock = clock
        self.rows: dict[str, Row] = {}
        self.live: dict[str, Row] = {}
        """Those that are not final."""
        self.children: dict[str, list[str]] = {}
        self.awaited: dict[str, set[str]] = {}
        """Run id to the runs with an open wait for it."""
        self.lines = Lines()
        self.arrivals = Arrivals()
        self.workers: dict[str, Seen] = {}
        self.blobs: dict[str, bytes] = {}
        self.numbers = 0
        """Last number given to a row, a signal or a chunk."""

    def number(self) -> int:
        """A fresh, growing number."""
        self.numbers += 1
        return self.numbers

    # Producer

    def submit(self, envelopes: Sequence[Envelope]) -> list[Submitted]:
        """See `ProducerStore.submit`."""
        return [self._submit(envelope) for envelope in envelopes]

    def admit(self, admission: Admission) -> list[Submitted]:
        """See `IntakeStore.admit`."""
        self.arrivals.take_in(admission.letters, admission.positions)
        return self.submit(admission.envelopes)

    def _submit(self, envelope: Envelope) -> Submitted:
        swept = self.arrivals.tombstone(envelope.id)
        return swept if swept is not None and envelope.id not in self.rows else self.insert(envelope)

    def insert(self, envelope: Envelope) -> Submitted:
        """Add a queued run unless its id exists, and do to it what was asked for before it came."""
        known = self.rows.get(envelope.id)
        if known is not None:
            base = known.base
            return Submitted(id=base.id, created=False, args=base.args, args_hash=base.args_hash, state=known.state)
        row = row_of(envelope, order=self.number(), now=self.clock.wall())
        self.put(row)
        for command in self.arrivals.came_early(row.id):
            self.command(command)
        return Submitted(id=row.id, created=True, args_hash=envelope.args_hash, state=row.state)

    def put(self, row: Row) -> None:
        """Add a new row."""
        self.rows[row.id] = self.live[row.id] = row
        self.lines.join(row)
        if row.base.parent_id is not None:
            self.children.setdefault(row.base.parent_id, []).append(row.id)

    def command(self, command: Command) -> Reply:
        """See `ProducerStore.command`."""
        if isinstance(command, SetWorker):
            return self._set_worker(command)
        if isinstance(command, DropLetters):
            return self.arrivals.drop(command)
        row = self.rows.get(command.run_id)
        if row is None:
            if isinstance(command, Cancel | Pause | Resume | Send):
                return self.arrivals.wait_for_run(command, self.clock.wall())
            return Reply.NOT_FOUND
        match command:
            case Cancel():
                reply = self._cancel(row)
            case Pause() | Resume():
                reply = _set_paused(row, paused=isinstance(command, Pause))
            case Requeue():
                reply = self._requeue(row)
            case Send():
                reply = self._send(row, command)
            case Fork():
                reply = self._fork(row, command)
        return reply

    def _set_worker(self, command: SetWorker) -> Reply:
        seen = self.workers.get(command.worker_id)
        if seen is None:
            return Reply.NOT_FOUND
        if seen.worker.state is command.state:
            return Reply.UNCHANGED
        seen.worker = msgspec.structs.replace(seen.worker, state=command.state)
        return Reply.DONE

    def _cancel(self, row: Row) -> Reply:
        if row.cancelling or row.state is RunState.CANCELLED:
            return Reply.UNCHANGED
        if row.state.final:
            return Reply.REFUSED
        self.cancel_subtree(row)
        return Reply.DONE

    def cancel_subtree(self, row: Row) -> None:
        """Cancel a run and all below it that is not final: at once, or by the flag where a worker has it."""
        for member in list(self._subtree(row)):
            if member.state is RunState.RUNNING:
                member.cancelling = True
            elif not member.state.final:
                self.finish(member, RunState.CANCELLED)

    def _subtree(self, row: Row) -> Iterator[Row]:
        yield row
        for child in self.children.get(row.id, ()):
            yield from self._subtree(self.rows[child])

    def _requeue(self, row: Row) -> Reply:
        if row.state not in {RunState.FAILED, RunState.CANCELLED}:
            return Reply.REFUSED
        failed = row.failure.seq if row.failure is not None else None
        if failed is not None and failed < len(row.journal) and row.journal[failed].kind in _SUPERSEDABLE:
            self._supersede(row, row.journal[failed])
        row.attempt = 1
        row.cancelling = row.paused = row.suspect = False
        row.deaths = row.losses = 0
        row.finished_at = None
        row.running_s = 0.0  # else a run that used up its running time could never be retried
        row.queue(self.clock.wall(), rank=self.clock.wall())
        self.live[row.id] = row
        self.lines.join(row)
        return Reply.DONE

    def _supersede(self, row: Row, failed: Entry) -> None:
        if (*failed.identity, EntryKind.SUPERSEDED, failed.attempt) in row.places:
            return
        now = self.clock.wall()
        superseded = Entry(
            seq=len(row.journal),
            kind=EntryKind.SUPERSEDED,
            step=failed.step,
            branch=failed.branch,
            occurrence=failed.occurrence,
            attempt=failed.attempt,
            epoch=row.epoch,
            started_at=now,
            ended_at=now,
        )
        row.add(superseded)

    def _send(self, row: Row, send: Send) -> Reply:
        if any(mail.signal_id == send.signal_id and mail.name == send.name for mail in row.mail):
            return Reply.UNCHANGED
        if row.state.final:
            return Reply.REFUSED
        row.mail.append(Mail(self.number(), send.name, send.signal_id, send.payload))
        if any(wait.kind is WaitKind.SIGNAL and wait.ref == send.name for wait in row.waits.values()):
            self.wake(row)
        return Reply.DONE

    def _fork(self, row: Row, fork: Fork) -> Reply:
        if fork.new_id in self.rows:
            return Reply.UNCHANGED
        now = self.clock.wall()
        base = msgspec.structs.replace(
            row.base, id=fork.new_id, submitted_at=now, key=None, ordering_key=None, deadline=None, parent_id=None,
            root_id=None, fork_of=row.id,
        )  # fmt: skip
        new = Row(base=base, order=self.number(), rank=now, since=now, version=row.version)
        for entry in row.journal[: max(fork.upto, 0)]:
            new.add(entry)
        new.tokens = new.cost_nanos = 0
        new.snapshots = {branch: saved for branch, saved in row.snapshots.items() if saved[0] < fork.upto}
        self.put(new)
        return Reply.DONE

    # Transitions

    def finish(self, row: Row, state: RunState, *, result: bytes | None = None, failure: Failure | None = None) -> None:
        """Make a run final, wake those that wait for it, and let the next of its ordering key follow."""
        row.let_go()
        row.state = state
        row.result = result
        if failure is not None or state is RunState.SUCCEEDED:
            row.failure = failure
        row.cancelling = False
        row.due_at = None
        row.finished_at = self.clock.wall()
        for wait in list(row.waits.values()):
            self.close(row, wait)
        self.live.pop(row.id, None)
        self.lines.leave(row, row.finished_at)
        for waiter in sorted(self.awaited.get(row.id, ())):
            self.wake(self.rows[waiter])
        if state is RunState.FAILED:
            self.cancel_subtree(row)

    def wake(self, row: Row) -> None:
        """Make a waiting run claimable."""
        if row.state is RunState.WAITING:
            row.queue(self.clock.wall())

    def close(self, row: Row, wait: Wait) -> None:
        """Forget an open wait."""
        row.waits.pop((wait.branch, wait.step, wait.occurrence), None)
        if wait.kind is WaitKind.CHILD and not any(w.ref == wait.ref and w.kind is wait.kind for w in row.waits.values()):
            self.awaited.get(wait.ref, set()).discard(row.id)

    def arrived(self, row: Row, wait: Wait) -> bool:
        """Whether what ``wait`` waits for is there (time aside)."""
        if wait.kind is WaitKind.SIGNAL:
            return bool(row.unread(wait.ref))
        child = self.rows.get(wait.ref) if wait.kind is WaitKind.CHILD else None
        return child is not None and child.state.final


def _set_paused(row: Row, *, paused: bool) -> Reply:
    if row.state.final:
        return Reply.REFUSED
    if row.paused is paused:
        return Reply.UNCHANGED
    row.paused = paused
    return Reply.DONE

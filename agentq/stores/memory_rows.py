"""The in-memory store's row of one run, and the questions that a row alone can answer."""

from __future__ import annotations

from dataclasses import dataclass, field

from agentq.journal import RESERVED
from agentq.message import Chunk, Claim, ClaimRef, Entry, EntryKind, Envelope, Failure, Run, RunState, Verdict, Wait, Write

Place = tuple[str, str, int]
"""(branch, step, occurrence)"""


@dataclass(slots=True)
class Mail:
    """One signal. Consumed ones stay, so that the same signal id stays one signal."""

    number: int
    name: str
    signal_id: str
    payload: bytes
    consumed: bool = False


@dataclass(slots=True, eq=False)
class Row:
    """A run, its lease and all that hangs on it. ``base`` is what the submission fixed for ever."""

    base: Run
    order: int
    """Counts insertions; breaks ties."""
    rank: float
    """Due time by which runs of one priority are ordered; what was begun keeps that of its submission."""
    since: float
    """Since when (wall clock) the run is or will be runnable."""
    state: RunState = RunState.QUEUED
    due_at: float | None = None
    epoch: int = 0
    attempt: int = 1
    version: str | None = None
    token: int | None = None
    owner: str | None = None
    lease_until: float = 0.0
    claimed_at: float = 0.0
    beat_at: float = 0.0
    """Steady time of the last sign of life of this claim."""
    claimed_entries: int = 0
    """Length of the journal at the last claim."""
    started_at: float | None = None
    finished_at: float | None = None
    running_s: float = 0.0
    result: bytes | None = None
    failure: Failure | None = None
    cancelling: bool = False
    paused: bool = False
    behind: bool = False
    """Another run holds its ordering key, or is before it."""
    suspect: bool = False
    deaths: int = 0
    losses: int = 0
    takeovers: int = 0
    progress: tuple[float | None, str] = (None, "")
    tokens: int = 0
    cost_nanos: int = 0
    steps: int = 0
    journal: list[Entry] = field(default_factory=list)
    places: set[tuple[str, str, int, EntryKind, int]] = field(default_factory=set)
    waits: dict[Place, Wait] = field(default_factory=dict)
    snapshots: dict[str, tuple[int, bytes]] = field(default_factory=dict)
    """Branch to (seq of the saved entry, payload)."""
    mail: list[Mail] = field(default_factory=list)
    chunks: list[Chunk] = field(default_factory=list)
    chunk_keys: set[tuple[int, int]] = field(default_factory=set)
    settled: tuple[Write, Verdict] | None = None
    """The last settling write and its verdict, so that its repetition is recognised."""

    @property
    def id(self) -> str:
        """The run's id."""
        return self.base.id

    @property
    def grown(self) -> bool:
        """Whether the journal has grown since the last claim."""
        return len(self.journal) > self.claimed_entries

    @property
    def timer(self) -> float | None:
        """The earliest time at which an open wait is over."""
        return min((wait.due_at for wait in self.waits.values() if wait.due_at is not None), default=None)

    @property
    def wakes_at(self) -> float | None:
        """When something happens to a queued or waiting run without a person: it is due, or its deadline passes."""
        if self.state is RunState.QUEUED:
            times = (None if self.paused or self.behind else self.due_at, self.base.deadline)
        elif self.state is RunState.WAITING:
            times = (self.timer, self.base.deadline)
        else:
            return None
        return min((time for time in times if time is not None), default=None)

    @property
    def next_suspect(self) -> bool:
        """Whether the next claim gets the run as a suspect; a running one is asked as if its lease were over."""
        return not self.grown if self.state is RunState.RUNNING else self.suspect

    def expired(self, steady: float) -> bool:
        """Whether the run is leased and the lease is over."""
        return self.state is RunState.RUNNING and self.lease_until <= steady

    def late(self, wall: float) -> bool:
        """Whether the deadline has passed."""
        return self.base.deadline is not None and self.base.deadline <= wall

    def due(self, wall: float, steady: float) -> bool:
        """Whether a claim would look at the run now: due, or its lease is over."""
        if self.state is RunState.QUEUED:
            return not self.behind and (self.due_at is None or self.due_at <= wall)
        if self.state is RunState.WAITING:
            return self.timer is not None and self.timer <= wall
        return self.expired(steady)

    def owned_by(self, ref: ClaimRef) -> bool:
        """Whether ``ref`` is the claim that owns the run now."""
        return self.state is RunState.RUNNING and self.epoch == ref.epoch and self.token == ref.token

    def unread(self, name: str) -> list[Mail]:
        """Unconsumed signals of that name, in order."""
        return [mail for mail in self.mail if mail.name == name and not mail.consumed]

    def add(self, entry: Entry) -> None:
        """Append an entry that was found valid, and count what it cost."""
        self.journal.append(entry)
        self.places.add((*entry.identity, entry.kind, entry.attempt))
        self.tokens += entry.tokens
        self.cost_nanos += entry.cost_nanos
        self.steps += entry.kind is EntryKind.DONE and not entry.step.startswith(RESERVED)

    def let_go(self) -> None:
        """Drop the lease."""
        self.owner = None
        self.token = None
        self.lease_until = 0.0

    def queue(self, now: float, *, due_at: float | None = None, rank: float | None = None) -> None:
        """Make the run claimable, at once or from ``due_at`` on."""
        self.let_go()
        self.state = RunState.QUEUED
        self.due_at = due_at
        self.rank = self.base.submitted_at if rank is None else rank
        self.since = now if due_at is None else due_at

    def view(self, steady: float) -> Run:
        """The run as readers see it."""
        held = self.state is RunState.RUNNING
        base = self.base
        return Run(
            id=base.id, app=base.app, task=base.task, queue=base.queue, args=base.args, args_hash=base.args_hash,
            submitted_at=base.submitted_at, priority=base.priority, key=base.key, tenant=base.tenant, tags=base.tags,
            deadline=base.deadline, timeout_s=base.timeout_s, max_attempts=base.max_attempts, parent_id=base.parent_id,
            root_id=base.root_id, fork_of=base.fork_of, ordering_key=base.ordering_key, traceparent=base.traceparent,
            state=self.state, epoch=self.epoch, attempt=self.attempt, version=self.version,
            due_at=self.timer if self.state is RunState.WAITING else self.due_at,
            started_at=self.started_at, finished_at=self.finished_at, running_s=self.running_s,
            owner=self.owner, lease_s=self.lease_until - steady if held else None,
            result=self.result, failure=self.failure, cancelling=self.cancelling, paused=self.paused,
            suspect=self.suspect, deaths=self.deaths, losses=self.losses, takeovers=self.takeovers,
            progress=self.progress[0], progress_note=self.progress[1],
            entries=len(self.journal), steps=self.steps, last_step=self._last_step(),
            tokens=self.tokens, cost_nanos=self.cost_nanos,
        )  # fmt: skip

    def lived(self, wall: float, steady: float) -> float:
        """Seconds from the claim to its last sign of life: a heartbeat, or an entry."""
        wrote = steady - (wall - self.journal[-1].ended_at) if self.journal else 0.0
        return max(0.0, min(steady, max(self.beat_at, wrote)) - self.claimed_at)

    def claim(self, steady: float) -> Claim:
        """The run as its new owner gets it."""
        assert self.token is not None  # noqa: S101 - narrows; set by the claim that calls this
        return Claim(
            ref=ClaimRef(run_id=self.id, epoch=self.epoch, token=self.token),
            run=self.view(steady),
            journal=tuple(self.journal),
            waits=tuple(self.waits.values()),
            snapshots={branch: payload for branch, (_, payload) in self.snapshots.items()},
        )

    def _last_step(self) -> str:
        return self.journal[-1].step if self.journal else ""


def row_of(envelope: Envelope, *, order: int, now: float) -> Row:
    """A queued row for a submission; ``now`` is wall time."""
    base = Run(
        id=envelope.id, app=envelope.app, task=envelope.task, queue=envelope.queue, state=RunState.QUEUED,
        args=envelope.args, args_hash=envelope.args_hash, submitted_at=envelope.submitted_at, priority=envelope.priority,
        key=envelope.key, tenant=envelope.tenant, tags=envelope.tags, deadline=envelope.deadline,
        timeout_s=envelope.timeout_s, max_attempts=envelope.max_attempts, parent_id=envelope.parent_id,
        root_id=envelope.root_id, fork_of=envelope.fork_of, ordering_key=envelope.ordering_key,
        traceparent=envelope.traceparent,
    )  # fmt: skip
    due_at = envelope.due_at
    rank = envelope.submitted_at if due_at is None else due_at
    return Row(base=base, order=order, rank=rank, since=now if due_at is None else due_at, due_at=due_at)

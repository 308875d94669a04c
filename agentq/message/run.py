"""A run and a worker as the store knows them, and what a reader may ask."""

from __future__ import annotations

from enum import StrEnum

import msgspec

from agentq.message.state import Failure, RunState


class Run(msgspec.Struct, frozen=True, kw_only=True):
    """A run as the store knows it."""

    id: str
    app: str
    task: str
    queue: str
    state: RunState
    args: bytes
    args_hash: str
    submitted_at: float
    epoch: int = 0
    attempt: int = 1
    priority: int = 0
    key: str | None = None
    tenant: str | None = None
    tags: dict[str, str] = {}
    version: str | None = None
    """The task's code version when the run first started."""
    due_at: float | None = None
    """queued: not before. waiting: the earliest timer."""
    deadline: float | None = None
    timeout_s: float | None = None
    max_attempts: int | None = None
    started_at: float | None = None
    finished_at: float | None = None
    running_s: float = 0.0
    """Accumulated running time over all attempts, up to the last hand-over."""
    owner: str | None = None
    """The worker that holds the lease."""
    lease_s: float | None = None
    """Seconds until the lease expires, on the store's clock; negative when expired."""
    parent_id: str | None = None
    root_id: str | None = None
    fork_of: str | None = None
    ordering_key: str | None = None
    traceparent: str | None = None
    result: bytes | None = None
    failure: Failure | None = None
    """Why it failed; while it is not final: why the last attempt did."""
    cancelling: bool = False
    paused: bool = False
    suspect: bool = False
    """Its last worker died without a journal entry: it runs isolated and alone next."""
    deaths: int = 0
    """How often its own process died, while its worker lived, without journal progress."""
    losses: int = 0
    """How often the lease of its worker ran out while it was alone as a suspect, without journal progress."""
    takeovers: int = 0
    """How often another worker took it over after a lease expired."""
    progress: float | None = None
    progress_note: str = ""
    entries: int = 0
    """Length of the journal."""
    steps: int = 0
    """Steps done; what the context records for itself (``ctx.…``) is none."""
    last_step: str = ""
    tokens: int = 0
    cost_nanos: int = 0


class WorkerState(StrEnum):
    """What a worker is allowed to do; set by operators and by the scaler, obeyed within a heartbeat."""

    ACTIVE = "active"
    CORDONED = "cordoned"
    DRAINING = "draining"
    LOST = "lost"
    """In a census alone: it was not seen for its lease, so its runs are free to be taken over and its slots count no more."""


class Worker(msgspec.Struct, frozen=True, kw_only=True):
    """A worker process as a row of the store. ``id`` is random per process, never a pod's name."""

    id: str
    pool: str = "default"
    app: str = ""
    version: str = ""
    host: str = ""
    pod: str | None = None
    pid: int = 0
    slots: int = 0
    busy: int = 0
    queues: tuple[str, ...] = ()
    tasks: tuple[str, ...] = ()
    runs: dict[str, float] = {}
    """Running run id to seconds of work since its last journal entry (what a kill would lose)."""
    state: WorkerState = WorkerState.ACTIVE
    started_at: float = 0.0
    seen_at: float = 0.0


class RunQuery(msgspec.Struct, frozen=True, kw_only=True):
    """Which runs a reader wants; newest first."""

    ids: tuple[str, ...] = ()
    """Full ids, or unique prefixes of at least 4 characters."""
    states: tuple[RunState, ...] = ()
    queue: str | None = None
    task: str | None = None
    tenant: str | None = None
    parent_id: str | None = None
    owner: str | None = None
    limit: int = 50


class QueueStats(msgspec.Struct, frozen=True, kw_only=True):
    """One queue in numbers, for `agentq queues`, metrics and the scaler."""

    queue: str
    runnable: int = 0
    """What a claim would return now."""
    delayed: int = 0
    """Queued for later: delays, retries that wait their turn."""
    running: int = 0
    waiting: int = 0
    parked: int = 0
    paused: int = 0
    ordered: int = 0
    """Queued behind the holder of their ordering key, or behind an older run of that key."""
    dead: int = 0
    """Dead letters: what arrived for this queue and could not become a run."""
    oldest_age_s: float = 0.0
    """How long the oldest runnable run has been runnable."""


class Census(msgspec.Struct, frozen=True, kw_only=True):
    """Queues and workers at one moment."""

    queues: tuple[QueueStats, ...] = ()
    workers: tuple[Worker, ...] = ()

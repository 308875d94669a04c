"""Values that cross walls: what a producer submits, a store keeps, a worker claims and a reader sees.

All are frozen. Times are float seconds since the Unix epoch (UTC) unless a name ends in ``_s`` (a duration in seconds).
JSON payloads are ``bytes`` exactly as the codec wrote them. Money is whole nano-dollars (1e-9 USD), so that sums are exact.
"""

from __future__ import annotations

import base64
import hashlib
import secrets
import time
from enum import StrEnum
from typing import TypeAlias

import msgspec

WIRE_VERSION = 1


class RunState(StrEnum):
    """Where a run is. The last three are final."""

    QUEUED = "queued"
    RUNNING = "running"
    WAITING = "waiting"
    PARKED = "parked"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    CANCELLED = "cancelled"

    @property
    def final(self) -> bool:
        """Whether the run can never change again by itself."""
        return self in FINAL


FINAL = frozenset({RunState.SUCCEEDED, RunState.FAILED, RunState.CANCELLED})


class Envelope(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One submission, on the wire and into the store."""

    v: int = WIRE_VERSION
    id: str
    app: str
    task: str
    queue: str
    args: bytes
    """JSON object: parameter name to value."""
    args_hash: str
    """What the store compares to tell a repeated submission from a `KeyConflict`."""
    submitted_at: float
    key: str | None = None
    tenant: str | None = None
    priority: int = 0
    """Higher starts first within a queue."""
    due_at: float | None = None
    """Not before; None is at once."""
    deadline: float | None = None
    """Wall-clock end, waits included."""
    max_attempts: int | None = None
    """Overrides the task's own."""
    timeout_s: float | None = None
    """Running time, waits excluded; overrides the task's own."""
    tags: dict[str, str] = {}
    traceparent: str | None = None
    parent_id: str | None = None
    root_id: str | None = None
    fork_of: str | None = None


class Failure(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """An exception as data. Never pickled, never a live object."""

    type: str
    """Class name, qualified unless built in: ``ValueError``, ``httpx.ConnectError``."""
    message: str
    traceback: str = ""
    permanent: bool = False
    retry_after_s: float | None = None
    step: str | None = None
    """The step that it escaped from, if any."""
    seq: int | None = None
    """The journal entry of that step's failure, which the next attempt supersedes."""


class EntryKind(StrEnum):
    """What a journal entry records."""

    STARTED = "started"
    """An ``at_most_once`` body is about to run."""
    TRIED = "tried"
    """A try failed and another will follow."""
    DONE = "done"
    """A step's value."""
    FAILED = "failed"
    """A step's last try failed."""
    SAVED = "saved"
    """A snapshot was taken; its payload lives outside the journal and only the last is kept."""
    APPENDED = "appended"
    """One item of a transcript."""
    WAITED = "waited"
    """What a wait returned."""
    SUPERSEDED = "superseded"
    """The failure with the same (branch, step, occurrence, try) no longer counts: try again."""


class Entry(msgspec.Struct, frozen=True, kw_only=True):
    """One journal entry. Unique in its run by ``seq``, and by (branch, step, occurrence, kind, attempt)."""

    seq: int
    """Gap-free from 0 within the run."""
    kind: EntryKind
    step: str
    branch: str = ""
    occurrence: int = 0
    attempt: int = 1
    """The step's try, from 1, across takeovers."""
    epoch: int = 0
    args_hash: str = ""
    value: bytes | None = None
    """JSON: the value (done, appended, waited), a `Failure` (failed, tried), counters (saved)."""
    blob: str | None = None
    """SHA-256 of a value kept outside the row; then ``value`` is None until `Reader.blob` fetches it."""
    started_at: float = 0.0
    ended_at: float = 0.0
    tokens: int = 0
    cost_nanos: int = 0

    @property
    def identity(self) -> tuple[str, str, int]:
        """What replay looks up: (branch, step, occurrence)."""
        return (self.branch, self.step, self.occurrence)


class WaitKind(StrEnum):
    """What can end a wait."""

    TIMER = "timer"
    SIGNAL = "signal"
    CHILD = "child"


class Wait(msgspec.Struct, frozen=True, kw_only=True):
    """An open wait of a run; the ``waited`` entry with the same (branch, step, occurrence) closes it."""

    branch: str
    step: str
    occurrence: int
    kind: WaitKind
    ref: str = ""
    """The signal's name, or the child's run id."""
    due_at: float | None = None
    """When a timer fires or a signal wait times out; None is never."""
    ask: str | None = None
    """The question a person is to answer."""
    attempt: int = 1
    """Of its ``waited`` entry; more than 1 where the code gave this wait up before, or its failure was superseded."""


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
    traceparent: str | None = None
    result: bytes | None = None
    failure: Failure | None = None
    """Why it failed; while it is not final: why the last attempt did."""
    cancelling: bool = False
    paused: bool = False
    suspect: bool = False
    """Its last worker died without a journal entry: it runs isolated and alone next."""
    deaths: int = 0
    """How often it died alone without journal progress."""
    takeovers: int = 0
    """How often another worker took it over after a lease expired."""
    progress: float | None = None
    progress_note: str = ""
    entries: int = 0
    """Length of the journal."""
    steps: int = 0
    """Steps done."""
    last_step: str = ""
    tokens: int = 0
    cost_nanos: int = 0


class Chunk(msgspec.Struct, frozen=True, kw_only=True):
    """One emitted item of a run's live stream. ``offset`` is given by the store and grows; readers page by it."""

    topic: str
    payload: bytes
    epoch: int
    n: int
    """Counts the chunks of one epoch from 0; (run, epoch, n) is unique, so that a repeated write adds nothing."""
    at: float
    branch: str = ""
    offset: int = 0


class WorkerState(StrEnum):
    """What a worker is allowed to do; set by operators and by the scaler, obeyed within a heartbeat."""

    ACTIVE = "active"
    CORDONED = "cordoned"
    DRAINING = "draining"


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


class ClaimRef(msgspec.Struct, frozen=True, kw_only=True):
    """Proof of ownership that every write carries. ``token`` is random per claim."""

    run_id: str
    epoch: int
    token: int


class Claim(msgspec.Struct, frozen=True, kw_only=True):
    """A run in a worker's hands, with all that is needed to resume it."""

    ref: ClaimRef
    run: Run
    journal: tuple[Entry, ...] = ()
    """Ordered by ``seq``; values in blobs are fetched when replay reaches them."""
    waits: tuple[Wait, ...] = ()
    snapshots: dict[str, bytes] = {}
    """Branch to the payload of its last `saved` entry."""
    taken_over: bool = False
    """Whether this claim follows on a lease that expired, not on a hand-over."""


class ClaimRequest(msgspec.Struct, frozen=True, kw_only=True):
    """What a worker asks for."""

    worker: str
    app: str
    queues: tuple[str, ...]
    """In the order in which they are to be emptied for this request."""
    tasks: tuple[str, ...]
    limit: int
    lease_s: float
    version: dict[str, str] = {}
    """Task to code version, recorded when a run first starts."""
    suspects: bool = True
    """Whether runs whose last worker died may be handed out (they need a free isolated slot)."""
    root: str | None = None
    """Only the run with this id and those whose `Run.root_id` it is; None is any (`agentq run`, `agentq job --run`)."""


class Claims(msgspec.Struct, frozen=True, kw_only=True):
    """What a worker got, and when to ask again if nothing rings before."""

    claims: tuple[Claim, ...] = ()
    next_due_s: float | None = None
    """Seconds until the next delayed run or timer of any queue is due; None when there is none."""


class Succeeded(msgspec.Struct, frozen=True, kw_only=True, tag=True):
    """The task returned."""

    result: bytes


class Failed(msgspec.Struct, frozen=True, kw_only=True, tag=True):
    """The run failed for good."""

    failure: Failure


class Retried(msgspec.Struct, frozen=True, kw_only=True, tag=True):
    """The attempt failed; the run is queued for another, ``delay_s`` from now. Burns an attempt."""

    failure: Failure
    delay_s: float


class Suspended(msgspec.Struct, frozen=True, kw_only=True, tag=True):
    """Every branch waits; the store looks again under the lock and queues the run at once if a wait is over already."""


class Released(msgspec.Struct, frozen=True, kw_only=True, tag=True):
    """Handed back (drain, pause, lost room); claimable at once, burns nothing."""

    reason: str = "drain"


class Crashed(msgspec.Struct, frozen=True, kw_only=True, tag=True):
    """The process that ran it alone died. Counts towards poison where the journal has not grown since the claim."""

    failure: Failure
    delay_s: float = 0.0


class Cancelled(msgspec.Struct, frozen=True, kw_only=True, tag=True):
    """The run was cancelled and its code has ended."""


Settlement: TypeAlias = Succeeded | Failed | Retried | Suspended | Released | Crashed | Cancelled


class Write(msgspec.Struct, frozen=True, kw_only=True):
    """What one claim wants to commit, all or nothing. A write with none of the parts only proves ownership."""

    ref: ClaimRef
    entries: tuple[Entry, ...] = ()
    waits: tuple[Wait, ...] = ()
    """Waits to open."""
    children: tuple[Envelope, ...] = ()
    """Child runs to insert (those that exist already are left as they are)."""
    signals: tuple[int, ...] = ()
    """`Arrival.signal` numbers consumed by the ``waited`` entries of this write."""
    snapshot: tuple[str, bytes] | None = None
    """(branch, payload) that goes with a `saved` entry."""
    chunks: tuple[Chunk, ...] = ()
    progress: tuple[float | None, str] | None = None
    settle: Settlement | None = None
    running_s: float = 0.0
    """Running time to add; only with ``settle``."""


class Verdict(StrEnum):
    """What became of a `Write`."""

    COMMITTED = "committed"
    FENCED = "fenced"
    """Another epoch owns the run, or it is final: nothing was written and nothing ever will be under this claim."""
    CANCELLED = "cancelled"
    """The cancel flag came first. A settle became `cancelled`; a write that starts children was refused whole."""


class Arrival(msgspec.Struct, frozen=True, kw_only=True):
    """Something a wait of a run was waiting for."""

    run_id: str
    kind: WaitKind
    ref: str
    signal: int = 0
    """Number of the signal in the store; goes into `Write.signals`."""
    payload: bytes = b"null"
    """The signal's payload, or the child's result."""
    state: RunState | None = None
    """The child's final state."""
    failure: Failure | None = None
    tokens: int = 0
    cost_nanos: int = 0


class Beat(msgspec.Struct, frozen=True, kw_only=True):
    """The store's answer to a heartbeat."""

    lost: tuple[ClaimRef, ...] = ()
    """Claims that are no longer ours."""
    cancel: tuple[str, ...] = ()
    pause: tuple[str, ...] = ()
    arrivals: tuple[str, ...] = ()
    """Running runs of ours for which something arrived that an open wait waits for."""
    state: WorkerState = WorkerState.ACTIVE


class Cancel(msgspec.Struct, frozen=True, kw_only=True, tag=True):
    """Cancel a run and its whole subtree."""

    run_id: str


class Pause(msgspec.Struct, frozen=True, kw_only=True, tag=True):
    """Hold a run at its next step; nothing claims it until `Resume`."""

    run_id: str


class Resume(msgspec.Struct, frozen=True, kw_only=True, tag=True):
    """Let a paused run go on."""

    run_id: str


class Requeue(msgspec.Struct, frozen=True, kw_only=True, tag=True):
    """``runs retry``: a failed or cancelled run gets a fresh set of attempts; its journal stays, the escaped failure does not."""

    run_id: str


class Send(msgspec.Struct, frozen=True, kw_only=True, tag=True):
    """Put a signal into a run's mailbox. The same ``signal_id`` twice is one signal."""

    run_id: str
    name: str
    signal_id: str
    payload: bytes


class Fork(msgspec.Struct, frozen=True, kw_only=True, tag=True):
    """Start ``new_id`` with the first ``upto`` journal entries of ``run_id`` (their values by reference)."""

    run_id: str
    new_id: str
    upto: int


class SetWorker(msgspec.Struct, frozen=True, kw_only=True, tag=True):
    """Cordon, uncordon or drain a worker."""

    worker_id: str
    state: WorkerState


Command: TypeAlias = Cancel | Pause | Resume | Requeue | Send | Fork | SetWorker


class Reply(StrEnum):
    """What became of a `Command` or a submission."""

    DONE = "done"
    UNCHANGED = "unchanged"
    """It was so already (a duplicate signal, a second cancel)."""
    NOT_FOUND = "not_found"
    REFUSED = "refused"
    """The run's state does not allow it (cancelling a final run, retrying one that runs)."""


class Submitted(msgspec.Struct, frozen=True, kw_only=True):
    """The store's answer to one envelope."""

    id: str
    created: bool
    args: bytes | None = None
    """Where it existed already: the arguments of the run that stands."""
    args_hash: str = ""
    state: RunState = RunState.QUEUED


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
    oldest_age_s: float = 0.0
    """How long the oldest runnable run has been runnable."""


class Census(msgspec.Struct, frozen=True, kw_only=True):
    """Queues and workers at one moment."""

    queues: tuple[QueueStats, ...] = ()
    workers: tuple[Worker, ...] = ()


def new_run_id() -> str:
    """26 lowercase base32 characters that sort by creation time (48-bit milliseconds, 80 random bits), as ULIDs do."""
    raw = int(time.time() * 1000).to_bytes(6, "big") + secrets.token_bytes(10)
    return _base32(raw)


def keyed_run_id(app: str, tenant: str | None, task: str, key: str) -> str:
    """The run id that an idempotency ``key`` determines within (app, tenant, task)."""
    return _digest("key", app, tenant or "", task, key)


def child_run_id(parent_id: str, branch: str, step: str, occurrence: int) -> str:
    """The run id of the child that ``parent_id`` starts at this place of its journal."""
    return _digest("child", parent_id, branch, step, str(occurrence))


def _digest(*parts: str) -> str:
    text = "\x1f".join(parts).encode()
    return _base32(hashlib.blake2b(text, digest_size=16).digest())


_HEX32 = bytes.maketrans(b"ABCDEFGHIJKLMNOPQRSTUVWXYZ234567", b"0123456789abcdefghijklmnopqrstuv")


def _base32(raw: bytes) -> str:
    return base64.b32encode(raw).rstrip(b"=").translate(_HEX32).decode()

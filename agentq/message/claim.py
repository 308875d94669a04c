"""How a worker comes to own runs, and what it hears about them."""

from __future__ import annotations

import msgspec

from agentq.message.journal import Entry, Wait, WaitKind
from agentq.message.run import Run, WorkerState
from agentq.message.state import Failure, RunState


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

"""What a claim commits: entries, waits, children, and the outcome of the run."""

from __future__ import annotations

from enum import StrEnum
from typing import TypeAlias

import msgspec

from agentq.message.claim import ClaimRef
from agentq.message.journal import Chunk, Entry, Wait
from agentq.message.state import Failure
from agentq.message.wire import Envelope


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
    begins: bool = False
    """The code of a suspect begins now. That counts as a loss (`Run.losses`), once, until the run is handed back or its journal
    grows: a worker that dies sooner was killed by something else."""
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

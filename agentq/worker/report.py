"""What a worker says of itself when it has ended."""

from __future__ import annotations

from dataclasses import dataclass, field

from agentq.worker.ends import End


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkerReport:
    """What a worker did until it ended."""

    runs: int
    """Claims worked on."""
    ends: dict[End, int] = field(default_factory=dict)
    recycled: bool = False
    """It ended to begin anew (runs or memory), not because somebody said so."""
    abandoned: int = 0
    """Runs whose code does not end: the process must exit, their leases run out."""
    last: tuple[str, End] | None = None
    """The run settled last."""

"""How a claim of a run ended."""

from __future__ import annotations

from enum import StrEnum
from typing import Final

from agentq.message import Cancelled, Failed, Released, Retried, Settlement, Succeeded, Suspended


class End(StrEnum):
    """What became of one claim of a run."""

    SUCCEEDED = "succeeded"
    FAILED = "failed"
    RETRYING = "retrying"
    SUSPENDED = "suspended"
    RELEASED = "released"
    CANCELLED = "cancelled"
    LOST = "lost"
    ABANDONED = "abandoned"
    """Its code does not end; nothing was written, the lease runs out."""


ENDS: Final[dict[type[Settlement], End]] = {
    Succeeded: End.SUCCEEDED,
    Failed: End.FAILED,
    Retried: End.RETRYING,
    Suspended: End.SUSPENDED,
    Released: End.RELEASED,
    Cancelled: End.CANCELLED,
}

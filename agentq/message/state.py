"""Where a run is, and why it failed: the two values that everybody speaks of."""

from __future__ import annotations

from enum import StrEnum

import msgspec


class RunState(StrEnum):
    """Where a run is. `succeeded`, `failed` and `cancelled` are final."""

    SUBMITTED = "submitted"
    """Sent to a broker, or never heard of: no store has a row of it yet, so none ever holds this state."""
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

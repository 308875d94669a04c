"""What steers runs and workers from outside."""

from __future__ import annotations

from enum import StrEnum
from typing import TypeAlias

import msgspec

from agentq.message.run import WorkerState


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
    """``runs retry``: a failed or cancelled run gets a fresh set of attempts; its journal stays.

    Only the step failure that escaped is superseded.
    """

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

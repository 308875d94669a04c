"""What steers runs and workers from outside.

``early`` is set where the run may still be in a broker: a store that has no row of it keeps the command, answers
`Reply.DONE`, and applies it, in the order given, in the transaction that admits the run. So nothing of it starts before.
"""

from __future__ import annotations

from enum import StrEnum
from typing import TypeAlias

import msgspec

from agentq.message.run import WorkerState


class Cancel(msgspec.Struct, frozen=True, kw_only=True, tag=True):
    """Cancel a run and its whole subtree."""

    run_id: str
    early: bool = False


class Pause(msgspec.Struct, frozen=True, kw_only=True, tag=True):
    """Hold a run at its next step; nothing claims it until `Resume`."""

    run_id: str
    early: bool = False


class Resume(msgspec.Struct, frozen=True, kw_only=True, tag=True):
    """Let a paused run go on."""

    run_id: str
    early: bool = False


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
    early: bool = False


class Fork(msgspec.Struct, frozen=True, kw_only=True, tag=True):
    """Start ``new_id`` with the first ``upto`` journal entries of ``run_id`` (their values by reference)."""

    run_id: str
    new_id: str
    upto: int


class SetWorker(msgspec.Struct, frozen=True, kw_only=True, tag=True):
    """Cordon, uncordon or drain a worker."""

    worker_id: str
    state: WorkerState


class DropLetters(msgspec.Struct, frozen=True, kw_only=True, tag=True):
    """Delete dead letters for good; those that are gone already are no error."""

    ids: tuple[str, ...]


Command: TypeAlias = Cancel | Pause | Resume | Requeue | Send | Fork | SetWorker | DropLetters


class Reply(StrEnum):
    """What became of a `Command` or a submission."""

    DONE = "done"
    UNCHANGED = "unchanged"
    """It was so already (a duplicate signal, a second cancel)."""
    NOT_FOUND = "not_found"
    REFUSED = "refused"
    """The run's state does not allow it (cancelling a final run, retrying one that runs)."""

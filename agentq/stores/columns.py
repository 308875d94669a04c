"""What the SQL stores share: states and kinds by their number, and the columns that read the same in each."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

import msgspec

from agentq.message import EntryKind, Failure, RunState, Wait, WaitKind

# States and kinds by their number in the tables: new ones go to the end.
STATES: Final = (
    RunState.QUEUED,
    RunState.RUNNING,
    RunState.WAITING,
    RunState.PARKED,
    RunState.SUCCEEDED,
    RunState.FAILED,
    RunState.CANCELLED,
)
CODES: Final = {state: code for code, state in enumerate(STATES)} | {RunState.SUBMITTED: -1}
"""A run that was only submitted has no row: nothing is stored under its number."""
QUEUED, RUNNING, WAITING, PARKED, SUCCEEDED, FAILED, CANCELLED = range(7)
"""The states as stored; those from `SUCCEEDED` on are final, which the statements say as ``state >= 4``."""

KINDS: Final = (
    EntryKind.STARTED,
    EntryKind.TRIED,
    EntryKind.DONE,
    EntryKind.FAILED,
    EntryKind.SAVED,
    EntryKind.APPENDED,
    EntryKind.WAITED,
    EntryKind.SUPERSEDED,
)
KIND_CODES: Final = {kind: code for code, kind in enumerate(KINDS)}
DONE: Final = KIND_CODES[EntryKind.DONE]
WAITED: Final = KIND_CODES[EntryKind.WAITED]

WAIT_COLUMNS: Final = "branch, step, occurrence, kind, ref, due_at, ask, attempt"

_failure = msgspec.json.Decoder(Failure)
tags_decoder = msgspec.json.Decoder(dict[str, str])
encode: Final = msgspec.json.encode


def failure_from(raw: bytes | None) -> Failure | None:
    """A `Failure` from its column."""
    return _failure.decode(raw) if raw else None


def wait_from(row: Sequence[Any]) -> Wait:
    """A `Wait` from a row of `WAIT_COLUMNS`."""
    branch, step, occurrence, kind, ref, due_at, ask, attempt = row
    return Wait(
        branch=branch,
        step=step,
        occurrence=occurrence,
        kind=WaitKind(kind),
        ref=ref,
        due_at=due_at,
        ask=ask,
        attempt=attempt,
    )

"""What a run records and what it waits for."""

from __future__ import annotations

from enum import StrEnum

import msgspec


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

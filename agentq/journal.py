"""Replay, purely: what a run has recorded, where its code stands in it, and what the next entry must be."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from enum import StrEnum

import msgspec

from agentq.message import Entry, EntryKind, Failure

Identity = tuple[str, str, int]
"""(branch, step, occurrence)."""

_ANSWERS = frozenset({EntryKind.DONE, EntryKind.FAILED, EntryKind.WAITED, EntryKind.APPENDED})
_FAILURES = frozenset({EntryKind.FAILED, EntryKind.WAITED})
"""What can be superseded; of a wait it is the failure of a child."""

RESERVED = "ctx."
"""Prefix of the names under which a context records what it does itself."""

ABANDONED = b'{"abandoned":true}'
"""Value of a ``waited`` entry that closes a wait which its code gave up; it answers nothing."""


class Mismatch(StrEnum):
    """What to do when a step is called with other arguments than it recorded."""

    ERROR = "error"
    """Fail the run and say what changed (the default: a wrong answer costs more than a stopped run)."""
    IGNORE = "ignore"
    """Take the recorded value all the same."""
    RERUN = "rerun"
    """Take the new arguments: the step runs again under them, and is recorded beside the old entry."""


class OnInterrupt(StrEnum):
    """What to do with an ``at_most_once`` step that was begun and whose end was never recorded."""

    FAIL = "fail"
    RETRY = "retry"
    SKIP = "skip"
    ASK = "ask"


@dataclass(slots=True)
class History:
    """The journal of one run, indexed for replay and kept current as the run appends."""

    next_seq: int = 0
    answers: dict[Identity, Entry] = field(default_factory=dict)
    """The entry that answers a call at that place: a value, a failure that still counts, or what a wait returned."""
    tries: dict[Identity, int] = field(default_factory=dict)
    """Highest try number that a place has used."""
    forgiven: dict[Identity, int] = field(default_factory=dict)
    """Tries at that place that no longer count, because their failure was superseded."""
    failures: dict[int, Entry] = field(default_factory=dict)
    """Failed steps by ``seq``, superseded ones too."""
    begun: dict[Identity, Entry] = field(default_factory=dict)
    """``at_most_once`` steps begun without an end."""
    saved: dict[str, Entry] = field(default_factory=dict)
    """Branch to its last `saved` entry."""
    transcripts: dict[str, list[Entry]] = field(default_factory=dict)
    """Step name of a transcript to its entries in journal order."""
    unread: dict[str, int] = field(default_factory=dict)
    """Branch to the number of recorded answers that its code has not come to yet."""
    left_at: set[str] = field(default_factory=set)
    """Branches with an open wait, that their code has not come to again yet."""
    behind: set[int] = field(default_factory=set)
    """Entries that a restored snapshot made superfluous."""
    steps: int = 0
    """Steps done; what the context records for itself is none."""
    tokens: int = 0
    cost_nanos: int = 0

    @classmethod
    def of(cls, entries: Sequence[Entry]) -> History:
        """Index the journal of a run that is being resumed; all its answers are unread.

        Raises:
            ValueError: the journal has a gap, which no store that keeps its contract produces.

        """
        history = cls()
        for entry in entries:
            if entry.seq != history.next_seq:
                raise ValueError(f"journal gap: expected entry {history.next_seq}, found {entry.seq}")
            history.append(entry)
        for branch, _, _ in history.answers:
            history.unread[branch] = history.unread.get(branch, 0) + 1
        return history

    def append(self, entry: Entry) -> None:
        """Take in one more entry."""
        self.next_seq = max(self.next_seq, entry.seq + 1)
        self.tokens += entry.tokens
        self.cost_nanos += entry.cost_nanos
        place = entry.identity
        kind = entry.kind
        if kind is EntryKind.DONE:
            self.answers[place] = entry
            self.tries[place] = entry.attempt
            self.steps += not entry.step.startswith(RESERVED)
            self.begun.pop(place, None)
        elif kind is EntryKind.WAITED and entry.value == ABANDONED:
            self.tries[place] = entry.attempt
        elif kind in _ANSWERS:
            self.answers[place] = entry
            self.tries[place] = entry.attempt
            if kind is EntryKind.APPENDED:
                self.transcripts.setdefault(entry.step, []).append(entry)
            elif kind is EntryKind.FAILED:
                self.begun.pop(place, None)
                self.failures[entry.seq] = entry
        elif kind is EntryKind.STARTED:
            self.begun[place] = entry
            self.tries[place] = entry.attempt
        elif kind is EntryKind.TRIED:
            self.begun.pop(place, None)
            self.tries[place] = entry.attempt
        elif kind is EntryKind.SAVED:
            self.saved[entry.branch] = entry
        elif kind is EntryKind.SUPERSEDED:
            self._supersede(place, entry.attempt)

    def reserve(self) -> int:
        """Give out the next number for an entry that is taken in later, in whatever form it comes to be."""
        self.next_seq += 1
        return self.next_seq - 1

    def _supersede(self, place: Identity, attempt: int) -> None:
        answer = self.answers.get(place)
        if answer is not None and answer.kind in _FAILURES and answer.attempt == attempt:
            del self.answers[place]
            inner = self.failures.get(_inner(answer))
            if inner is not None:  # it failed because a step inside it did: that one does not count either
                self._supersede(inner.identity, inner.attempt)
        self.forgiven[place] = attempt

    def passed_over(self, place: Identity) -> int:
        """How many answers of its branch code leaves out that calls ``place``, where nothing was recorded, now."""
        return 0 if place in self.answers or place in self.tries else self.unread.get(place[0], 0)

    def read(self, place: Identity) -> Entry | None:
        """Answer a call from the journal, if it was answered before."""
        entry = self.answers.get(place)
        if entry is not None:
            self._came_to(place[0])
        elif self.unread or self.left_at:  # the code is where it was left, or has left what was recorded
            self.unread = {name: count for name, count in self.unread.items() if not _below(name, place[0])}
            self.left_at = {name for name in self.left_at if not _below(name, place[0])}
        return entry

    def _came_to(self, branch: str) -> None:
        left = self.unread.get(branch, 0)
        if left > 1:
            self.unread[branch] = left - 1
        else:
            self.unread.pop(branch, None)

    def forgive(self, place: Identity) -> None:
        """Let the tries used at ``place`` so far no longer count."""
        self.forgiven[place] = self.tries.get(place, 0)

    def replaying(self, branch: str) -> bool:
        """Whether code in ``branch`` is still going over what it did before; what lies in its own branches comes later."""
        return any(_below(name, branch) for name in (*self.unread, *self.left_at))

    def next_try(self, place: Identity) -> tuple[int, int]:
        """(number of the next try, how many tries count against the policy so far)."""
        used = self.tries.get(place, 0)
        return used + 1, used - self.forgiven.get(place, 0)

    def skip_to(self, branch: str, counters: dict[str, int]) -> None:
        """``restore``: what ``branch`` recorded before its snapshot, in its own branches too, is behind it now."""
        for place, entry in self.answers.items():
            if _behind(place, branch, counters):
                self.behind.add(entry.seq)
                self._came_to(place[0])

    def passed(self, step: str) -> list[Entry]:
        """Items of a transcript that lie behind a restored snapshot, in journal order."""
        return [entry for entry in self.transcripts.get(step, ()) if entry.seq in self.behind]


def _inner(entry: Entry) -> int:
    """``seq`` of the failed step inside a failed step, or -1."""
    if entry.kind is not EntryKind.FAILED or entry.value is None:
        return -1
    seq = msgspec.json.decode(entry.value, type=Failure).seq
    return -1 if seq is None else seq


def _below(name: str, branch: str) -> bool:
    """Whether a branch is ``branch`` itself, or started from there."""
    return name == branch or name.startswith((f"{branch}/", f"{branch}~"))


def _behind(place: Identity, branch: str, counters: dict[str, int]) -> bool:
    """Whether a place in ``branch``, or below one of its gathers or steps, comes before the counters of a snapshot."""
    where, step, occurrence = place
    if where == branch:
        return occurrence < counters.get(step, 0)
    if where.startswith(f"{branch}~"):  # a task of the user's own, by its arguments
        return occurrence < counters.get(f"{step}~{where[len(branch) + 1 :]}", 0)
    if not where.startswith(branch + "/"):
        return False
    below = where[len(branch) + 1 :].split("/", 1)[0]
    name, hash_sign, count = below.partition("#")
    if not hash_sign:
        name, count = "ctx.gather", below
    count = count.partition(".")[0]
    return count.isdecimal() and int(count) < counters.get(name, 0)


def superseding(failed: Iterable[Entry], next_seq: int, *, epoch: int, now: float) -> tuple[Entry, ...]:
    """Entries that make a new attempt try again where the last one's escaped failures were recorded."""
    return tuple(
        Entry(
            seq=next_seq + n,
            kind=EntryKind.SUPERSEDED,
            step=entry.step,
            branch=entry.branch,
            occurrence=entry.occurrence,
            attempt=entry.attempt,
            epoch=epoch,
            started_at=now,
            ended_at=now,
        )
        for n, entry in enumerate(failed)
    )


def insertion_message(place: Identity, left_out: int, *, version_then: str | None, version_now: str | None) -> str:
    """Tell a person that a resuming run calls what it did not call before."""
    versions = (
        f" The run began with version {version_then!r} of the task, this worker has {version_now!r}."
        if version_then != version_now
        else ""
    )
    return (
        f"step {place[1]!r} (call {place[2] + 1}) is called where the run recorded something else: {left_out} recorded "
        f"{'entry' if left_out == 1 else 'entries'} of this branch would be passed over. The code or its inputs changed while "
        f"the run was under way.{versions} Either bring the old behaviour back and `agentq runs retry RUN`, or start over with "
        "`agentq runs fork RUN --keep N`, or declare the task with on_mismatch='ignore' or 'rerun' (go on with the new code)."
    )


def mismatch_message(entry: Entry, now_hash: str, *, version_then: str | None, version_now: str | None) -> str:
    """Tell a person what changed under a resuming run and what can be done about it."""
    place = f"step {entry.step!r} (call {entry.occurrence + 1}" + (f", branch {entry.branch}" if entry.branch else "") + ")"
    versions = (
        f" The run began with version {version_then!r} of the task, this worker has {version_now!r}."
        if version_then != version_now
        else ""
    )
    return (
        f"{place} was recorded at entry {entry.seq} with arguments {entry.args_hash}, and is now called with {now_hash}: "
        f"the code or its inputs changed while the run was under way.{versions} Either bring the old behaviour back and "
        f"`agentq runs retry RUN`, or start over from before this step with `agentq runs fork RUN --keep {entry.seq}`, or "
        "declare the task with on_mismatch='rerun' (call again) or 'ignore' (keep the recorded value)."
    )

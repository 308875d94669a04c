"""The errors of code that no longer fits the journal of the run that it resumes."""

from __future__ import annotations

from agentq.errors import JournalMismatch
from agentq.journal import Identity, insertion_message, mismatch_message
from agentq.message import Entry
from agentq.worker.host import Host


def other_arguments(run: Host, entry: Entry, sign: str) -> JournalMismatch:
    """Something was recorded with other arguments than it is called with now."""
    then, now = run.row.version, run.task.spec.version
    return JournalMismatch(mismatch_message(entry, sign, version_then=then, version_now=now))


def other_place(run: Host, place: Identity, left_out: int) -> JournalMismatch:
    """A step is called where so many recorded entries would be passed over."""
    then, now = run.row.version, run.task.spec.version
    return JournalMismatch(insertion_message(place, left_out, version_then=then, version_now=now))

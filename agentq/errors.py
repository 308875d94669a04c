"""Everything agentq raises, as one tree.

::

    AgentQError
    ├── DeclarationError         a task, step or app was declared wrongly
    ├── InvalidArgument          a value given to a verb does not fit (names field, value, remedy)
    │   ├── StoreUnnamed         behind a broker nobody said where the store is
    │   ├── UnknownTask          no task of that name is registered here
    │   └── PayloadTooLarge      an argument, result or snapshot is over the limit
    ├── CodecError               a value cannot be written as, or read back from, typed JSON
    ├── NotOpen                  the app was used outside ``async with aq:``
    ├── KeyConflict              the same idempotency key came with other arguments
    ├── NotFound                 no such run, worker or step
    ├── StoreError               the store refused
    │   ├── StoreUnavailable     …for now (temporary)
    │   ├── StoreIncompatible    …because its schema is newer than this agentq (permanent)
    │   └── StoreMissing         …because it was only to be looked at, and is not there
    ├── BrokerError              the broker refused
    │   └── BrokerUnavailable    …for now (temporary)
    │       └── NotSent          some calls of a submission did not reach it; says which
    ├── RunError                 what ``handle.result()`` raises when there is no result
    │   ├── RunFailed            the run failed for good
    │   ├── RunCancelled         the run was cancelled
    │   └── ResultTimeout        the run is not final yet
    ├── PermanentError           raise it in a task or step: do not retry
    │   ├── BudgetExceeded       steps, tokens or cost are used up
    │   ├── JournalMismatch      the code no longer fits the journal of a run that it resumes
    │   └── StepInterrupted      an ``at_most_once`` step may have happened; nobody knows
    ├── TemporaryError           raise it in a task or step: retry, after ``retry_after`` seconds
    ├── StepFailed               a step failed, its tries are used up (live and replayed alike)
    │   └── StepTimeout          its last try took too long
    ├── ChildFailed              a run that this run called failed or was cancelled
    ├── WaitTimeout              ``wait_for`` timed out and had no default
    └── RunTimeout               the run used up its running time
        └── DeadlineExceeded     …or its wall-clock deadline
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from agentq.message import Entry, Failure


class AgentQError(Exception):
    """Root of every error that agentq raises."""


class DeclarationError(AgentQError, TypeError):
    """A task, step or app was declared in a way that can never work."""


class InvalidArgument(AgentQError, ValueError):
    """A value does not fit; the message names the field, the value and the remedy."""

    def __init__(self, field: str, value: object, remedy: str) -> None:
        """Name the ``field``, the offending ``value`` (shortened) and the ``remedy``."""
        shown = repr(value)
        if len(shown) > 120:  # noqa: PLR2004 - long enough to recognise a value, short enough for a line
            shown = shown[:117] + "..."
        super().__init__(f"{field}: {shown} does not fit; {remedy}")
        self.field = field
        self.remedy = remedy


class StoreUnnamed(InvalidArgument):
    """Behind a broker nobody said where the store is."""

    def __init__(self) -> None:
        """Say what to set."""
        remedy = (
            "behind a broker it must be one that every worker reaches: set AGENTQ_STORE or store=, such as"
            " postgresql://user@host/database (where there is one machine, a file will do: sqlite:./runs.db)"
        )
        super().__init__("store", "", remedy)
        self.args = (f"store: nothing is set; {remedy}",)


class UnknownTask(InvalidArgument):
    """No task of that name is registered in this process."""


class PayloadTooLarge(InvalidArgument):
    """A value is over the size limit; keep it elsewhere and pass a reference."""


class CodecError(AgentQError, ValueError):
    """A value cannot be written as typed JSON, or typed JSON cannot be read as the annotation says."""


class NotOpen(AgentQError, RuntimeError):
    """The app is used before ``async with aq:`` opened it, or after it was closed."""


class KeyConflict(AgentQError):
    """The same idempotency key was used with other arguments; the first run stands."""

    def __init__(self, key: str, run_id: str, before: str, now: str) -> None:
        """Show both argument sets: those of the run that exists and those just given."""
        super().__init__(
            f"key: {key!r} already names run {run_id} with arguments {before}; now it came with {now}. "
            "Use another key, or ask for the existing run by its id."
        )
        self.key = key
        self.run_id = run_id


class NotFound(AgentQError, LookupError):
    """No such run, worker or step in this store."""


class StoreError(AgentQError):
    """The store refused an operation."""


class StoreUnavailable(StoreError):
    """The store cannot be reached or is busy for now; the same call may succeed later."""


class StoreIncompatible(StoreError):
    """The store's schema was written by a newer agentq than this one."""


class StoreMissing(StoreError):
    """There is no store at this place yet, and whoever opened it did not want to make one."""


class BrokerError(AgentQError):
    """The broker refused an operation; the message says what to change."""


class BrokerUnavailable(BrokerError):
    """The broker cannot be reached or is throttling for now; the same call may succeed later."""


class NotSent(BrokerUnavailable):
    """Some calls of a submission did not reach the broker; the others did.

    Submit those again. Where an answer got lost on the way, a call may be in after all; with a ``key`` that is harmless.
    """

    def __init__(self, unsent: Mapping[int, BaseException], of: int) -> None:
        """Name the calls by their place, and the first one's error."""
        first = next(iter(unsent.values()))
        which = "the run was" if of == 1 else f"{len(unsent)} of {of} runs (places {_places(list(unsent))}) were"
        super().__init__(f"{which} not sent: {first}")
        self.unsent = dict(unsent)
        """Place among the calls, from 0, to what went wrong."""


def _places(numbers: list[int]) -> str:
    shown = ", ".join(map(str, numbers[:10]))
    return shown if len(numbers) <= 10 else f"{shown}, …"  # noqa: PLR2004 - as many as a line takes


class RunError(AgentQError):
    """A run has no result to give."""

    def __init__(self, run_id: str, message: str) -> None:
        """Name the run."""
        super().__init__(message)
        self.run_id = run_id


class RunFailed(RunError):
    """The run failed for good; ``failure`` says why, as data."""

    def __init__(self, run_id: str, failure: Failure) -> None:
        """Carry the recorded failure of ``run_id``."""
        super().__init__(run_id, f"run {run_id} failed: {failure.type}: {failure.message}")
        self.failure = failure


class RunCancelled(RunError):
    """The run was cancelled before it finished."""


class ResultTimeout(RunError, TimeoutError):
    """The run is not final yet; it goes on, only the waiting ended."""


class PermanentError(AgentQError):
    """Raise it (or a subclass) in a task or a step when trying again cannot help."""


class BudgetExceeded(PermanentError):
    """The run has used more steps, tokens or money than its budget allows."""


class JournalMismatch(PermanentError):
    """The code that resumes a run no longer fits what the run recorded."""


class StepInterrupted(PermanentError):
    """An ``at_most_once`` step was begun and its end was never recorded: it may or may not have happened."""


class TemporaryError(AgentQError):
    """Raise it in a task or a step to ask for another try, after ``retry_after`` seconds if given."""

    def __init__(self, message: str = "", *, retry_after: float | None = None) -> None:
        """``retry_after`` is in seconds and overrides the policy's delay."""
        super().__init__(message)
        self.retry_after = retry_after


class StepFailed(AgentQError):
    """A step's tries are used up. Raised alike when it happens and when it is replayed.

    ``type`` is the name of the original exception's class (``"ValueError"``), ``message`` its text. The original
    exception itself is ``__cause__`` only when it happened in this process; a replay cannot rebuild it, so decide by
    ``type``, or catch the original inside the step.
    """

    def __init__(self, step: str, failure: Failure) -> None:
        """Carry the recorded ``failure`` of ``step``."""
        super().__init__(f"step {step!r} failed: {failure.type}: {failure.message}")
        self.step = step
        self.failure = failure
        self.entry: Entry | None = None
        """The journal entry of the failure."""
        self.carried: Sequence[Entry] = ()
        """Entries of failed steps inside its body that made it fail, where that happened in this process."""
        self.type = failure.type
        self.message = failure.message


class StepTimeout(StepFailed, TimeoutError):
    """The last try of a step took longer than its timeout."""


class ChildFailed(AgentQError):
    """A run that this run called failed or was cancelled."""

    def __init__(self, run_id: str, task: str, failure: Failure) -> None:
        """Carry the recorded ``failure`` of the child ``run_id``."""
        super().__init__(f"child run {run_id} ({task}) failed: {failure.type}: {failure.message}")
        self.run_id = run_id
        self.task = task
        self.failure = failure
        self.carried: Sequence[Entry] = ()
        """Journal entries of the failures that made this one."""


class WaitTimeout(AgentQError, TimeoutError):
    """A signal did not come in time and ``wait_for`` was given no default."""


class RunTimeout(AgentQError, TimeoutError):
    """The run used up its running time (waits and queues excluded)."""


class DeadlineExceeded(RunTimeout):
    """The run's wall-clock deadline passed; waiting counts too."""

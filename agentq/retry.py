"""Whether and when a failed attempt is tried again: a pure rule; whoever asked performs it."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta

from agentq.errors import DeclarationError, PermanentError, TemporaryError
from agentq.failure import leaves, type_name
from agentq.message import Failure

_TEMPORARY = type_name(TemporaryError)


@dataclass(frozen=True, slots=True, kw_only=True)
class Retry:
    """How often and how patiently a task or a step is tried again.

    The delay before try n + 1 is ``min(maximum, initial * factor ** (n - 1))``, shortened by a random share of up to
    ``jitter`` so that runs that failed together do not return together. Exceptions are given as classes (subclasses count)
    or, where importing the class is unwelcome, by qualified name (``"openai.RateLimitError"``; exact).
    """

    max_attempts: int = 3
    """Tries in all, the first included; 1 is no retry."""
    initial: timedelta = timedelta(seconds=1)
    factor: float = 2.0
    maximum: timedelta = timedelta(minutes=5)
    jitter: float = 0.1
    """Share of the delay, 0 to 1."""
    give_up_on: tuple[type[BaseException] | str, ...] = ()
    """Never retried."""
    only_on: tuple[type[BaseException] | str, ...] = ()
    """Where given, nothing else is retried, except `TemporaryError`, which asks for it."""

    def __post_init__(self) -> None:
        """Refuse values that can never work.

        Raises:
            DeclarationError: naming the field.
        """
        if not isinstance(self.max_attempts, int) or self.max_attempts < 1:
            raise DeclarationError(f"Retry.max_attempts: {self.max_attempts!r} must be a whole number from 1 (1 is no retry)")
        for name in ("initial", "maximum"):
            value = getattr(self, name)
            if not isinstance(value, timedelta) or value < timedelta(0):
                raise DeclarationError(f"Retry.{name}: {value!r} must be a timedelta of zero or more")
        if not self.factor >= 1:
            raise DeclarationError(f"Retry.factor: {self.factor!r} must be 1 or more")
        if not 0 <= self.jitter <= 1:
            raise DeclarationError(f"Retry.jitter: {self.jitter!r} must be between 0 and 1")
        for name in ("give_up_on", "only_on"):
            _check_kinds(name, getattr(self, name))


def decide(policy: Retry, attempt: int, failure: Failure, error: BaseException | None, random: float) -> float | None:
    """Seconds until the next try, or None to give up.

    Args:
        policy: the task's or step's rule.
        attempt: the try that failed, from 1.
        failure: what is recorded of it; enough to decide alone when the exception died with its process.
        error: the exception, where it is at hand: classes match by inheritance, and a group by its members.
        random: in [0, 1), the jitter's draw.
    """
    if attempt >= policy.max_attempts or failure.permanent or not _worth_it(policy, failure, error):
        return None
    if failure.retry_after_s is not None:
        return max(0.0, failure.retry_after_s)
    return _delay(policy, attempt) * (1.0 - policy.jitter * random)


def _delay(policy: Retry, attempt: int) -> float:
    ceiling = policy.maximum.total_seconds()
    try:
        return min(ceiling, policy.initial.total_seconds() * policy.factor ** (attempt - 1))
    except OverflowError:
        return ceiling


def _worth_it(policy: Retry, failure: Failure, error: BaseException | None) -> bool:
    """One hopeless member of a group makes the whole attempt hopeless; ``only_on`` must cover every member."""
    if error is None:
        named = failure.type in _names(policy.only_on) or failure.type == _TEMPORARY
        return failure.type not in _names(policy.give_up_on) and (not policy.only_on or named)
    members = list(leaves(error))
    if any(isinstance(member, PermanentError) or _matches(member, policy.give_up_on) for member in members):
        return False
    if not policy.only_on:
        return True
    return all(isinstance(member, TemporaryError) or _matches(member, policy.only_on) for member in members)


def _matches(error: BaseException, kinds: tuple[type[BaseException] | str, ...]) -> bool:
    return any(type_name(type(error)) == kind if isinstance(kind, str) else isinstance(error, kind) for kind in kinds)


def _names(kinds: tuple[type[BaseException] | str, ...]) -> set[str]:
    return {kind if isinstance(kind, str) else type_name(kind) for kind in kinds}


def _check_kinds(field: str, kinds: object) -> None:
    if not isinstance(kinds, tuple):
        raise DeclarationError(f"Retry.{field}: {kinds!r} must be a tuple of exception classes, such as (ValueError,)")
    for kind in kinds:
        if not isinstance(kind, str) and not (isinstance(kind, type) and issubclass(kind, BaseException)):
            raise DeclarationError(f"Retry.{field}: {kind!r} is neither an exception class nor the name of one")

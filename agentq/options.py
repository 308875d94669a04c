"""How one submission differs from the others: what is given to `Task.options`, checked and kept."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from typing import Any

from agentq.errors import InvalidArgument

_MOST_PRIORITY = 1_000_000
MOST_CHARS = 512
"""Of a key, an ordering key and a tenant."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CallOptions:
    """How one submission differs from the others; see `agentq.task.Task.options`."""

    key: str | None = None
    tenant: str | None = None
    ordering_key: str | None = None
    due_at: float | None = None
    delay_s: float | None = None
    priority: int = 0
    deadline: float | None = None
    deadline_s: float | None = None
    tags: Mapping[str, str] = field(default_factory=dict)
    max_attempts: int | None = None
    timeout_s: float | None = None


def changed(
    before: CallOptions,
    *,
    key: str | None,
    tenant: str | None,
    ordering_key: str | None,
    delay: timedelta | None,
    at: datetime | None,
    priority: int | None,
    deadline: datetime | timedelta | None,
    tags: Mapping[str, str] | None,
    max_attempts: int | None,
    timeout: timedelta | None,
) -> CallOptions:
    """Return ``before`` with what was given.

    Raises:
        InvalidArgument: naming the field, the value and what it must be.

    """
    if delay is not None and at is not None:
        raise InvalidArgument("at", at, "give either delay or at, not both")
    absolute = isinstance(deadline, datetime)
    table: tuple[tuple[str, str, Any, Callable[[str, Any], Any]], ...] = (
        ("key", "key", key, _text),
        ("tenant", "tenant", tenant, _text),
        ("ordering_key", "ordering_key", ordering_key, _text),
        ("delay_s", "delay", delay, _delay),
        ("due_at", "at", at, _moment),
        ("priority", "priority", priority, _priority),
        ("deadline", "deadline", deadline if absolute else None, _moment),
        ("deadline_s", "deadline", None if absolute else deadline, _span),
        ("tags", "tags", tags, _tags),
        ("max_attempts", "max_attempts", max_attempts, _attempts),
        ("timeout_s", "timeout", timeout, _span),
    )
    given = {kept: read(name, value) for kept, name, value, read in table if value is not None}
    if tags is not None:
        given["tags"] = {**before.tags, **given["tags"]}
    return replace(before, **given)


def is_duration(span: object) -> bool:
    """Whether it is a timedelta longer than zero."""
    return isinstance(span, timedelta) and span > timedelta(0)


def _span(name: str, span: timedelta) -> float:
    if not is_duration(span):
        raise InvalidArgument(name, span, f"give a timedelta longer than zero, such as timedelta(minutes=5), no {_kind(span)}")
    return span.total_seconds()


def _moment(name: str, moment: datetime) -> float:
    if not isinstance(moment, datetime):
        raise InvalidArgument(name, moment, f"give a datetime with a time zone, not a {_kind(moment)}")
    if moment.tzinfo is None:
        raise InvalidArgument(name, moment, f"give it a time zone, such as {moment.replace(tzinfo=UTC)!r}")
    return moment.timestamp()


def _text(name: str, text: str) -> str:
    if not isinstance(text, str) or not text or "\0" in text:
        raise InvalidArgument(name, text, "give a non-empty string without NUL characters")
    if len(text) > MOST_CHARS:
        raise InvalidArgument(name, text, f"give at most {MOST_CHARS} characters, not {len(text)}")
    return text


def _delay(name: str, delay: timedelta) -> float:
    return 0.0 if delay == timedelta(0) else _span(name, delay)


def _priority(name: str, number: int) -> int:
    return _whole(name, number, -_MOST_PRIORITY, _MOST_PRIORITY)


def _attempts(name: str, number: int) -> int:
    return _whole(name, number, 1, _MOST_PRIORITY)


def _whole(name: str, number: int, least: int, most: int) -> int:
    if not isinstance(number, int) or isinstance(number, bool) or not least <= number <= most:
        raise InvalidArgument(name, number, f"give a whole number from {least} to {most}")
    return number


def _tags(field_name: str, tags: Mapping[str, str]) -> dict[str, str]:
    if not isinstance(tags, Mapping):
        raise InvalidArgument(field_name, tags, "give a mapping of strings to strings")
    for name, value in tags.items():
        if not isinstance(name, str) or not isinstance(value, str):
            raise InvalidArgument(field_name, {name: value}, "give strings to strings")
    return dict(tags)


def _kind(value: object) -> str:
    return type(value).__name__

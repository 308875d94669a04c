"""What an answer to a waiting run looks like: by its question's words, or by the signal's type where the code is at hand."""

from __future__ import annotations

import dataclasses
import json
import shlex
import types
from collections.abc import Mapping, Sequence
from datetime import date, datetime, timedelta
from enum import Enum
from typing import TYPE_CHECKING, Annotated, Any, Final, Literal, Union, get_args, get_origin, get_type_hints, is_typeddict

import msgspec

from agentq.cli.reading import told
from agentq.errors import CodecError

if TYPE_CHECKING:
    from agentq.message import Wait
    from agentq.signal import Signal

_VALUE: Final = "VALUE"
NO_TYPE: Final = """VALUE is JSON, such as true or '{"ok": true}'; what is not JSON is a text"""
"""Said where nothing is known of an answer."""
_RESOLVE: Final = "resolve:"
"""Begins the names of the signals that decide on an interrupted step."""
_DECISIONS: Final = "or skip, or fail, in place of retry"
_DEPTH: Final = 4
_PLAIN: Final[Mapping[Any, Any]] = {
    bool: True, int: 1, float: 1.5, str: "text", type(None): None, dict: {}, Any: "text",
    datetime: "2030-01-31T18:00:00Z", date: "2030-01-31", timedelta: "PT1H",
}  # fmt: skip
_MANY: Final = (list, tuple, set, frozenset, Sequence)


class _Unknown(Exception):
    """No example can be made up for a type."""


def answering(run_id: str, wait: Wait, known: str | None = None) -> list[str]:
    """Return the command that answers ``wait``, for a person to copy, and a line about what is left open in it.

    ``known`` is an answer that the signal's type allows, where that is at hand.
    """
    resolving = wait.ref.startswith(_RESOLVE)
    value = "retry" if resolving else known or in_question(wait.ask)
    command = told(f"runs signal {run_id} {shlex.quote(wait.ref)} {shlex.quote(value or _VALUE)}")
    return [command, *([_DECISIONS] if resolving else [] if value else [NO_TYPE])]


def in_question(ask: str | None) -> str | None:
    """Return the first JSON object in a question, which shows what is expected; None if it says none."""
    text = ask or ""
    for start in (n for n, char in enumerate(text) if char == "{"):
        try:
            found, end = json.JSONDecoder().raw_decode(text, start)
        except ValueError:
            continue
        if found:
            return text[start:end]
    return None


def example(signal: Signal[Any]) -> str | None:
    """Return JSON that ``signal`` takes, with made-up values; None if its type is too special for that."""
    try:
        raw = msgspec.json.encode(_made_up(signal.type, _DEPTH))
        signal.decode(raw)
    except (_Unknown, CodecError, TypeError, NameError):
        return None
    return json.loads(raw) if signal.type is str else raw.decode()


def _made_up(hint: Any, depth: int) -> Any:
    hint, args = get_origin(hint) or hint, get_args(hint)
    if not depth:
        raise _Unknown
    if hint is Annotated or hint is Literal:
        return _made_up(args[0], depth) if hint is Annotated else args[0]
    if hint in (Union, types.UnionType):
        return _made_up(next(each for each in args if each is not type(None)), depth)
    if hint in _PLAIN:
        return _PLAIN[hint]
    if hint in _MANY:
        return [_made_up(args[0], depth - 1)] if args else []
    if isinstance(hint, type) and issubclass(hint, Enum):
        return next(iter(hint)).value
    return {name: _made_up(kind, depth - 1) for name, kind in _fields(hint).items()}


def _fields(kind: Any) -> dict[str, Any]:
    """Names, as JSON has them, and types of what a record holds."""
    hints = get_type_hints(kind, include_extras=False) if isinstance(kind, type) else {}
    if isinstance(kind, type) and issubclass(kind, msgspec.Struct):
        return {field.encode_name: hints[field.name] for field in msgspec.structs.fields(kind)}
    if dataclasses.is_dataclass(kind):
        return {field.name: hints[field.name] for field in dataclasses.fields(kind)}
    if is_typeddict(kind):
        return hints
    if models := getattr(kind, "model_fields", None):
        return {field.alias or name: hints[name] for name, field in models.items()}
    raise _Unknown

"""What arguments have to be so that every reader after this one can read them."""

from __future__ import annotations

from typing import Any, Final

import msgspec

from agentq.wire.kinds import misfit

MAX_DEPTH: Final = 200
"""Levels within each other. A fraction of Python's stack: those who read them later may stand deeper in it."""
_REMEDY: Final = 'give a JSON object, parameter name to value: {"topic": "k8s"}'
_SHOWN: Final = 300
"""Characters of arguments that are shown."""


def check(args: bytes) -> None:
    """See to it that they are a JSON object of bearable depth.

    Raises:
        InvalidArgument: they are not.
    """
    try:
        value = _DECODER.decode(args)
    except (ValueError, RecursionError) as error:
        raise misfit("args", args, f"{_REMEDY} ({error})") from None
    if may_be_deep(args) and _deeper(value):
        raise misfit("args", args, f"nest it at most {MAX_DEPTH} levels deep: not every reader can follow")


def may_be_deep(args: bytes) -> bool:
    """Whether there are brackets enough; a glance that spares most arguments the look inside."""
    return args.count(b"[") + args.count(b"{") > MAX_DEPTH


def _deeper(value: Any) -> bool:
    """Look level by level, which needs no stack itself."""
    level = [value]
    for _ in range(MAX_DEPTH):
        level = [inner for each in level for inner in _within(each) if isinstance(inner, dict | list)]
        if not level:
            return False
    return True


def _within(value: dict[str, Any] | list[Any]) -> Any:
    return value.values() if isinstance(value, dict) else value


_DECODER = msgspec.json.Decoder(dict[str, Any])


def shown(args: bytes) -> str:
    """Arguments for people, in an error or a reason: a line at most."""
    text = args.decode(errors="replace")
    return text if len(text) <= _SHOWN else text[: _SHOWN - 3] + "..."

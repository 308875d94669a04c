"""Values in messages to those who wrote them as JSON: as JSON, not as Python writes them."""

from __future__ import annotations

from typing import Any

import msgspec

from agentq.errors import InvalidArgument


class AsJson:
    """Stands for a value in a message; its ``repr`` is JSON, or the text that was no JSON."""

    def __init__(self, value: Any) -> None:
        """Show ``value``: bytes (and `msgspec.Raw`) are what was to be read as JSON, anything else is what was read."""
        self._text = _text(bytes(value)) if isinstance(value, bytes | msgspec.Raw) else _json(value)

    def __repr__(self) -> str:
        """The text."""
        return self._text


def missing(field: str, remedy: str) -> InvalidArgument:
    """Say that something required was not given at all."""
    flaw = InvalidArgument(field, None, remedy)
    flaw.args = (f"{field} is missing; {remedy}",)
    return flaw


def _text(raw: bytes) -> str:
    try:
        return _json(msgspec.json.decode(raw))
    except (ValueError, RecursionError):
        return _printable(raw.decode(errors="backslashreplace")) or "(empty)"


def _json(value: Any) -> str:
    try:
        return _printable(msgspec.json.encode(value).decode())
    except (ValueError, TypeError, RecursionError, OverflowError):  # half of a surrogate pair, or nested too deep
        return ascii(value) if isinstance(value, str) else f"this {_KINDS.get(type(value), type(value).__name__)}"


def _printable(text: str) -> str:
    return text if text.isprintable() else "".join(each if each.isprintable() else f"\\u{ord(each):04x}" for each in text)


_KINDS = {dict: "object", list: "array", int: "number"}

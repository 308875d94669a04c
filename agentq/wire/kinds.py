"""What a field may hold: each kind checks a value, and says the same as JSON Schema."""

from __future__ import annotations

import re
from typing import Any, Final, Protocol

import msgspec

from agentq.codec import MAX_PAYLOAD_BYTES
from agentq.codec.shown import AsJson, missing
from agentq.errors import InvalidArgument
from agentq.redact import redact

END_OF_TIME: Final = 253_370_764_800
"""9999-01-01 in Unix seconds: what lies beyond has no date in most languages."""
MAX_TAGS: Final = 64
_LOOKED_AT: Final = 2000
"""Characters of a refused value in which secrets are looked for; far fewer are shown."""
_NO_NUL: Final = r"^[^\u0000]*$"
_NO_CONTROLS: Final = r"^[^\u0000-\u001f\u007f]*$"
_ID: Final = r"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$(?!\n)"  # in Python and .NET `$` also stands before a last line break
_SHA256: Final = r"^[0-9a-f]{64}$(?!\n)"
_PLACE: Final = r"^(store|s3://[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]/[^\u0000-\u001f\u007f]{1,1024})$(?!\n)"

Schema = dict[str, Any]


class Kind(Protocol):
    """What one field may hold."""

    def check(self, name: str, value: Any) -> Any:
        """Return the value as the envelope keeps it.

        Raises:
            InvalidArgument: naming the field, the value and what it has to be.
        """
        ...

    def schema(self) -> Schema:
        """The same as JSON Schema, with ``type`` as a single name."""
        ...


class Text(msgspec.Struct, frozen=True):
    """Characters, at least one; none of them NUL, which PostgreSQL cannot keep."""

    most: int
    controls: bool = True
    """Whether other control characters may be in it: not in names, of which identities are made."""

    def check(self, name: str, value: Any) -> str:
        """As `Kind.check`."""
        if type(value) is not str or not 0 < len(value) <= self.most:
            raise misfit(name, value, f"give a string of 1 to {self.most} characters")
        if not (value.isascii() and value.isprintable()):
            if re.search(self._pattern(), value) is None:
                no = "NUL characters" if self.controls else "control characters"
                raise misfit(name, value, f"give a string without {no}")
            if not encodable(value):
                raise misfit(name, value, "give Unicode text: half of a surrogate pair is none")
        return value

    def _pattern(self) -> str:
        return _NO_NUL if self.controls else _NO_CONTROLS

    def schema(self) -> Schema:
        """As `Kind.schema`."""
        return {"type": "string", "minLength": 1, "maxLength": self.most, "pattern": self._pattern()}


class Pattern(msgspec.Struct, frozen=True):
    """Text of one form."""

    pattern: str
    words: str

    def check(self, name: str, value: Any) -> str:
        """As `Kind.check`."""
        if type(value) is not str or re.search(self.pattern, value) is None or not encodable(value):
            raise misfit(name, value, f"give {self.words}")
        return value

    def schema(self) -> Schema:
        """As `Kind.schema`."""
        return {"type": "string", "pattern": self.pattern}


class Whole(msgspec.Struct, frozen=True):
    """A whole number; 2.0 is one, as JSON Schema has it."""

    least: int
    most: int

    def check(self, name: str, value: Any) -> int:
        """As `Kind.check`."""
        if type(value) not in (int, float) or not self.least <= value <= self.most or value != int(value):
            raise misfit(name, value, f"give a whole number from {self.least} to {self.most}")
        return int(value)

    def schema(self) -> Schema:
        """As `Kind.schema`."""
        return {"type": "integer", "minimum": self.least, "maximum": self.most}


class Seconds(msgspec.Struct, frozen=True):
    """Seconds, of a duration or since 1970."""

    words: str

    def check(self, name: str, value: Any) -> float:
        """As `Kind.check`."""
        if type(value) not in (int, float) or not 0 < value < END_OF_TIME:
            raise misfit(name, value, f"give {self.words}, a number over 0 and under {END_OF_TIME}")
        return float(value)

    def schema(self) -> Schema:
        """As `Kind.schema`."""
        return {"type": "number", "exclusiveMinimum": 0, "exclusiveMaximum": END_OF_TIME}


class Tags(msgspec.Struct, frozen=True):
    """Strings to strings."""

    name: Text = Text(255)
    value: Text = Text(1024)

    def check(self, name: str, value: Any) -> dict[str, str]:
        """As `Kind.check`."""
        if not isinstance(value, dict) or len(value) > MAX_TAGS:
            raise misfit(name, value, f"give an object of at most {MAX_TAGS} strings")
        for tag, text in value.items():
            self.name.check(f"a name in {name}", tag)
            if text != "":
                self.value.check(f"{name}.{tag[:64]}", text)
        return value

    def schema(self) -> Schema:
        """As `Kind.schema`."""
        values = {**self.value.schema(), "minLength": 0}
        return {
            "type": "object",
            "maxProperties": MAX_TAGS,
            "propertyNames": self.name.schema(),
            "additionalProperties": values,
        }


class Check(msgspec.Struct, frozen=True):
    """The claim check of a `agentq.wire.Parcel`, all of its fields required."""

    def check(self, name: str, value: Any) -> dict[str, Any]:
        """As `Kind.check`."""
        if not isinstance(value, dict):
            raise misfit(name, value, f"give an object of {', '.join(_PARCEL)}")
        if absent := [part for part in _PARCEL if value.get(part) is None]:
            raise missing(f"{name}.{absent[0]}", f"give an object of {', '.join(_PARCEL)}")
        return {part: kind.check(f"{name}.{part}", value[part]) for part, kind in _PARCEL.items()}

    def schema(self) -> Schema:
        """As `Kind.schema`."""
        parts = {part: kind.schema() for part, kind in _PARCEL.items()}
        return {"type": "object", "required": list(_PARCEL), "properties": parts}


class _Shown:
    """A text, as it is."""

    def __init__(self, text: str) -> None:
        self.text = text

    def __repr__(self) -> str:
        return self.text


def misfit(name: str, value: Any, remedy: str) -> InvalidArgument:
    """The error that names the field, the value without its secrets (found before it is shortened) and the remedy."""
    shown = repr(AsJson(value[:_LOOKED_AT] if isinstance(value, str | bytes) else value))
    return InvalidArgument(name, _Shown(redact(shown[:_LOOKED_AT])), remedy)


def encodable(text: str) -> bool:
    """Whether it is Unicode that UTF-8 can write."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


ID: Final = Pattern(_ID, "1 to 64 letters, digits, '.', '_' or '-', the first a letter or digit")
_PARCEL: Final[dict[str, Kind]] = {
    "sha256": Pattern(_SHA256, "64 lowercase hex digits"),
    "bytes": Whole(0, MAX_PAYLOAD_BYTES),
    "place": Pattern(_PLACE, "'store' or 's3://bucket/key'"),
}

"""What turns values into JSON and back: the contract of an engine, and msgspec, which is the first choice."""

from __future__ import annotations

import re
from pathlib import PurePath
from typing import Any, Protocol

import msgspec

from agentq.codec.fidelity import Flaw, type_of

_AT = re.compile(r"(.*?)(?: - at `(.*)`)?", re.DOTALL)


class Engine(Protocol):
    """A library that writes and reads one annotation, and raises what it likes."""

    def dump(self, value: Any, /) -> bytes:
        """Write without checking."""
        ...

    def load(self, raw: bytes, /) -> Any:
        """Read and check."""
        ...

    def explain(self, error: Exception) -> Flaw:
        """Say where and what was wrong."""
        ...


class Unsupported(Exception):
    """This engine has no form for the annotation; another may have."""


def _to_json(value: object) -> object:
    """Encode what msgspec does not know by itself."""
    if isinstance(value, PurePath):
        return str(value)
    raise TypeError(f"{type_of(value)} has no JSON form here; annotate it as what it is")


def _from_json(cls: type, value: object) -> object:
    if issubclass(cls, PurePath) and isinstance(value, str):
        return cls(value)
    raise ValueError(f"Expected `str`, got `{type_of(value)}`")


_ENCODER = msgspec.json.Encoder(enc_hook=_to_json)


class Msgspec:
    """msgspec: fast, strict, and sure of what it knows."""

    __slots__ = ("dump", "load")

    def __init__(self, annotation: Any) -> None:
        """Raise `Unsupported` where msgspec has no form for it."""
        try:
            known = _known(msgspec.inspect.type_info(annotation))
            self.load = msgspec.json.Decoder(annotation, dec_hook=_from_json).decode
        except Exception as error:  # noqa: BLE001 - a name in a class's own annotations that is not there, for one
            raise Unsupported(str(error)) from None
        if not known:
            raise Unsupported
        self.dump = _ENCODER.encode

    def explain(self, error: Exception) -> Flaw:
        """Take msgspec's message apart."""
        match = _AT.fullmatch(str(error))
        reason, path = match.groups() if match else (str(error), None)
        return Flaw(path or "$", reason.replace("Expected", "expected", 1).replace("Object", "object", 1))


def _known(info: Any) -> bool:
    """Whether nothing in a type is left to hooks, except paths."""
    todo, seen = [info], set[int]()
    while todo:
        each = todo.pop()
        if id(each) in seen:
            continue
        seen.add(id(each))
        if isinstance(each, msgspec.inspect.CustomType) and not issubclass(each.cls, PurePath):
            return False
        if isinstance(each, tuple):
            todo.extend(each)
        elif isinstance(each, msgspec.inspect.Type | msgspec.inspect.Field):
            if hasattr(getattr(each, "cls", None), "__pydantic_validator__"):
                return False
            todo.extend(getattr(each, name) for name in each.__struct_fields__)
    return True

"""What a value would lose on its way through typed JSON, and where; so that nothing is lost silently."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import msgspec

_JSON_LEAVES = (str, int, float, bool, type(None))
_BYTES = (bytes, bytearray, memoryview)
_SETS = (set, frozenset)
_DEEPEST = 200


class Flaw(NamedTuple):
    """What is wrong with a value, and where in it (``$.reports[0].title``)."""

    path: str
    reason: str


def same(value: object, decoded: object) -> bool:
    """Whether both are equal, asked so that no foreign ``__eq__`` can do harm."""
    try:
        return bool(value == decoded)
    except Exception:  # noqa: BLE001 - arrays raise here, for one
        return False


def lost(value: Any, decoded: Any, path: str = "$") -> Flaw | None:  # noqa: PLR0911 - a case by kind of value
    """Find what ``decoded``, which was read back, lacks of ``value``, which was written; None when nothing that matters.

    A tuple may come back as a list, an int as a float, and a dict or a string may become the type that is declared. But a
    subclass that comes back as its base, or bytes, times and objects that come back as strings or dicts, are losses.
    """
    if same(value, decoded):
        return None
    if isinstance(value, Mapping):
        return _lost_of_mapping(value, decoded, path)
    if isinstance(value, _SETS):
        return _lost_of_set(value, decoded, path)
    if isinstance(value, list | tuple) and not hasattr(value, "_fields"):
        if isinstance(decoded, _SETS):
            return None
        if not isinstance(decoded, Sequence) or isinstance(decoded, str):
            return _changed(value, decoded, path)
        pairs = ((f"{path}[{n}]", each, back) for n, (each, back) in enumerate(zip(value, decoded, strict=False)))
        return _first(pairs)
    names = field_names(value)
    if names is None:
        return _lost_of_leaf(value, decoded, path)
    if type(decoded) is not type(value):
        return _changed(value, decoded, path)
    return _first((f"{path}.{name}", getattr(value, name, None), getattr(decoded, name, None)) for name in names)


def unfit(value: Any, path: str = "$", depth: int = 0) -> Flaw | None:  # noqa: PLR0911 - as above
    """Find the first part of ``value`` that JSON has no form for."""
    if depth > _DEEPEST:
        return Flaw(path[:80] + "...", "it is nested too deeply, or contains itself")
    parts = _parts(value, path)
    if parts is not None:
        return next((flaw for where, part in parts if (flaw := unfit(part, where, depth + 1))), None)
    if isinstance(value, float) and not math.isfinite(value):
        return Flaw(path, f"{value} is no JSON number; use None, or a string")
    if isinstance(value, str) and not _encodable(value):
        return Flaw(path, "the text contains a lone surrogate, which UTF-8 has no form for")
    if is_secret(value):
        return Flaw(path, SECRET)
    try:
        msgspec.json.encode(value)
    except Exception:  # noqa: BLE001 - whatever it is, it cannot be written
        return Flaw(path, f"{type_of(value)} has no JSON form")
    return None


SECRET = "secrets do not belong into a journal; pass a reference, such as the name of the secret"  # noqa: S105 - a message


def is_secret(value: object) -> bool:
    """Whether this is pydantic's SecretStr or one of its kind, as a value or as a class."""
    return hasattr(value, "get_secret_value")


def field_names(value: object) -> list[str] | None:
    """Attributes that make up a dataclass, struct, named tuple, attrs or pydantic object; None for anything else."""
    cls = type(value)
    if isinstance(value, msgspec.Struct):
        return list(value.__struct_fields__)
    if dataclasses.is_dataclass(value):
        return [each.name for each in dataclasses.fields(value)]
    if isinstance(value, tuple) and hasattr(value, "_fields"):
        return list(value._fields)
    models: dict[str, Any] | None = getattr(cls, "__pydantic_fields__", None)
    if models is not None:
        return [name for name, each in models.items() if not each.exclude]
    attributes: Iterable[Any] | None = getattr(cls, "__attrs_attrs__", None)
    return None if attributes is None else [each.name for each in attributes]


def type_of(value: object) -> str:
    """Name of the value's class, as people write it."""
    return "None" if value is None else type(value).__qualname__


def _first(pairs: Iterable[tuple[str, Any, Any]]) -> Flaw | None:
    return next((flaw for path, value, decoded in pairs if (flaw := lost(value, decoded, path))), None)


def _changed(value: object, decoded: object, path: str) -> Flaw:
    return Flaw(path, f"{type_of(value)} would come back as {type_of(decoded)}; annotate it as what it is")


def _lost_of_mapping(value: Mapping[Any, Any], decoded: Any, path: str) -> Flaw | None:
    if isinstance(decoded, Mapping):
        for key, each in value.items():
            if key not in decoded:
                odd = not isinstance(key, str)
                reason = f"the key would come back changed; annotate keys of type {type_of(key)}" if odd else "no such field"
                return Flaw(f"{path}.{key}", reason)
            if flaw := lost(each, decoded[key], f"{path}.{key}"):
                return flaw
        return None
    known = _json_names(decoded)
    if known is not None:
        unknown = next((key for key in value if key not in known), None)
        return None if unknown is None else Flaw(f"{path}.{unknown}", f"{type_of(decoded)} has no such field")
    return _changed(value, decoded, path) if isinstance(decoded, _JSON_LEAVES) else None


def _json_names(decoded: object) -> set[str] | None:
    """Names under which a declared type reads its fields; None where it has its own rules for what it does not know."""
    if isinstance(decoded, msgspec.Struct):
        tag = decoded.__struct_config__.tag_field
        return {*decoded.__struct_fields__, *decoded.__struct_encode_fields__, *([tag] if tag else [])}
    if dataclasses.is_dataclass(decoded) and not hasattr(type(decoded), "__pydantic_fields__"):
        return {each.name for each in dataclasses.fields(decoded)}
    return None


def _lost_of_set(value: set[Any] | frozenset[Any], decoded: Any, path: str) -> Flaw | None:
    if not isinstance(decoded, _SETS):
        return _changed(value, decoded, path)
    strangers = decoded - value
    return _first((f"{path}[...]", each, next(iter(strangers), None)) for each in value - decoded)


def _lost_of_leaf(value: Any, decoded: Any, path: str) -> Flaw | None:  # noqa: PLR0911 - as above
    if is_secret(value):
        return Flaw(path, SECRET)
    if isinstance(value, float) and not math.isfinite(value):
        return unfit(value, path)
    if isinstance(decoded, type(value)):
        return None
    if not isinstance(value, _JSON_LEAVES):
        kin = isinstance(value, type(decoded)) and not isinstance(decoded, _JSON_LEAVES)
        buffers = isinstance(value, _BYTES) and isinstance(decoded, _BYTES)
        return None if kin or buffers else _changed(value, decoded, path)
    if isinstance(decoded, _BYTES):
        return _changed(value, decoded, path)
    if isinstance(decoded, _JSON_LEAVES):
        number = isinstance(value, int | float) and isinstance(decoded, float) and not isinstance(value, bool)
        return None if number or isinstance(value, type(decoded)) else _changed(value, decoded, path)
    return None


def _parts(value: Any, path: str) -> Iterator[tuple[str, Any]] | None:
    if isinstance(value, Mapping):
        return ((f"{path}.{key}", each) for key, each in value.items())
    names = field_names(value)
    if names is not None:
        return ((f"{path}.{name}", getattr(value, name, None)) for name in names)
    if isinstance(value, list | tuple | set | frozenset):
        return ((f"{path}[{n}]", each) for n, each in enumerate(value))
    return None


def _encodable(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True

"""The codec's pydantic engine: models, unions of them, and whatever else msgspec has no form for."""

from __future__ import annotations

import inspect
import types
import typing
from typing import Any, NotRequired, Required

import pydantic
from pydantic_core import SchemaSerializer, SchemaValidator
from pydantic_core.core_schema import CoreConfig
from typing_extensions import TypedDict

from agentq.codec.engines import Unsupported
from agentq.codec.fidelity import Flaw

_CONFIG = pydantic.ConfigDict(ser_json_bytes="base64", val_json_bytes="base64")
_CONFIGURED = frozenset({"model", "dataclass", "typed-dict"})
"""Kinds of schema with a configuration of their own, which the adapter's does not reach."""
_OWN_SCHEMA: dict[str, Any] = {"_use_prebuilt": False} if "_use_prebuilt" in (SchemaValidator.__text_signature__ or "") else {}
"""Since pydantic 2.12 a model's own validator is taken for its part of a schema, unless it is told not to."""
_BY_NAME = "by_name" in inspect.signature(pydantic.TypeAdapter.validate_json).parameters
"""Since pydantic 2.11 a field can be read under its name even where it has an alias."""


class Pydantic:
    """One annotation, by pydantic's TypeAdapter."""

    __slots__ = ("_reader", "_writer")

    def __init__(self, annotation: Any) -> None:
        """Raise `Unsupported` where pydantic has no form for it."""
        try:
            adapter = _adapter(annotation)
            schema = _adapted(adapter.core_schema)
            if schema == adapter.core_schema:
                self._reader: Any = adapter.validator
                self._writer: Any = adapter.serializer
            else:
                self._reader = SchemaValidator(schema, CoreConfig(val_json_bytes="base64"), **_OWN_SCHEMA)
                self._writer = SchemaSerializer(schema, CoreConfig(ser_json_bytes="base64"), **_OWN_SCHEMA)
        except Exception as error:  # noqa: BLE001 - schema errors, but also whatever a type's own hooks raise
            raise Unsupported(str(error).partition("\n")[0]) from None

    def dump(self, value: Any) -> bytes:
        """Write by field names; what was of the wrong type is found when it is read back."""
        written: bytes = self._writer.to_json(value, by_alias=not _BY_NAME, round_trip=True, warnings=False)
        return written

    def load(self, raw: bytes) -> Any:
        """Read by field names, and by aliases where another program wrote it."""
        if _BY_NAME:
            return self._reader.validate_json(raw, by_name=True)
        return self._reader.validate_json(raw)

    def explain(self, error: Exception) -> Flaw:
        """Give the first of pydantic's findings, and how many more there are."""
        if not isinstance(error, pydantic.ValidationError):
            return Flaw("$", str(error))
        first, *more = error.errors(include_url=False, include_context=False)
        path = "$" + "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in first["loc"])
        kind = type(first["input"]).__name__
        reason = f"{first['msg'][:1].lower()}{first['msg'][1:]}, got {kind}"
        return Flaw(path, f"{reason} (and {len(more)} more)" if more else reason)


def _adapter(annotation: Any) -> pydantic.TypeAdapter[Any]:
    try:
        return pydantic.TypeAdapter(annotation, config=_CONFIG)
    except pydantic.PydanticUserError as error:
        if error.code == "typed-dict-version":
            return _adapter(_modern(annotation))
        if error.code != "type-adapter-config-unused":
            raise
        return pydantic.TypeAdapter(annotation)  # a model brings its own configuration


def _modern(annotation: Any) -> Any:
    """Replace ``typing.TypedDict`` by its like from typing_extensions: before Python 3.12 pydantic takes no other."""
    if typing.is_typeddict(annotation):
        hints = typing.get_type_hints(annotation, include_extras=True)
        marks = {name: Required if name in annotation.__required_keys__ else NotRequired for name in hints}
        return TypedDict(annotation.__name__, {name: marks[name][_modern(hint)] for name, hint in hints.items()})  # type: ignore[operator]
    args = tuple(_modern(each) for each in typing.get_args(annotation))
    origin = typing.get_origin(annotation)
    if args == typing.get_args(annotation) or origin is None:
        return annotation
    if origin in (Required, NotRequired):
        return args[0]
    return typing.Union[args] if origin in (typing.Union, types.UnionType) else origin[args]  # noqa: UP007 - made, not written


def _adapted(schema: Any) -> Any:
    """Change what would not come back the same.

    ``Iterable[…]`` is read as a list: pydantic's lazy iterator could be consumed once and never be written again. Bytes
    are base64 also in models and dataclasses that say nothing about them: pydantic's default takes only valid UTF-8.
    """
    if isinstance(schema, list):
        return [_adapted(each) for each in schema]
    if not isinstance(schema, dict):
        return schema
    copy = {key: each if key == "cls" else _adapted(each) for key, each in schema.items()}
    kind = schema.get("type")
    if kind == "generator":
        copy["type"] = "list"
    elif kind in _CONFIGURED:
        copy["config"] = {**_CONFIG, **copy.get("config", {})}
    return copy

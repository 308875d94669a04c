"""The codec of one annotation: which engine it gets, and what it refuses so that nothing is lost silently."""

from __future__ import annotations

import enum
import functools
import typing
from collections.abc import Callable
from typing import Any, Generic, Protocol, TypeVar

from agentq.codec.annotations import describe, normal, walk
from agentq.codec.engines import Engine, Msgspec, Unsupported
from agentq.codec.fidelity import SECRET, Flaw, is_secret, lost, same, type_of, unfit
from agentq.errors import CodecError, DeclarationError, PayloadTooLarge

T = TypeVar("T")

MAX_PAYLOAD_BYTES = 64 * 2**20
"""Of one argument list, result or snapshot as JSON. It travels whole, through memory, at every resume."""

_FOREIGN_METADATA = ("pydantic", "annotated_types")


class Codec(Protocol[T]):
    """Writes and reads the values of one annotation."""

    def encode(self, value: T) -> bytes:
        """Write ``value`` as JSON, having checked that the annotation accepts it and that it comes back whole.

        Raises:
            CodecError: naming the path (``$.field``), what was expected and what it is.
            PayloadTooLarge: over `MAX_PAYLOAD_BYTES`.
        """
        ...

    def decode(self, raw: bytes) -> T:
        """Read what `encode`, or another program, wrote.

        Raises:
            CodecError: naming the path, what was expected and what is there.
        """
        ...

    def roundtrip(self, value: T) -> tuple[bytes, T]:
        """Return ``encode(value)`` and what it decodes to, for the price of the first."""
        ...


class Misfit(CodecError):
    """A `CodecError` that knows its path and reason apart, for those who know the name of the value."""

    def __init__(self, flaw: Flaw) -> None:
        """Say where and what."""
        super().__init__(f"{flaw.path}: {flaw.reason}")
        self.flaw = flaw


class TypedCodec(Generic[T]):
    """The codec of one annotation, on one engine."""

    __slots__ = ("_annotation", "_dump", "_engine", "_load", "expected")

    def __init__(self, annotation: Any, engine: Engine) -> None:
        """Use `codec_for`."""
        self.expected = describe(annotation)
        """The annotation as people write it."""
        self._annotation = annotation
        self._engine = engine
        self._dump = engine.dump
        self._load = engine.load

    def __repr__(self) -> str:
        """The annotation it is for."""
        return f"<Codec {self.expected}>"

    def encode(self, value: T) -> bytes:
        """See `Codec.encode`."""
        return self.roundtrip(value)[0]

    def decode(self, raw: bytes) -> T:
        """See `Codec.decode`."""
        try:
            return self._load(raw)  # type: ignore[no-any-return]
        except Exception as error:  # noqa: BLE001 - validators of the user's own types raise what they like
            raise Misfit(self._engine.explain(error)) from None

    def roundtrip(self, value: T) -> tuple[bytes, T]:
        """See `Codec.roundtrip`."""
        try:
            raw = self._dump(value)
        except Exception as error:  # noqa: BLE001 - as above
            raise Misfit(unfit(value) or self._engine.explain(error)) from None
        if len(raw) > MAX_PAYLOAD_BYTES:
            raise too_large("$", len(raw))
        try:
            decoded: T = self._load(raw)
        except Exception as error:  # noqa: BLE001 - as above
            raise Misfit(self._refused(value, error)) from None
        if not same(value, decoded) and (flaw := lost(value, decoded)):
            raise Misfit(flaw)
        return raw, decoded

    def _refused(self, value: Any, error: Exception) -> Flaw:
        if flaw := unfit(value):
            return flaw
        path, reason = self._engine.explain(error)
        if path != "$" or _is_narrowed(self._annotation) or type_of(value) == self.expected:
            return Flaw(path, reason)
        return Flaw(path, f"expected {self.expected}, got {type_of(value)}")


def codec_for(annotation: Any) -> Codec[Any]:
    """Return the codec of an annotation: msgspec where it can, else pydantic, which is imported only then.

    None (and no annotation at all) stand for Any: whatever JSON has a form for.

    Raises:
        DeclarationError: neither has a form for the annotation, or it is a secret.
    """
    try:
        return _cached(normal(annotation))
    except TypeError as error:
        if isinstance(error, DeclarationError):
            raise
        return _build(normal(annotation))  # unhashable metadata


def too_large(field: str, size: int) -> PayloadTooLarge:
    """Say that a value of ``size`` bytes is over the limit."""
    limit = MAX_PAYLOAD_BYTES / 2**20
    return PayloadTooLarge(field, f"{size / 2**20:.1f} MiB", f"over {limit:g} MiB keep it elsewhere and pass a reference")


@functools.lru_cache(maxsize=4096)
def _cached(annotation: Any) -> Codec[Any]:
    return _build(annotation)


def _build(annotation: Any) -> Codec[Any]:
    expected = describe(annotation)
    parts = list(walk(annotation))
    if any(isinstance(part, type) and is_secret(part) for part in parts):
        raise DeclarationError(f"{expected}: {SECRET}")
    return TypedCodec(annotation, _engine(annotation, expected, parts))


def _engine(annotation: Any, expected: str, parts: list[Any]) -> Engine:
    if not any(type(part).__module__.partition(".")[0] in _FOREIGN_METADATA for part in parts if not isinstance(part, type)):
        try:
            return Msgspec(annotation)
        except Unsupported:
            pass
    try:
        from agentq.codec.pydantic_engine import Pydantic  # noqa: PLC0415 - pydantic is paid for by those who need it

        return Pydantic(annotation)
    except ImportError:
        raise DeclarationError(f"{expected}: only pydantic has a form for this; `pip install pydantic`") from None
    except Unsupported as error:
        members = typing.get_args(annotation) if _is_union(annotation) else ()
        if not members:
            raise DeclarationError(f"{expected}: neither msgspec nor pydantic can write this as JSON ({error})") from None
        return _Alternatives(members)


def _is_narrowed(annotation: Any) -> bool:
    """Whether a value of the right type may still be refused, so that naming the types explains nothing."""
    enumerated = isinstance(annotation, type) and issubclass(annotation, enum.Enum)
    return enumerated or typing.get_origin(annotation) in (typing.Annotated, typing.Literal)


def _is_union(annotation: Any) -> bool:
    return typing.get_origin(annotation) is typing.Union or type(annotation).__name__ == "UnionType"


class _Alternatives:
    """A union that no engine knows whole, such as one of a struct and a pydantic model: its members are tried in order."""

    __slots__ = ("_codecs",)

    def __init__(self, members: tuple[Any, ...]) -> None:
        self._codecs = [codec_for(type(None) if member is None else member) for member in members]

    def dump(self, value: Any) -> bytes:
        raw: bytes = self._first(lambda codec: codec.encode(value))
        return raw

    def load(self, raw: bytes) -> Any:
        return self._first(lambda codec: codec.decode(raw))

    def _first(self, call: Callable[[Codec[Any]], Any]) -> Any:
        reasons = []
        for codec in self._codecs:
            try:
                return call(codec)
            except CodecError as error:
                reasons.append(str(error))
        raise CodecError("; ".join(reasons))

    def explain(self, error: Exception) -> Flaw:
        return Flaw("$", f"fits no member of the union: {error}")

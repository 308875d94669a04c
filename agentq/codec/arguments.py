"""The arguments of a function as one JSON object: checked, read back typed, and told from others by a hash."""

from __future__ import annotations

import difflib
import hashlib
import inspect
from collections.abc import Callable, Mapping
from pathlib import PurePath
from typing import Any

import msgspec

from agentq.codec.annotations import resolve
from agentq.codec.fidelity import SECRET, is_secret, type_of
from agentq.codec.shown import AsJson, missing
from agentq.codec.typed import MAX_PAYLOAD_BYTES, Codec, Misfit, codec_for, too_large
from agentq.errors import CodecError, DeclarationError, InvalidArgument, PayloadTooLarge

_LOOKED_AT = 200
"""Bytes of what is no JSON object that may be shown."""


class Arguments:
    """A function's arguments as one JSON object, parameter name to value.

    ``args`` and ``kwargs`` are what the caller gave, without the leading ``skip`` parameters. Values of ``*rest`` are kept
    as a list under its name. Annotations are resolved when this is made; a problem with one is raised by `check`, and by
    `encode` and `decode`, but not by `digest`, which needs none.
    """

    def __init__(self, fn: Callable[..., Any], *, skip: int = 0, ignore: tuple[str, ...] = ()) -> None:
        """Look at the signature of ``fn``.

        Args:
            fn: the function.
            skip: leading parameters that are not part of the call: the context, ``self``.
            ignore: parameters that `digest` leaves out.

        Raises:
            DeclarationError: ``ignore`` names a parameter that is not there.
        """
        kinds = inspect.Parameter
        parameters = list(inspect.signature(fn).parameters.values())[skip:]
        named = [each for each in parameters if each.kind not in (kinds.VAR_POSITIONAL, kinds.VAR_KEYWORD)]
        self._fn = fn
        self._ignore = ignore
        self._positional = tuple(each.name for each in named if each.kind is not kinds.KEYWORD_ONLY)
        self._only_positional = frozenset(each.name for each in named if each.kind is kinds.POSITIONAL_ONLY)
        self._required = tuple(each.name for each in named if each.default is kinds.empty)
        self._defaults = {each.name: each.default for each in named}
        self._rest = next((each.name for each in parameters if each.kind is kinds.VAR_POSITIONAL), None)
        self._extra = next((each.name for each in parameters if each.kind is kinds.VAR_KEYWORD), None)
        self.names = tuple(each.name for each in parameters if each.name != self._extra)
        """In the order of the signature; ``**extra`` is not one of them."""
        if strangers := set(ignore) - {each.name for each in parameters}:
            raise DeclarationError(f"{fn.__qualname__}(): ignore names {min(strangers)!r}, which is no parameter of it")
        self._annotations = {each.name: _annotation(fn, each) for each in parameters}
        self._codecs: dict[str, Codec[Any]] = {}

    def check(self) -> None:
        """Build every parameter's codec now.

        Raises:
            DeclarationError: naming the parameter whose annotation cannot be resolved or has no form in JSON.
        """
        for name in self._annotations:
            self.codec(name)

    def codec(self, name: str) -> Codec[Any]:
        """The codec of one parameter; of ``**extra`` for a name that is no other's."""
        if name not in self._annotations and self._extra is not None:
            name = self._extra
        codec = self._codecs.get(name)
        if codec is None:
            annotation = self._annotations[name]
            if isinstance(annotation, DeclarationError):
                raise annotation
            try:
                codec = self._codecs[name] = codec_for(annotation)
            except DeclarationError as error:
                raise DeclarationError(f"parameter {name!r} of {self._fn.__qualname__}(): {error}") from None
        return codec

    def encode(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> bytes:
        """Check the call against the signature and its annotations, and write it. Defaults are not written.

        Raises:
            InvalidArgument: naming the argument, and the path within it.
            PayloadTooLarge: one argument, or all of them, are over `MAX_PAYLOAD_BYTES`.
        """
        return self.pack(args, kwargs)[0]

    def pack(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[bytes, str]:
        """Return what `encode` writes and a hash that equal calls share: defaults spelt out, dicts and sets in another order.

        Only a dataclass that was given as a dict without its defaults is hashed as that: msgspec does not fill them in.
        """
        written: dict[str, msgspec.Raw] = {}
        read: dict[str, Any] = {}
        bound = self._bind(args, kwargs)
        for name in sorted(bound, key=self._place):
            raw, read[name] = self._convert(name, bound[name], _roundtrip)
            written[name] = msgspec.Raw(raw)
        whole = msgspec.json.encode(written)
        if len(whole) > MAX_PAYLOAD_BYTES:
            raise too_large("arguments", len(whole))
        return whole, self._hash({name: value for name, value in read.items() if not self._is_default(name, value)})

    def _is_default(self, name: str, value: Any) -> bool:
        """Whether a value says no more than leaving it out."""
        default = self._defaults.get(name, inspect.Parameter.empty)
        try:
            return type(value) is type(default) and bool(value == default)
        except Exception:  # noqa: BLE001 - a comparison of the user's types may do anything
            return False

    def decode(self, raw: bytes) -> dict[str, Any]:
        """Read what `encode`, or another program, wrote: parameter name to typed value, defaults left out.

        Raises:
            InvalidArgument: not an object; an argument is missing, unknown or of the wrong type.
        """
        try:
            pieces = _OBJECT.decode(raw)
        except msgspec.MsgspecError as error:
            raise InvalidArgument(
                "arguments", AsJson(raw[:_LOOKED_AT]), f"give a JSON object, argument name to value ({error})"
            ) from None
        self._complete(pieces)
        return {name: self._convert(name, piece, _decode) for name, piece in pieces.items()}

    def parse(self, texts: dict[str, str]) -> dict[str, Any]:
        """Read arguments as people type them: JSON where the annotation accepts that, else the text itself.

        Raises:
            InvalidArgument: as `decode` does.
        """
        self._complete(texts)
        return {name: self._convert(name, text, _from_text) for name, text in texts.items()}

    def spread(self, values: dict[str, Any]) -> tuple[tuple[Any, ...], dict[str, Any]]:
        """Turn what `decode` returned into ``(args, kwargs)`` to call the function with (after the skipped ones)."""
        if self._rest is None and not self._only_positional:
            return (), values
        left = dict(values)
        rest = left.pop(self._rest, ()) if self._rest is not None else ()
        last = max((n for n, name in enumerate(self._positional) if name in left and name in self._only_positional), default=-1)
        before = self._positional if rest else self._positional[: last + 1]
        return (*(left.pop(name, self._defaults.get(name)) for name in before), *rest), left

    def digest(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> str:
        """16 hex digits that tell this call from others; ignored parameters left out, annotations not consulted.

        Raises:
            InvalidArgument: the call does not fit the signature, or a value has no form in JSON.
        """
        if kwargs or self._rest or self._ignore or len(args) > len(self._positional):
            bound = self._bind(args, kwargs)
            for name in self._ignore:
                bound.pop(name, None)
        else:
            bound = dict(zip(self._positional, args, strict=False))
        return self._hash(bound)

    def _hash(self, bound: dict[str, Any]) -> str:
        try:
            raw = _identity(bound)
        except Exception as error:  # noqa: BLE001 - whatever it is, it has no form
            raise self._indigestible(bound, error) from None
        return hashlib.blake2b(raw, digest_size=8).hexdigest()

    def _indigestible(self, bound: dict[str, Any], error: Exception) -> InvalidArgument:
        for name, value in bound.items():
            try:
                _identity(value)
            except Exception as reason:  # noqa: BLE001 - as above
                remedy = f'it cannot tell one call from another ({reason}); leave it out: @aq.step(ignore=("{name}",))'
                return InvalidArgument(name, value, remedy)
        return InvalidArgument("arguments", bound, str(error))

    def _bind(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> dict[str, Any]:
        bound = dict(zip(self._positional, args, strict=False))
        if len(args) > len(self._positional):
            if self._rest is None:
                beyond = len(self._positional)
                raise InvalidArgument(f"argument {beyond + 1}", args[beyond], f"{self._call()} takes {beyond} by position")
            bound[self._rest] = list(args[len(self._positional) :])
        for name, value in kwargs.items():
            if name in bound:
                raise InvalidArgument(name, value, "it is given twice, by position and by name")
            bound[name] = value
        self._complete(bound)
        return bound

    def _complete(self, given: Mapping[str, Any]) -> None:
        for name in self._required:
            if name not in given:
                raise missing(name, f"{self._call()} requires it")
        if self._extra is None:
            for name, value in given.items():
                if name not in self.names:
                    near = difflib.get_close_matches(name, self.names, n=1)
                    hint = f"; did you mean {near[0]}?" if near else ""
                    raise InvalidArgument(name, _shown(value), f"{self._call()} has no parameter of this name{hint}")

    def _convert(self, name: str, value: Any, how: Callable[[Codec[Any], Any], Any]) -> Any:
        try:
            return how(self.codec(name), value)
        except Misfit as error:
            raise InvalidArgument(name + error.flaw.path[1:], _shown(value), error.flaw.reason) from None
        except PayloadTooLarge as error:
            error.args = (str(error).replace("$", name, 1),)
            raise

    def _place(self, name: str) -> int:
        return self.names.index(name) if name in self.names else len(self.names)

    def _call(self) -> str:
        return f"{self._fn.__name__}({', '.join(self.names)})"


def result_codec(fn: Callable[..., Any]) -> Codec[Any]:
    """The codec of what ``fn`` returns, postponed annotations and local classes included.

    Raises:
        DeclarationError: naming the function and what is wrong with its annotation.
    """
    annotation = getattr(fn, "__annotations__", {}).get("return", Any)
    try:
        return codec_for(resolve(fn, "return", annotation))
    except DeclarationError as error:
        if str(error).startswith("the result of"):
            raise
        raise DeclarationError(f"the result of {fn.__qualname__}(): {error}") from None


def digest(raw: bytes) -> str:
    """16 hex digits of BLAKE2b."""
    return hashlib.blake2b(raw, digest_size=8).hexdigest()


def _annotation(fn: Callable[..., Any], parameter: inspect.Parameter) -> Any:
    """The resolved annotation, or the problem with it."""
    try:
        annotation = resolve(fn, parameter.name, parameter.annotation)
    except DeclarationError as problem:
        return problem
    return list.__class_getitem__(annotation) if parameter.kind is inspect.Parameter.VAR_POSITIONAL else annotation


def _shown(value: Any) -> Any:
    """What came as JSON is shown as that."""
    return AsJson(value) if isinstance(value, msgspec.Raw) else value


def _roundtrip(codec: Codec[Any], value: Any) -> tuple[bytes, Any]:
    return codec.roundtrip(value)


def _decode(codec: Codec[Any], raw: bytes) -> Any:
    return codec.decode(bytes(raw))


def _from_text(codec: Codec[Any], text: str) -> Any:
    try:
        return codec.decode(text.encode())
    except CodecError as error:
        try:
            return codec.decode(msgspec.json.encode(text))
        except CodecError as other:
            raise (error if _is_json(text) else other) from None


def _is_json(text: str) -> bool:
    try:
        msgspec.json.decode(text)
    except msgspec.DecodeError:
        return False
    return True


def _identity(value: object) -> bytes:
    """Encode for the hash: the same bytes for equal values, whatever the order of their sets and mappings."""
    try:
        return _HASHING.encode(value)
    except TypeError:
        return _HASHING.encode(msgspec.to_builtins(value, str_keys=True, enc_hook=_to_identity))


def _to_identity(value: object) -> object:
    """Encode what msgspec does not know, for the hash alone."""
    if is_secret(value):
        raise TypeError(SECRET)
    if isinstance(value, PurePath):
        return str(value)
    serializer = getattr(type(value), "__pydantic_serializer__", None)
    if serializer is not None:
        try:
            return msgspec.Raw(serializer.to_json(value, warnings=False))
        except ValueError:
            return serializer.to_python(value, warnings=False)  # bytes that are no text: msgspec has a form for them
    raise TypeError(f"{type_of(value)} has no JSON form")


_HASHING = msgspec.json.Encoder(enc_hook=_to_identity, order="deterministic")
_OBJECT = msgspec.json.Decoder(dict[str, msgspec.Raw])

"""Whether two programs mean the same arguments, however each of them writes JSON."""

from __future__ import annotations

import msgspec

from agentq.codec import digest


def args_hash(args: bytes) -> str:
    """16 hex digits that arguments share whatever the order of their names, their blanks and their escapes.

    Numbers count as they are written: ``1`` and ``1.0`` differ.

    Raises:
        ValueError: they are no JSON.
        RecursionError: they are nested too deep.
    """
    return digest(canonical(args))


def same_args(one: bytes, other: bytes) -> bool:
    """Whether `args_hash` has to be the same for both; what is no JSON is the same only as the same bytes."""
    if one == other:
        return True
    try:
        return canonical(one) == canonical(other)
    except (ValueError, RecursionError):
        return False


def canonical(args: bytes) -> bytes:
    """The JSON with sorted names and no blanks."""
    return _WRITER.encode(_READER.decode(args))


_READER = msgspec.json.Decoder()
_WRITER = msgspec.json.Encoder(order="sorted")

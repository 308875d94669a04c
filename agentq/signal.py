"""A typed message that a run can wait for: a person's approval, a webhook, another system's event."""

from __future__ import annotations

from typing import Any, Generic, TypeVar, overload

from agentq.codec import Codec, codec_for
from agentq.errors import CodecError, DeclarationError, InvalidArgument

S = TypeVar("S")


class Signal(Generic[S]):
    """A named mailbox of a run and the type of what goes into it.

    Signals are delivered in the order in which they were sent, each once, and wait in the mailbox if they come before
    the run asks for them.
    """

    __slots__ = ("_codec", "name", "type")

    @overload
    def __init__(self, name: str, type: type[S]) -> None: ...
    @overload
    def __init__(self, name: str, type: Any) -> None: ...
    def __init__(self, name: str, type: Any) -> None:  # noqa: A002 - it is the signal's type
        """Declare a signal called ``name`` that carries a ``type``.

        Raises:
            DeclarationError: the name is empty or the type cannot be written as JSON.

        """
        if not name:
            raise DeclarationError("Signal: the name must not be empty")
        self.name = name
        self.type = type
        self._codec: Codec[S] = codec_for(type)

    def __repr__(self) -> str:
        """Name and type."""
        return f"Signal({self.name!r}, {getattr(self.type, '__name__', self.type)})"

    def encode(self, value: S) -> bytes:
        """Write a value of this signal.

        Raises:
            InvalidArgument: it is not of the signal's type.

        """
        try:
            return self._codec.encode(value)
        except CodecError as error:
            raise InvalidArgument(f"signal {self.name}", value, str(error)) from None

    def decode(self, raw: bytes) -> S:
        """Read a value of this signal.

        Raises:
            CodecError: it is not of the signal's type.

        """
        return self._codec.decode(raw)

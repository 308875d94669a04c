"""What intake hands to a store in one transaction: runs, dead letters, and how far a log has been read."""

from __future__ import annotations

import msgspec

from agentq.message.wire import Envelope


class Position(msgspec.Struct, frozen=True, kw_only=True):
    """How far one partition of a log has been read."""

    source: str
    """The log, by an identity that a log of the same name made anew does not share (a Kafka topic's id)."""
    partition: int
    offset: int
    """Of the next message to read."""


class DeadLetter(msgspec.Struct, frozen=True, kw_only=True):
    """A message that could not become a run, kept until a person replays or drops it."""

    id: str
    """Determined by the message, so that the same message delivered twice is one letter."""
    queue: str
    body: bytes
    """As it was received."""
    reason: str
    """Names the field, the value and the remedy."""
    attributes: dict[str, str] = {}
    """Message attributes or headers."""
    origin: str = ""
    """Which message of which broker it was, for people."""
    received_at: float = 0.0


class LetterQuery(msgspec.Struct, frozen=True, kw_only=True):
    """Which dead letters a reader wants; newest first."""

    ids: tuple[str, ...] = ()
    """Full ids, or unique prefixes of at least 4 characters."""
    queue: str | None = None
    limit: int = 50


class Admission(msgspec.Struct, frozen=True, kw_only=True):
    """What becomes durable together, before anything of it is acknowledged to the broker."""

    envelopes: tuple[Envelope, ...] = ()
    letters: tuple[DeadLetter, ...] = ()
    positions: tuple[Position, ...] = ()

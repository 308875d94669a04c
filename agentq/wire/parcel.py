"""Arguments that are too large for the broker: they lie elsewhere, and the message says where."""

from __future__ import annotations

import hashlib

import msgspec


class Parcel(msgspec.Struct, frozen=True, kw_only=True):
    """A claim check. Who fetches it looks only where this app keeps parcels, never wherever ``place`` may point."""

    sha256: str
    """64 hex digits, of the arguments as JSON."""
    bytes: int
    place: str
    """``store``, or ``s3://bucket/key``."""


def parcel_of(args: bytes, place: str) -> Parcel:
    """The claim check of ``args`` that are kept at ``place``."""
    return Parcel(sha256=hashlib.sha256(args).hexdigest(), bytes=len(args), place=place)

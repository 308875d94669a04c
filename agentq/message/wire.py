"""A submission on its way, and the identities of runs."""

from __future__ import annotations

import base64
import hashlib
import secrets
import time

import msgspec

from agentq.message.state import RunState

WIRE_VERSION = 1


class Envelope(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One submission, on the wire and into the store."""

    v: int = WIRE_VERSION
    id: str
    app: str
    task: str
    queue: str
    args: bytes
    """JSON object: parameter name to value."""
    args_hash: str
    """What the store compares to tell a repeated submission from a `KeyConflict`."""
    submitted_at: float
    key: str | None = None
    tenant: str | None = None
    priority: int = 0
    """Higher starts first within a queue."""
    due_at: float | None = None
    """Not before; None is at once."""
    deadline: float | None = None
    """Wall-clock end, waits included."""
    delay_s: float | None = None
    """Where `due_at` was given as a span: that span. It goes over the wire, so that the sender's clock has no part in it."""
    deadline_s: float | None = None
    """The same of `deadline`."""
    max_attempts: int | None = None
    """Overrides the task's own."""
    timeout_s: float | None = None
    """Running time, waits excluded; overrides the task's own."""
    tags: dict[str, str] = {}
    traceparent: str | None = None
    parent_id: str | None = None
    root_id: str | None = None
    fork_of: str | None = None
    ordering_key: str | None = None
    """Runs of one key within (app, queue) start in submission order, one at a time."""


class Submitted(msgspec.Struct, frozen=True, kw_only=True):
    """The store's answer to one envelope."""

    id: str
    created: bool
    args: bytes | None = None
    """Where it existed already: the arguments of the run that stands."""
    args_hash: str = ""
    state: RunState = RunState.QUEUED


def new_run_id() -> str:
    """26 lowercase base32 characters that sort by creation time (48-bit milliseconds, 80 random bits), as ULIDs do."""
    raw = int(time.time() * 1000).to_bytes(6, "big") + secrets.token_bytes(10)
    return _base32(raw)


def keyed_run_id(app: str, tenant: str | None, task: str, key: str) -> str:
    """The run id that an idempotency ``key`` determines within (app, tenant, task)."""
    return _digest("key", app, tenant or "", task, key)


def broker_run_id(delivery_id: str) -> str:
    """The run id that a message without an id and a key gets of ``delivery_id``, its identity within the broker."""
    return _digest("delivery", delivery_id)


def child_run_id(parent_id: str, branch: str, step: str, occurrence: int) -> str:
    """The run id of the child that ``parent_id`` starts at this place of its journal."""
    return _digest("child", parent_id, branch, step, str(occurrence))


def _digest(*parts: str) -> str:
    text = "\x1f".join(parts).encode()
    return _base32(hashlib.blake2b(text, digest_size=16).digest())


_HEX32 = bytes.maketrans(b"ABCDEFGHIJKLMNOPQRSTUVWXYZ234567", b"0123456789abcdefghijklmnopqrstuv")


def _base32(raw: bytes) -> str:
    return base64.b32encode(raw).rstrip(b"=").translate(_HEX32).decode()

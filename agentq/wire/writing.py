"""From an envelope to a message."""

from __future__ import annotations

import msgspec

from agentq.message import Envelope
from agentq.wire.arguments import check, may_be_deep
from agentq.wire.fields import FIELDS
from agentq.wire.parcel import Parcel


class _Body(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """The order is that in which people read it."""

    v: int
    app: str
    task: str
    queue: str
    args: msgspec.Raw = msgspec.Raw(b"")
    parcel: Parcel | None = None
    id: str
    key: str | None = None
    ordering_key: str | None = None
    tenant: str | None = None
    priority: int = 0
    submitted_at: float
    due_at: float | None = None
    delay_s: float | None = None
    deadline: float | None = None
    deadline_s: float | None = None
    max_attempts: int | None = None
    timeout_s: float | None = None
    tags: dict[str, str] = {}
    args_hash: str = ""


def write(envelope: Envelope, *, parcel: Parcel | None = None) -> bytes:
    """The body of the message; what is at its default is left out, and ``args`` stand in it as they are.

    With a ``parcel`` that is written in their place. Lineage (``parent_id``, ``root_id``, ``fork_of``) stays at home: a run
    that has some goes into the store, never over a broker.

    Raises:
        InvalidArgument: a value is over the limits of the wire, so that no reader would take it.
    """
    body = _Body(
        v=envelope.v,
        app=envelope.app,
        task=envelope.task,
        queue=envelope.queue,
        args=_ABSENT if parcel is not None or not envelope.args else msgspec.Raw(envelope.args),
        parcel=parcel,
        id=envelope.id,
        key=envelope.key,
        ordering_key=envelope.ordering_key,
        tenant=envelope.tenant,
        priority=envelope.priority,
        submitted_at=envelope.submitted_at,
        due_at=envelope.due_at if envelope.delay_s is None else None,
        delay_s=envelope.delay_s,
        deadline=envelope.deadline if envelope.deadline_s is None else None,
        deadline_s=envelope.deadline_s,
        max_attempts=envelope.max_attempts,
        timeout_s=envelope.timeout_s,
        tags=envelope.tags,
        args_hash=envelope.args_hash,
    )
    for name, kind in _CHECKED:
        value = getattr(body, name)
        if value is not None and (value or name != "args_hash"):
            kind.check(name, value)
    if may_be_deep(envelope.args):
        check(envelope.args)
    return _ENCODER.encode(body)


def attributes(envelope: Envelope) -> dict[str, str]:
    """What travels beside the body, as message attributes or headers: what others than agentq understand."""
    found = {"traceparent": envelope.traceparent, "tenant": envelope.tenant}
    return {name: value for name, value in found.items() if value is not None}


_ABSENT = _Body.__struct_defaults__[0]
_CHECKED = tuple((name, field.kind) for name, field in FIELDS.items() if name != "parcel")
_ENCODER = msgspec.json.Encoder()

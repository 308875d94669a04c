"""From a message to an envelope; whatever is wrong with it is said in words that its producer can act on."""

from __future__ import annotations

import contextlib
import hashlib
import json
import re
from collections.abc import Mapping
from typing import Any, Final

import msgspec

from agentq.codec import MAX_PAYLOAD_BYTES
from agentq.codec.shown import missing
from agentq.errors import InvalidArgument
from agentq.message import WIRE_VERSION, Envelope, keyed_run_id
from agentq.message.wire import broker_run_id
from agentq.wire.arguments import check
from agentq.wire.canonical import args_hash
from agentq.wire.fields import FIELDS
from agentq.wire.kinds import END_OF_TIME, Whole, encodable, misfit
from agentq.wire.parcel import Parcel

_CLOCKS_APART_S: Final = 60.0
"""A producer's clock that differs more than this from the broker's is not believed: its runs would jump the queue."""
_NOT_JSON: Final = "send one JSON object in UTF-8 without a byte order mark; `agentq schema --example` prints one"
_TRACEPARENT: Final = re.compile(r"(?!ff)[0-9a-f]{2}-(?!0{32})[0-9a-f]{32}-(?!0{16})[0-9a-f]{16}-[0-9a-f]{2}")


class Unreadable(ValueError):
    """A message can never become a run as it is; the text names the field, the value and the remedy, free of secrets."""


class Arrived(msgspec.Struct, frozen=True, kw_only=True):
    """What a message says."""

    envelope: Envelope
    """With a ``parcel``, its ``args`` are empty and its ``args_hash`` may be: `filled` completes it."""
    parcel: Parcel | None = None


class _Body(msgspec.Struct, kw_only=True):
    """Any value anywhere, so that it is at hand when it has to be named."""

    v: Any = None
    app: Any = None
    task: Any = None
    queue: Any = None
    args: msgspec.Raw = msgspec.Raw(b"null")
    parcel: Any = None
    id: Any = None
    key: Any = None
    ordering_key: Any = None
    tenant: Any = None
    priority: Any = None
    submitted_at: Any = None
    due_at: Any = None
    delay_s: Any = None
    deadline: Any = None
    deadline_s: Any = None
    max_attempts: Any = None
    timeout_s: Any = None
    tags: Any = None
    args_hash: Any = None
    traceparent: Any = None


def read(
    *,
    body: bytes,
    app: str,
    queue: str,
    delivery_id: str,
    attributes: Mapping[str, str],
    sent_at: float | None,
    now: float,
) -> Arrived:
    """What the message says, for the app that reads it and the queue on which it came.

    Args:
        body: of the message.
        app: that reads it.
        queue: in which it is where it names none.
        delivery_id: the message's identity within the broker, of which the run's is made where it names none.
        attributes: message attributes or headers; ``tenant`` and ``traceparent`` count where the body has none.
        sent_at: when the broker got it, in Unix seconds, where it says so.
        now: in Unix seconds.

    Raises:
        Unreadable: and nothing else, whatever the message holds.
    """
    try:
        parsed = _parsed(body)
        if parsed.tenant is None:
            parsed.tenant = attributes.get("tenant") or None
        fields: dict[str, Any] = {}
        for name, kind in _KINDS:
            value = getattr(parsed, name)
            if value is not None:
                fields[name] = kind.check(name, value)
        _address(fields, app, queue)
        fields["id"] = _identity(fields, delivery_id)
        fields["submitted_at"] = _submitted(fields.get("submitted_at"), sent_at, now)
        _count_on(fields, "delay_s", "due_at")
        _count_on(fields, "deadline_s", "deadline")
        args, parcel = _arguments(parsed, fields)
    except InvalidArgument as flaw:
        raise Unreadable(str(flaw)) from None
    trace = _traceparent(parsed.traceparent) or _traceparent(attributes.get("traceparent"))
    return Arrived(envelope=Envelope(args=args, traceparent=trace, **fields), parcel=parcel)


def filled(arrived: Arrived, payload: bytes) -> Envelope:
    """The envelope with the arguments of its parcel, as they were fetched.

    Raises:
        Unreadable: they are not what the parcel says, or no JSON object.
    """
    envelope, parcel = arrived.envelope, arrived.parcel
    try:
        if parcel is not None:
            found = hashlib.sha256(payload).hexdigest()
            if len(payload) != parcel.bytes or found != parcel.sha256:
                remedy = f"{len(payload)} bytes of sha256 {found} lie there: write them once and never change them"
                raise misfit("parcel", msgspec.structs.asdict(parcel), remedy)
        hashed = _hash_of(payload)
    except InvalidArgument as flaw:
        raise Unreadable(str(flaw)) from None
    return msgspec.structs.replace(envelope, args=payload, args_hash=envelope.args_hash or hashed)


def _parsed(body: bytes) -> _Body:
    if len(body) > MAX_PAYLOAD_BYTES:
        raise misfit("message", f"{len(body)} bytes".encode(), f"the limit is {MAX_PAYLOAD_BYTES}")
    try:
        if not body.isascii():
            body.decode()  # what is skipped below is not looked at
        parsed = _DECODER.decode(body)
    except (ValueError, RecursionError) as error:
        raise misfit("message", body, _NOT_JSON + _why(body, error)) from None
    _VERSION.check("v", 1 if parsed.v is None else parsed.v)
    if parsed.v is not None and parsed.v > WIRE_VERSION:
        raise misfit(
            "v", parsed.v, f"this agentq reads {WIRE_VERSION}: upgrade the workers, and replay the letter after the upgrade"
        )
    if parsed.task is None:
        raise missing("task", 'give the name of the task to run, such as "task": "report"')
    return parsed


def _why(body: bytes, error: Exception) -> str:
    """What is wrong, in brackets, unless there is nothing at all."""
    if not body.strip():
        return ""
    with contextlib.suppress(ValueError, RecursionError):
        if not encodable(json.dumps(json.loads(body), ensure_ascii=False)):
            return " (half of a surrogate pair is no text)"
    return f" ({error})"


def _address(fields: dict[str, Any], app: str, queue: str) -> None:
    if fields.setdefault("app", app) != app:
        raise misfit("app", fields["app"], f"this queue is read by the app {app!r}: send it to the queue of its own app")
    fields.setdefault("queue", queue)


def _identity(fields: dict[str, Any], delivery_id: str) -> str:
    given: str | None = fields.get("id")
    if "key" not in fields:
        return given or broker_run_id(delivery_id)
    keyed = keyed_run_id(fields["app"], fields.get("tenant"), fields["task"], fields["key"])
    if given not in (None, keyed):
        raise misfit("id", given, f"the key {fields['key']!r:.60} makes it {keyed}: give only one of id and key")
    return keyed


def _submitted(given: float | None, sent_at: float | None, now: float) -> float:
    if sent_at is None or not 0 < sent_at < END_OF_TIME:
        return now if given is None else min(given, now)
    sent_at = min(sent_at, now)  # a log says what its producer's clock said, and nothing was sent in the future
    if given is None or abs(given - sent_at) > _CLOCKS_APART_S:
        return sent_at
    return min(given, sent_at)


def _count_on(fields: dict[str, Any], span: str, moment: str) -> None:
    """Make a moment of a span, which counts where both are given: the sender's clock has no part in it."""
    seconds = fields.pop(span, None)
    if seconds is not None:
        fields[moment] = min(fields["submitted_at"] + seconds, END_OF_TIME)


def _arguments(parsed: _Body, fields: dict[str, Any]) -> tuple[bytes, Parcel | None]:
    args = bytes(parsed.args)
    parcel = fields.pop("parcel", None)
    if parcel is not None:
        if args != b"null":
            raise misfit("parcel", parcel, "there are args as well: give only one of the two")
        fields.setdefault("args_hash", "")
        return b"", Parcel(**parcel)
    if args == b"null":
        args = b"{}"
    if "args_hash" in fields:
        check(args)
    else:
        fields["args_hash"] = _hash_of(args)
    return args, None


def _hash_of(args: bytes) -> str:
    check(args)
    return args_hash(args)


def _traceparent(given: Any) -> str | None:
    """As W3C Trace Context has it, else None: a broken trace is no reason to refuse work."""
    return given if isinstance(given, str) and _TRACEPARENT.fullmatch(given) else None


_KINDS = tuple((name, field.kind) for name, field in FIELDS.items())
_VERSION = Whole(1, 2**31)
_DECODER = msgspec.json.Decoder(_Body)

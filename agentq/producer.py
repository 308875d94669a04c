"""From a bound call to a run: envelope, identity, and its way into the store or the broker."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from agentq import wire
from agentq.brokers.base import Outgoing
from agentq.errors import AgentQError, InvalidArgument, KeyConflict, NotSent, PayloadTooLarge
from agentq.message import Envelope, RunState, Submitted, keyed_run_id, new_run_id
from agentq.stores.transactional import Transactional

if TYPE_CHECKING:
    from agentq.brokers.base import Broker
    from agentq.stores.base import ProducerStore, Store
    from agentq.task import Bound

_SLICE = 500
"""Messages that are written before the first of them is on its way."""


def envelope(
    bound: Bound[Any],
    *,
    app: str,
    now: float,
    run_id: str | None = None,
    parent_id: str | None = None,
    root_id: str | None = None,
    tenant: str | None = None,
) -> Envelope:
    """Write one submission. A key determines the run id; else ``run_id`` is taken, else a fresh one.

    ``tenant`` is inherited where the call names none. ``now`` is wall time in seconds.
    """
    call = bound.call
    owner = call.tenant or tenant
    identity = keyed_run_id(app, owner, bound.task.name, call.key) if call.key else run_id or new_run_id()
    return Envelope(
        id=identity,
        app=app,
        task=bound.task.name,
        queue=bound.task.queue,
        args=bound.args,
        args_hash=bound.args_hash,
        submitted_at=now,
        key=call.key,
        tenant=owner,
        priority=call.priority,
        due_at=call.due_at if call.delay_s is None else now + call.delay_s,
        deadline=call.deadline if call.deadline_s is None else now + call.deadline_s,
        delay_s=call.delay_s or None,
        deadline_s=call.deadline_s,
        max_attempts=call.max_attempts,
        timeout_s=call.timeout_s,
        tags=dict(call.tags),
        ordering_key=call.ordering_key,
        parent_id=parent_id,
        root_id=root_id,
    )


async def submit(store: ProducerStore, envelopes: Sequence[Envelope]) -> list[Submitted]:
    """Put envelopes into the store; those whose run exists already answer with it.

    Raises:
        KeyConflict: a key names a run with other arguments. The other envelopes of the call are in.

    """
    return _agreed(envelopes, await store.submit(envelopes))


async def submit_on(store: Store, connection: object, envelopes: Sequence[Envelope]) -> list[Submitted]:
    """Put envelopes into the store by a connection of the caller's, inside the caller's transaction.

    Raises:
        KeyConflict: as `submit`; the others are in once the transaction commits.
        InvalidArgument: the store shares no transactions, or the connection does not fit.

    """
    if not isinstance(store, Transactional):
        raise InvalidArgument(
            "connection", connection, f"the store {store.where} shares no transactions: use PostgreSQL, or plain enqueue"
        )
    return _agreed(envelopes, await store.submit_on(connection, envelopes))


def _agreed(envelopes: Sequence[Envelope], answers: list[Submitted]) -> list[Submitted]:
    for sent, answer in zip(envelopes, answers, strict=True):
        if not answer.created and answer.args_hash != sent.args_hash:
            raise KeyConflict(sent.key or sent.id, answer.id, wire.shown(answer.args or b"?"), wire.shown(sent.args))
    return answers


async def send(broker: Broker, store: ProducerStore, envelopes: Sequence[Envelope], *, now: float) -> list[Submitted]:
    """Send envelopes through the broker; they become runs when intake admits them.

    Raises:
        InvalidArgument: an ordering key on a queue that keeps no order, or what no reader would take; nothing is sent.
        NotSent: naming those that are not in the broker; the others are.
        StoreUnavailable: large arguments could not be kept; nothing is sent.

    """
    if len(envelopes) <= _SLICE:
        outcomes = list(await broker.send([await _outgoing(broker, store, envelope, now) for envelope in envelopes]))
    else:
        outcomes = await _send_slices(broker, store, envelopes, now)
    unsent = {number: error for number, error in enumerate(outcomes) if error is not None}
    if unsent:
        raise NotSent(unsent, len(envelopes)) from next(iter(unsent.values()))
    return [Submitted(id=each.id, created=True, args_hash=each.args_hash, state=RunState.SUBMITTED) for each in envelopes]


async def _send_slices(
    broker: Broker, store: ProducerStore, envelopes: Sequence[Envelope], now: float
) -> list[BaseException | None]:
    """Send one slice while the next is written; from one that cannot be written on, nothing is sent."""
    sending: list[asyncio.Task[Sequence[BaseException | None]]] = []
    flaw: AgentQError | None = None
    for start in range(0, len(envelopes), _SLICE):
        try:
            messages = [await _outgoing(broker, store, each, now) for each in envelopes[start : start + _SLICE]]
        except AgentQError as error:
            flaw = error
            break
        sending.append(asyncio.create_task(broker.send(messages)))
        await asyncio.sleep(0)
    outcomes = [outcome for sent in await asyncio.gather(*sending) for outcome in sent]
    return outcomes + [flaw] * (len(envelopes) - len(outcomes))


async def _outgoing(broker: Broker, store: ProducerStore, envelope: Envelope, now: float) -> Outgoing:
    """The message of an envelope; arguments that do not fit into it go ahead of it, and it refers to them."""
    able = broker.capabilities(envelope.queue)
    if envelope.ordering_key is not None and not able.ordering:
        raise InvalidArgument(
            "ordering_key", envelope.ordering_key,
            f"queue {envelope.queue!r} keeps no order at {broker.where}: use a FIFO queue, Kafka, or no broker",
        )  # fmt: skip
    attributes = wire.attributes(envelope)
    body = wire.write(envelope)
    spare = able.max_bytes - sum(len(name.encode()) + len(value.encode()) for name, value in attributes.items())
    if len(body) > spare:
        sha = hashlib.sha256(envelope.args).hexdigest()
        place = await broker.parcels.put(sha, envelope.args) if broker.parcels is not None else "store"
        if place == "store":
            await store.keep(envelope.args)
        body = wire.write(envelope, parcel=wire.Parcel(sha256=sha, bytes=len(envelope.args), place=place))
        if len(body) > spare:
            raise PayloadTooLarge(
                "tags", envelope.tags, f"tags, keys and tenant take more than the {able.max_bytes} bytes of a message"
            )
    delay_s = 0.0 if envelope.due_at is None else max(0.0, envelope.due_at - now)
    return Outgoing(
        id=envelope.id,
        queue=envelope.queue,
        body=body,
        group=envelope.ordering_key or envelope.tenant,
        ordered=envelope.ordering_key is not None,
        delay_s=delay_s if delay_s <= able.max_delay_s else 0.0,  # the store's timer takes what the broker cannot
        attributes=attributes,
    )

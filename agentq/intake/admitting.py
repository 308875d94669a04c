"""Deliveries become rows or dead letters, in one transaction each batch; only who has come through here may be acknowledged."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from agentq import wire
from agentq.errors import BrokerError, BrokerUnavailable, NotFound, StoreError, StoreUnavailable
from agentq.message import Admission, DeadLetter, Envelope, Position, Submitted
from agentq.redact import redact
from agentq.telemetry import emit
from agentq.wire import Parcel, Unreadable

if TYPE_CHECKING:
    from collections.abc import Sequence

    from agentq.brokers.base import Broker, Delivery
    from agentq.clock import Clock
    from agentq.stores.base import Store

PORTION_BYTES: Final = 16 * 1024 * 1024
"""Of messages and arguments in one transaction, but for the last one in it: some MiB each, five hundred of them would take the
store longer than it is waited for, and more memory than a worker has."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Admitted:
    """What became of a batch."""

    runs: int
    """New rows."""
    duplicates: int
    """Runs that had a row already."""
    letters: int


class Admitter:
    """Makes deliveries durable for one app. Sending the same ones again changes nothing."""

    def __init__(self, broker: Broker, store: Store, app: str, clock: Clock) -> None:
        """Admit what ``broker`` delivers into ``store``."""
        self._broker = broker
        self._store = store
        self._app = app
        self._clock = clock

    async def admit(self, deliveries: Sequence[Delivery]) -> Admitted:
        """Write rows, dead letters and positions for all of ``deliveries``; when it returns, they may be acknowledged.

        In one transaction, unless they are large.

        Raises:
            StoreUnavailable, BrokerUnavailable: nothing is known to be in; the same again is harmless.

        """
        left = deque(deliveries)
        runs = letters = 0
        while left:
            admitted = await self._admit_some(left)
            runs, letters = runs + admitted.runs, letters + admitted.letters
        return Admitted(runs=runs, duplicates=len(deliveries) - runs - letters, letters=letters)

    async def _admit_some(self, left: deque[Delivery]) -> Admitted:
        """Take from ``left`` what one transaction can bear, and admit it."""
        pairs: list[tuple[Delivery, Envelope]] = []
        letters: list[DeadLetter] = []
        taken: list[Delivery] = []
        size = 0
        while left and size < PORTION_BYTES:
            delivery = left.popleft()
            taken.append(delivery)
            size += len(delivery.body)
            try:
                envelope = await self._read(delivery)
            except Unreadable as error:
                letters.append(self._letter(delivery, str(error)))
            else:
                pairs.append((delivery, envelope))
                size += len(envelope.args)
        positions = furthest(taken)
        # What a key refuses is known only when the rows are in: a log must not have moved on before its letter is kept.
        doubtful = any(envelope.key is not None for _, envelope in pairs)
        answers = await self._write(pairs, letters, () if doubtful else positions)
        refused = [
            self._letter(delivery, _conflict(envelope, answer))
            for (delivery, envelope), answer in zip(pairs, answers, strict=True)
            if answer is not None and _conflicting(envelope, answer)
        ]
        if refused or (doubtful and positions):
            await self._store.admit(Admission(letters=tuple(refused), positions=positions))
        runs = sum(answer is not None and answer.created for answer in answers)
        told = [*letters, *refused]
        for letter in told:
            emit("intake.dead_letter", broker=self._broker.where, queue=letter.queue, letter=letter.id, origin=letter.origin,
                 reason=letter.reason)  # fmt: skip
        return Admitted(runs=runs, duplicates=len(taken) - runs - len(told), letters=len(told))

    async def _read(self, delivery: Delivery) -> Envelope:
        arrived = wire.read(
            body=delivery.body, app=self._app, queue=delivery.queue, delivery_id=delivery.id,
            attributes=delivery.attributes, sent_at=delivery.sent_at, now=self._clock.wall(),
        )  # fmt: skip
        envelope = arrived.envelope
        if envelope.ordering_key is not None and not self._broker.capabilities(delivery.queue).ordering:
            raise Unreadable(
                f"ordering_key: {envelope.ordering_key!r} came through {delivery.queue!r}, which keeps no order at "
                f"{self._broker.where}; send it to a FIFO queue, or without the key"
            )
        return envelope if arrived.parcel is None else wire.filled(arrived, await self._fetch(arrived.parcel))

    async def _fetch(self, parcel: Parcel) -> bytes:
        """The arguments that travelled apart from their envelope."""
        try:
            if parcel.place == "store":
                return await self._store.blob(parcel.sha256)
            if self._broker.parcels is not None:
                return await self._broker.parcels.get(parcel.place)
        except NotFound:
            raise Unreadable(f"parcel.sha256: {parcel.sha256} is gone from {parcel.place}; submit the run again") from None
        except BrokerUnavailable:
            raise
        except BrokerError as error:
            raise Unreadable(f"parcel.place: {error}") from error
        raise Unreadable(f"parcel.place: {parcel.place!r} is not where this broker's large arguments are kept")

    async def _write(
        self, pairs: list[tuple[Delivery, Envelope]], letters: list[DeadLetter], positions: tuple[Position, ...]
    ) -> list[Submitted | None]:
        """All in one transaction; where the store refuses one of them, each in its own, and that one as a dead letter."""
        envelopes = tuple(envelope for _, envelope in pairs)
        try:
            return list(await self._store.admit(Admission(envelopes=envelopes, letters=tuple(letters), positions=positions)))
        except StoreUnavailable:
            raise
        except StoreError:
            if not pairs:
                raise
        answers: list[Submitted | None] = []
        for delivery, envelope in pairs:
            try:
                answers += await self._store.admit(Admission(envelopes=(envelope,)))
            except StoreUnavailable:
                raise
            except StoreError as error:
                letters.append(self._letter(delivery, f"the store refused it: {error}"))
                answers.append(None)
        await self._store.admit(Admission(letters=tuple(letters), positions=positions))
        return answers

    def _letter(self, delivery: Delivery, reason: str) -> DeadLetter:
        return dead_letter(delivery, reason, where=self._broker.where, now=self._clock.wall())


def dead_letter(delivery: Delivery, reason: str, *, where: str, now: float) -> DeadLetter:
    """The letter that keeps ``delivery``; the same one however often it comes."""
    return DeadLetter(
        id=wire.broker_run_id(delivery.id),
        queue=delivery.queue,
        body=delivery.body,
        reason=redact(reason),
        attributes=delivery.attributes,
        origin=f"{delivery.place or delivery.id} of {where}",
        received_at=now,
    )


def furthest(deliveries: Sequence[Delivery]) -> tuple[Position, ...]:
    """How far each partition has been read once these are admitted."""
    last: dict[tuple[str, int], Position] = {}
    for delivery in deliveries:
        if (position := delivery.position) is not None:
            last[position.source, position.partition] = position
    return tuple(last.values())


def _conflicting(envelope: Envelope, answer: Submitted) -> bool:
    """Whether the run stands with other arguments than these."""
    if answer.created or answer.args_hash == envelope.args_hash:
        return False
    return answer.args is None or not wire.same_args(answer.args, envelope.args)


def _conflict(envelope: Envelope, answer: Submitted) -> str:
    name = f"key: {envelope.key!r}" if envelope.key is not None else f"id: {envelope.id!r}"
    stands = "arguments that are no longer kept" if answer.args is None else wire.shown(answer.args)
    return (
        f"{name} names run {answer.id} with other arguments: {stands} there, {wire.shown(envelope.args)} here; use another key"
    )

"""The receiving end: partitions of a consumer group, read on from where the store stands."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import AsyncExitStack
from types import TracebackType
from typing import Any, Final, Self

from aiokafka import TopicPartition
from aiokafka.errors import KafkaError, OffsetOutOfRangeError

from agentq.brokers.base import Delivery
from agentq.brokers.kafka.address import Address
from agentq.brokers.kafka.answers import Topic
from agentq.brokers.kafka.desk import Desk
from agentq.brokers.kafka.failures import failure
from agentq.brokers.kafka.member import Member
from agentq.brokers.kafka.positions import start
from agentq.brokers.kafka.reading import Reading
from agentq.errors import BrokerError
from agentq.message import Position
from agentq.telemetry import emit

BATCH: Final = 500
"""Most messages of one `receive`: one transaction of the store's."""
LOOK_S: Final = 30.0
"""Between two looks whether the topics are still the same ones."""
_BY_BROKER: Final = 1
"""Type of a timestamp that the broker's clock wrote (``LogAppendTime``), not the producer's, which may be off."""
SILENCE_S: Final = 5.0
"""Without any answer to a fetch for so long, the cluster is asked whether it is there. The library itself never says so."""


class KafkaInbox:
    """Messages of some queues' topics, partition by partition in order.

    The group only shares the partitions out. Where a partition is read on from is what the store says (`positions.start`),
    looked up whenever it is assigned; what is committed to the group is for lag tools, and for stores that know nothing.
    A partition that moved away while some of its messages were on their way into the store brings them twice: their ids are
    the same. No call here waits for a run.
    """

    def __init__(
        self, address: Address, desk: Desk, queues: Sequence[str], positions: Callable[[str], Awaitable[Mapping[int, int]]]
    ) -> None:
        """Read the topics of ``queues``; nothing is connected before the first `receive`."""
        self._address = address
        self._desk = desk
        self._topics = address.topics(tuple(queues))
        self._positions = positions
        self._member: Member | None = None
        self._readings: dict[TopicPartition, Reading] = {}
        """What was assigned to us last, where its place is known."""
        self._unplaced: set[TopicPartition] = set()
        """Assigned, paused, and not at their place yet."""
        self._assignments = 0
        self._assigned: frozenset[TopicPartition] = frozenset()
        self._sources: dict[str, str] = {}
        """Topic to the identity that it had when last seen."""
        self._missing: dict[str, str] = {}
        """Topic to why it cannot be read."""
        self._looked_at = 0.0
        self._heard = 0
        self._heard_at = 0.0
        self._committing = asyncio.Lock()

    async def __aenter__(self) -> Self:
        """Connect to nothing yet."""
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Commit what was acknowledged, and leave the group."""
        async with AsyncExitStack() as leaving:
            leaving.push_async_callback(self._leave)
            if self._member is not None and not self._silent():
                await self._commit(self._member)

    async def receive(self, room: int) -> Sequence[Delivery]:
        """Bring up to ``room`` messages. See `agentq.brokers.base.Inbox`.

        Raises:
            BrokerUnavailable: the cluster does not answer; membership and places are kept if it comes back in time.
            BrokerError: none of the topics can be read.
            StoreError: the store does not say where to read on.
        """
        member = await self._joined()
        if room > 0:
            await self._place(member)
        try:
            found = await member.poll(max(0, min(room, BATCH)))
        except OffsetOutOfRangeError as error:
            self._rewind(member)
            self._unplaced.update(place for place in error.args[0] if place in self._readings)
            return ()
        except KafkaError as error:
            await self._leave()
            raise failure(error, "receive") from error
        deliveries = self._taken(found)
        self._advance(member)
        if not deliveries:
            await self._commit(member)
            await self._watch(member)
        return deliveries

    async def acknowledge(self, deliveries: Sequence[Delivery]) -> None:
        """Note them, and commit as far as there is no hole. Where that fails the stored positions decide."""
        for delivery in deliveries:
            reading, offset = delivery.receipt
            reading.acknowledge(offset)
        if self._member is not None:
            await self._commit(self._member)

    async def release(self, deliveries: Sequence[Delivery]) -> None:
        """Read them again, and what was handed out after them in their partitions."""
        first: dict[Reading, int] = {}
        for delivery in deliveries:
            reading, offset = delivery.receipt
            first[reading] = min(offset, first.get(reading, offset))
        for reading, offset in first.items():
            place = TopicPartition(reading.topic, reading.partition)
            if (
                reading.take_back(offset)
                and self._member
                and self._readings.get(place) is reading
                and place not in self._unplaced
            ):
                self._member.go(place, reading.next)

    # Membership.

    async def _joined(self) -> Member:
        """The membership; where there is none, a new one."""
        if self._member is None:
            await self._look()
            member = Member(self._address, self._topics, self._on_assigned)
            try:
                await member.join()
            except KafkaError as error:
                raise failure(error, "join") from error
            self._member = member
            self._heard_at = time.monotonic()
        return self._member

    async def _leave(self) -> None:
        member, self._member = self._member, None
        self._unplaced.update(self._readings)
        if member is not None:
            await member.leave()

    def _on_assigned(self, places: set[TopicPartition]) -> None:
        """All of ``places`` are ours and paused. The store is asked in `receive`, where its errors are heard."""
        self._assignments += 1
        self._readings = {place: reading for place, reading in self._readings.items() if place in places}
        self._unplaced = set(places)
        if self._assigned != places:
            self._assigned = frozenset(places)
            shown = ", ".join(f"{topic}/{number}" for topic, number in sorted(places))
            emit("broker.assigned", broker=self._address.where, partitions=shown)

    # Where to read.

    async def _place(self, member: Member) -> None:
        """Go to where each newly assigned partition is read on from."""
        places, assignments = sorted(self._unplaced), self._assignments
        if not places:
            return
        topics = await self._desk.topics({place.topic for place in places})
        known = {name: topic for name, topic in topics.items() if topic.error is None}
        places = [place for place in places if place.topic in known and place.partition in known[place.topic].leaders]
        bounds = await self._desk.bounds(known.values())
        committed = await self._desk.committed(self._address.group, places)
        stored = {name: await self._positions(topic.source) for name, topic in known.items()}
        if assignments != self._assignments or self._member is not member:
            return  # they may be another's by now: next time
        for place in places:
            topic, ours = known[place.topic], committed.get(place)
            reading = self._reading(place, topic, stored[place.topic].get(place.partition))
            inherited = ours is not None and ours.note not in {"", topic.source}
            begin, end = bounds[place]
            decided = start(
                known=reading.next if reading.next >= 0 else None,
                committed=None if ours is None or inherited else ours.offset,
                begin=begin,
                end=end,
                identified=topic.identified,
                inherited=inherited or self._sources.get(place.topic, topic.source) != topic.source,
            )
            if decided.expected is not None:
                emit("broker.gap", broker=self._address.where, queue=reading.queue, partition=place.partition,
                     expected=decided.expected, found=decided.offset, reason=decided.reason)  # fmt: skip
            if decided.offset != reading.next:
                reading = Reading(*place, source=topic.source, queue=reading.queue, offset=decided.offset)
            reading.committed = None if ours is None or inherited else ours.offset
            self._readings[place] = reading
            self._unplaced.discard(place)
            member.go(place, reading.next)
        self._sources.update((name, topic.source) for name, topic in known.items())

    def _reading(self, place: TopicPartition, topic: Topic, stored: int | None) -> Reading:
        """The one that we had, as far as nobody has read on since; else one at what the store says, -1 for nothing."""
        offset = -1 if stored is None else stored
        kept = self._readings.get(place)
        if kept is not None and kept.source == topic.source and kept.next >= offset:
            return kept
        return Reading(*place, source=topic.source, queue=self._topics[place.topic], offset=offset)

    def _rewind(self, member: Member) -> None:
        """Go back to what was really handed out: the library may have taken more, and lost it on the way."""
        for place, reading in self._readings.items():
            if place not in self._unplaced:
                member.go(place, reading.next)

    # What came.

    def _taken(self, found: Mapping[TopicPartition, Sequence[Any]]) -> list[Delivery]:
        deliveries = []
        for place, records in found.items():
            reading = self._readings.get(place)
            if reading is None or place in self._unplaced:
                continue
            for record in records:
                reading.hand_out(record.offset)
                deliveries.append(_delivery(reading, record))
            reading.next = records[-1].offset + 1
        return deliveries

    def _advance(self, member: Member) -> None:
        """Follow the log over what is no message: the marks of transactions."""
        for place, reading in self._readings.items():
            if place not in self._unplaced:
                reading.next = member.position(place, reading.next)

    async def _commit(self, member: Member) -> None:
        async with self._committing:
            due = {
                place: (reading.safe, reading.source)
                for place, reading in self._readings.items()
                if place not in self._unplaced and reading.safe != reading.committed
            }
            if due and await member.commit(due):
                for place, (offset, _) in due.items():
                    if (reading := self._readings.get(place)) is not None:
                        reading.committed = offset

    # Whether all is as it was.

    def _silent(self) -> bool:
        return time.monotonic() - self._heard_at >= SILENCE_S

    async def _watch(self, member: Member) -> None:
        """Nothing came: ask, now and again, whether the cluster is there and the topics are the same."""
        now, heard = time.monotonic(), member.heard()
        if heard != self._heard:
            self._heard, self._heard_at = heard, now
        if self._silent() or now - self._looked_at >= (SILENCE_S if self._missing else LOOK_S):
            await self._look()
            self._heard_at = time.monotonic()
            if member.lost() and self._member is member:
                await self._leave()  # the cluster is there, but not where this member looks for it

    async def _look(self) -> None:
        """Ask for the topics. One that appeared is joined, one that was made anew is read from its start.

        Raises:
            BrokerUnavailable: no answer.
            BrokerError: none of them can be read.
        """
        topics = await self._desk.topics(self._topics)
        self._looked_at = time.monotonic()
        missing = {name: str(failure(topic.error(), f"topic {name}")) for name, topic in topics.items() if topic.error}
        if self._missing.keys() - missing.keys() and self._member is not None:
            await self._leave()
        for name in missing.keys() - self._missing.keys():
            emit("broker.refused", broker=self._address.where, verb="receive", queue=self._topics[name], error=missing[name])
        self._missing = missing
        if len(missing) == len(self._topics):
            raise BrokerError("; ".join(missing.values()))
        anew = {name for name, topic in topics.items() if self._sources.get(name, topic.source) != topic.source}
        self._unplaced.update(place for place in self._readings if place.topic in anew and not topics[place.topic].error)


def _delivery(reading: Reading, record: Any) -> Delivery:
    return Delivery(
        queue=reading.queue,
        body=record.value or b"",  # one without a value is a tombstone: unreadable, and kept as such
        id=f"{reading.source}/{record.partition}/{record.offset}",
        place=f"{reading.topic}/{record.partition}/{record.offset}",
        attributes={name: (value or b"").decode(errors="replace") for name, value in record.headers},
        sent_at=record.timestamp / 1000 if record.timestamp_type == _BY_BROKER else None,
        position=Position(source=reading.source, partition=record.partition, offset=record.offset + 1),
        receipt=(reading, record.offset),
    )

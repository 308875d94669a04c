"""How much lies in the topics unread, how old it is, and whether the cluster will delete it before it is read."""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping, Sequence
from typing import Final

from agentq.brokers.base import Backlog
from agentq.brokers.kafka.address import Address
from agentq.brokers.kafka.answers import Committed, Place, Topic
from agentq.brokers.kafka.desk import Desk
from agentq.brokers.kafka.failures import failure
from agentq.errors import BrokerError
from agentq.telemetry import emit

EXPIRING: Final = 0.5
"""The share of a topic's retention from which on unread messages are reported."""
_SETTINGS_S: Final = 300.0
"""For how long a topic's settings are believed."""
_REMIND_S: Final = 600.0
"""Between two events about the same topic."""


class Backlogs:
    """Reads the backlog, exactly, because offsets move as soon as messages are in the store.

    What is ahead of a transaction that is open is not there yet; what was aborted counts until it is passed.
    """

    def __init__(self, address: Address, desk: Desk) -> None:
        """Ask ``desk``."""
        self._address = address
        self._desk = desk
        self._retention: dict[str, tuple[float, float]] = {}
        """Topic to (when it was asked, seconds)."""
        self._warned: dict[str, float] = {}

    async def read(self, queues: Sequence[str]) -> list[Backlog]:
        """Queue by queue. Where queues share a topic, all of it is the first one's: a message says its queue only inside."""
        try:
            topics = self._address.topics(tuple(queues))
            told = await self._desk.topics(topics)
            there = [topic for topic in told.values() if topic.error is None]
            unread = await self._unread(there)
            ages = {topic.name: await self._age(topic, unread) for topic in there}
        except BrokerError as error:
            return [Backlog(queue=queue, ready=0, error=str(error)) for queue in queues]
        found = []
        for queue in queues:
            topic = told[self._address.topic(queue)]
            if topic.error is not None:
                found.append(Backlog(queue=queue, ready=0, error=str(failure(topic.error(), f"topic {topic.name}"))))
            elif topics[topic.name] != queue:
                found.append(Backlog(queue=queue, ready=0, approximate=True))
            else:
                lags = tuple(end - begin for place, (begin, end) in sorted(unread.items()) if place[0] == topic.name)
                age = ages[topic.name]
                found.append(Backlog(queue=queue, ready=sum(lags), oldest_age_s=age, partitions=lags))
                if age is not None:
                    await self._warn(topic.name, queue, age)
        return found

    async def retention_s(self, topic: str, settings: Mapping[str, str] | None = None) -> float:
        """Seconds after which the cluster deletes messages of ``topic``; infinite where it does not."""
        asked_at, value = self._retention.get(topic, (-_SETTINGS_S, 0.0))
        now = time.monotonic()
        if settings is None and now - asked_at < _SETTINGS_S:
            return value
        given = settings if settings is not None else (await self._desk.configs([topic]))[topic]
        value = retention_s(given)
        self._retention[topic] = (now, value)
        return value

    async def _unread(self, topics: Iterable[Topic]) -> dict[Place, tuple[int, int]]:
        """From where to where each partition is unread."""
        topics = list(topics)
        bounds = await self._desk.bounds(topics, committed=True)
        committed = await self._desk.committed(self._address.group, bounds)
        sources = {topic.name: topic.source for topic in topics}
        return {
            place: (unread_from(committed.get(place), sources[place[0]], begin, end), end)
            for place, (begin, end) in bounds.items()
        }

    async def _age(self, topic: Topic, unread: Mapping[Place, tuple[int, int]]) -> float | None:
        first = {place[1]: begin for place, (begin, end) in unread.items() if place[0] == topic.name and begin < end}
        times = await self._desk.sent_at(topic, first) if first else {}
        return max(0.0, time.time() - min(times.values())) if times else None

    async def _warn(self, topic: str, queue: str, age: float) -> None:
        try:
            retention = await self.retention_s(topic)
        except BrokerError:
            return  # without the right to read settings there is no warning; `inspect` says that it is missing
        now = time.monotonic()
        if age > retention * EXPIRING and now - self._warned.get(topic, -_REMIND_S) >= _REMIND_S:
            self._warned[topic] = now
            emit("broker.expiring", broker=self._address.where, queue=queue, age_s=age, retention_s=retention)


def retention_s(settings: Mapping[str, str]) -> float:
    """What ``retention.ms`` says, in seconds."""
    value = int(settings.get("retention.ms", "-1"))
    return value / 1000 if value >= 0 else float("inf")


def unread_from(committed: Committed | None, source: str, begin: int, end: int) -> int:
    """The first offset that the group has not read. What was committed for an earlier topic of this name counts for nothing."""
    if committed is None or committed.note not in {"", source} or committed.offset > end:
        return begin
    return max(begin, committed.offset)

"""A partitioned log's rules, without I/O: positions, members, and who reads what. ``now`` is passed in, in steady seconds."""

from __future__ import annotations

import secrets
import zlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from agentq.brokers.base import Backlog, Delivery, Outgoing
from agentq.message import Position


@dataclass(slots=True, eq=False)
class Member:
    """One consumer of the group: what it reads, and what it has handed out."""

    seen: float
    """When it last called."""
    reading: dict[int, int] = field(default_factory=dict)
    """Partition of its own to the offset that it reads next."""
    out: dict[int, set[int]] = field(default_factory=dict)
    """Partition to what it has handed out and not heard of again."""


@dataclass(slots=True, eq=False)
class _Record:
    sent: Outgoing
    sent_at: float
    arrived: float


@dataclass(slots=True, eq=False)
class Log:
    """The records of one queue, and the group that reads them."""

    name: str
    partitions: int
    session_s: float
    """A member that does not call for so long is out of the group."""
    source: str = field(default_factory=lambda: secrets.token_hex(8))
    _records: list[list[_Record]] = field(default_factory=list)
    _committed: dict[int, int] = field(default_factory=dict)
    _members: list[Member] = field(default_factory=list)

    def __post_init__(self) -> None:
        """Make the partitions."""
        self._records = [[] for _ in range(self.partitions)]

    def put(self, message: Outgoing, *, now: float, wall: float) -> None:
        """Append to the partition of its group, or to the shortest."""
        if message.group is None:
            partition = min(self._records, key=len)
        else:
            partition = self._records[zlib.crc32(message.group.encode()) % self.partitions]
        partition.append(_Record(message, wall, now))

    def join(self, *, now: float) -> Member:
        """Make a member of the group."""
        member = Member(now)
        self._members.append(member)
        return member

    def leave(self, member: Member) -> None:
        """Let the others have its partitions at once."""
        if member in self._members:
            self._members.remove(member)

    def assigned(self, member: Member, *, now: float) -> set[int]:
        """Which partitions are the member's, and what it reads of them is not yet known; forgets those that are not its own."""
        member.seen = now
        if member not in self._members:
            self._members.append(member)
            member.reading.clear()
        self._members = [each for each in self._members if now - each.seen <= self.session_s]
        own = {number for number in range(self.partitions) if self._owner(number) is member}
        for lost in [number for number in member.reading if number not in own]:
            del member.reading[lost]
            member.out.pop(lost, None)
        return own - member.reading.keys()

    def start(self, member: Member, partitions: Iterable[int], stored: Mapping[int, int]) -> None:
        """Let the member read these from where the store says, else from what is committed, else from the first."""
        for number in partitions:
            if self._owner(number) is member:
                member.reading[number] = self._committed[number] = stored.get(number, self._committed.get(number, 0))
                member.out[number] = set()

    def take(self, member: Member, room: int) -> list[Delivery]:
        """Deliver up to ``room`` records of the member's partitions, in order within each."""
        taken: list[Delivery] = []
        for number in sorted(member.reading):
            records, first = self._records[number], member.reading[number]
            last = min(len(records), first + room - len(taken))
            for offset in range(first, last):
                member.out[number].add(offset)
                taken.append(self._delivery(number, offset, records[offset]))
            member.reading[number] = max(first, last)
        return taken

    def acknowledge(self, member: Member, deliveries: Iterable[Delivery]) -> None:
        """Commit as far as everything before is acknowledged; what the member has lost meanwhile is left to its new owner."""
        for number, offsets in _by_partition(deliveries).items():
            if member in self._members and self._owner(number) is member and number in member.reading:
                member.out[number] -= offsets
                done = min(member.out[number], default=member.reading[number])
                self._committed[number] = max(self._committed.get(number, 0), done)

    def release(self, member: Member, deliveries: Iterable[Delivery]) -> None:
        """Go back to the first of these in each partition."""
        for number, offsets in _by_partition(deliveries).items():
            if number in member.reading and (back := offsets & member.out[number]):
                member.reading[number] = min(back)
                member.out[number] = {offset for offset in member.out[number] if offset < min(back)}

    def backlog(self, *, now: float) -> Backlog:
        """Count what is not committed."""
        rest = {number: records[self._committed.get(number, 0) :] for number, records in enumerate(self._records)}
        taken = sum(len(offsets) for member in self._members for offsets in member.out.values())
        oldest = max((now - records[0].arrived for records in rest.values() if records), default=None)
        return Backlog(queue=self.name, ready=sum(map(len, rest.values())) - taken, taken=taken, oldest_age_s=oldest)

    def _owner(self, partition: int) -> Member | None:
        return self._members[partition % len(self._members)] if self._members else None

    def _delivery(self, partition: int, offset: int, record: _Record) -> Delivery:
        return Delivery(
            queue=self.name,
            body=record.sent.body,
            id=f"{self.source}-{partition}-{offset}",
            attributes=dict(record.sent.attributes),
            sent_at=record.sent_at,
            position=Position(source=self.source, partition=partition, offset=offset + 1),
        )


def _by_partition(deliveries: Iterable[Delivery]) -> dict[int, set[int]]:
    offsets: dict[int, set[int]] = {}
    for delivery in deliveries:
        if delivery.position is not None:
            offsets.setdefault(delivery.position.partition, set()).add(delivery.position.offset - 1)
    return offsets

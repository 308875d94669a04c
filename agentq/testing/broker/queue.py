"""A message queue's rules, without I/O: visibility, delays, groups, and giving up. ``now`` is passed in, in steady seconds."""

from __future__ import annotations

import itertools
import secrets
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

from agentq.brokers.base import Backlog, Delivery, Outgoing


@dataclass(slots=True, kw_only=True, eq=False)
class _Message:
    sent: Outgoing
    id: str
    sent_at: float
    arrived: float
    visible: float
    """From when on it may be delivered."""
    receives: int = 0
    receipt: str | None = None
    """Of the delivery that holds it, while one does; it stays after the visibility timeout until somebody else takes it."""


@dataclass(slots=True, eq=False)
class Queue:
    """What lies in one queue."""

    name: str
    visibility_s: float
    ordering: bool
    """Whether a group with a message out hands out no other."""
    give_up_after: int
    """Deliveries after which a message goes to the dead ones."""
    _messages: list[_Message] = field(default_factory=list)
    _dead: list[_Message] = field(default_factory=list)
    _source: str = field(default_factory=lambda: secrets.token_hex(4))
    _numbers: Iterator[int] = field(default_factory=itertools.count)

    def put(self, message: Outgoing, *, now: float, wall: float) -> None:
        """Take a message in; ``wall`` is the time it is stamped with."""
        number = next(self._numbers)
        self._messages.append(
            _Message(
                sent=message,
                id=f"{self.name}-{self._source}-{number}",
                sent_at=wall,
                arrived=now,
                visible=now + message.delay_s,
            )
        )

    def take(self, room: int, *, now: float, dead: bool = False) -> list[Delivery]:
        """Deliver up to ``room`` messages that nobody holds."""
        self._give_up(now)
        messages = self._dead if dead else self._messages
        locked = {each.sent.group for each in messages if self.ordering and each.sent.ordered and each.visible > now}
        taken: list[Delivery] = []
        for message in messages:
            if len(taken) >= room:
                break
            if message.visible <= now and not (message.sent.ordered and message.sent.group in locked):
                taken.append(self._deliver(message, now))
        return taken

    def acknowledge(self, deliveries: Iterable[Delivery]) -> None:
        """Drop these; a receipt that another delivery has replaced counts for nothing."""
        receipts = {delivery.receipt for delivery in deliveries}
        self._messages = [message for message in self._messages if message.receipt not in receipts]
        self._dead = [message for message in self._dead if message.receipt not in receipts]

    def release(self, deliveries: Iterable[Delivery], *, now: float) -> None:
        """Make these visible at once; stale receipts count for nothing."""
        receipts = {delivery.receipt for delivery in deliveries}
        for message in (*self._messages, *self._dead):
            if message.receipt in receipts:
                message.visible, message.receipt = now, None

    def backlog(self, *, now: float) -> Backlog:
        """Count what is there."""
        self._give_up(now)
        ready = [message for message in self._messages if message.visible <= now]
        delayed = sum(message.visible > now and message.receives == 0 for message in self._messages)
        return Backlog(
            queue=self.name,
            ready=len(ready),
            delayed=delayed,
            taken=len(self._messages) - len(ready) - delayed,
            dead=len(self._dead),
            oldest_age_s=max((now - message.arrived for message in ready), default=None),
        )

    def _deliver(self, message: _Message, now: float) -> Delivery:
        message.receives += 1
        message.visible = now + self.visibility_s
        message.receipt = secrets.token_hex(8)
        return Delivery(
            queue=self.name,
            body=message.sent.body,
            id=message.id,
            attributes=dict(message.sent.attributes),
            sent_at=message.sent_at,
            receives=message.receives,
            receipt=message.receipt,
        )

    def _give_up(self, now: float) -> None:
        """Lay aside what was delivered too often and is visible once more."""
        for message in [each for each in self._messages if each.receives >= self.give_up_after and each.visible <= now]:
            self._messages.remove(message)
            self._dead.append(message)
            message.receipt = None

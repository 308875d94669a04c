"""How far one partition was handed out, and how much of that came back acknowledged without a hole."""

from __future__ import annotations

from collections import deque


class Reading:
    """One partition in the hands of this member. It outlives rebalances that leave the partition here."""

    __slots__ = ("_done", "_open", "committed", "next", "partition", "queue", "source", "topic")

    def __init__(self, topic: str, partition: int, *, source: str, queue: str, offset: int) -> None:
        """Begin at ``offset``."""
        self.topic = topic
        self.partition = partition
        self.source = source
        self.queue = queue
        self.next = offset
        """The log's position: behind the last message handed out, and behind control records that follow it."""
        self.committed: int | None = None
        self._open: deque[int] = deque()
        self._done: set[int] = set()

    @property
    def safe(self) -> int:
        """Everything before this offset was acknowledged. With nothing outstanding it is the position itself."""
        return self._open[0] if self._open else self.next

    def hand_out(self, offset: int) -> None:
        """Note that the message at ``offset`` goes out."""
        self._open.append(offset)

    def acknowledge(self, offset: int) -> None:
        """Note that it is in the store. One that was taken back meanwhile will come again, and says nothing."""
        if not self._open or not self._open[0] <= offset < self.next:
            return
        self._done.add(offset)
        while self._open and self._open[0] in self._done:
            self._done.discard(self._open.popleft())

    def take_back(self, offset: int) -> bool:
        """Everything from ``offset`` on is to be handed out again; whether that is news."""
        if offset >= self.next:
            return False
        while self._open and self._open[-1] >= offset:
            self._done.discard(self._open.pop())
        self.next = offset
        return True

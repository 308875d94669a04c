"""One membership in the consumer group: the library's consumer, told to do nothing by itself."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterable
from typing import Any, Final

from aiokafka import AIOKafkaConsumer, ConsumerRebalanceListener, TopicPartition
from aiokafka.coordinator.assignors.sticky.sticky_assignor import StickyPartitionAssignor
from aiokafka.errors import KafkaError

from agentq.brokers.kafka.access import options
from agentq.brokers.kafka.address import Address

POLL_S: Final = 1.0
"""How long one poll waits for messages."""
REBALANCE_S: Final = 10.0
"""For the members to join again when the group changes. All do so in the background, whatever their runs do; it must stay
below `access.REQUEST_S`, in which a join is answered."""
REFRESH_S: Final = 30.0
"""Between two looks at topics and their partitions."""
_COMMIT_S: Final = 5.0
_NOWHERE: Final = TopicPartition("", 0)
"""Asking for this partition's messages only is a poll that takes none: the membership is kept, and so is what was fetched."""


class Member:
    """A consumer that subscribes to topics and moves only when told to.

    aiokafka has no incremental rebalancing (KIP-429): in each rebalance all partitions are revoked and assigned again. With the
    sticky assignor they come back to whom they were with, and whoever keeps their `Reading` goes on without a seam.
    """

    def __init__(self, address: Address, topics: Iterable[str], on_assigned: Callable[[set[TopicPartition]], None]) -> None:
        """Prepare; ``on_assigned`` is called with all partitions that are ours now, each of them paused."""
        self._topics = sorted(topics)
        self._on_assigned = on_assigned
        self._polling: asyncio.Task[Any] | None = None
        self._refreshed_at = 0.0
        self._change: asyncio.Future[None] | None = None
        self._consumer = AIOKafkaConsumer(
            **options(address, "inbox"),
            group_id=address.group,
            enable_auto_commit=False,
            auto_offset_reset="none",
            isolation_level="read_committed",
            metadata_max_age_ms=int(REFRESH_S * 1000),
            max_poll_interval_ms=int(address.poll_interval_s * 1000),
            session_timeout_ms=int(address.session_s * 1000),
            heartbeat_interval_ms=int(min(3.0, address.session_s / 3) * 1000),
            rebalance_timeout_ms=int(REBALANCE_S * 1000),
            # It remembers its assignment in the class: two members of one process need a class each.
            partition_assignment_strategy=(type("Sticky", (StickyPartitionAssignor,), {}),),
        )

    async def join(self) -> None:
        """Connect and subscribe; the assignment comes by itself, while it is polled.

        Raises:
            KafkaError: no server lets us in.
        """
        try:
            await self._consumer.start()
        except BaseException:
            await self.leave()
            raise
        self._refreshed()
        self._consumer._client.cluster.add_listener(self._refreshed)  # noqa: SLF001 - no public way
        self._consumer.subscribe(self._topics, listener=_Listener(self._assigned))

    def _refreshed(self, _: Any = None) -> None:
        self._refreshed_at = time.monotonic()

    def lost(self) -> bool:
        """Whether it has not found the cluster for long. It asks only the brokers that it knows, and all may have moved."""
        return time.monotonic() - self._refreshed_at > 3 * REFRESH_S

    def _assigned(self, places: set[TopicPartition]) -> None:
        for place in places:
            self._consumer.pause(place)
            self._consumer.seek(place, 0)  # somewhere, or the library would look for a place of its own
        self._on_assigned(places)
        if self._change is not None and not self._change.done():
            self._change.set_result(None)

    async def leave(self) -> None:
        """Leave the group at once, so that others need not wait for the session to end."""
        polling, self._polling = self._polling, None
        if polling is not None:
            polling.cancel()
            await asyncio.wait({polling})
            if not polling.cancelled():
                polling.exception()
        await _stop(self._consumer)

    def go(self, place: TopicPartition, offset: int) -> None:
        """Read ``place`` from ``offset`` on, if it is ours."""
        if place in self._consumer.assignment():
            self._consumer.seek(place, offset)
            self._consumer.resume(place)

    async def poll(self, most: int) -> dict[TopicPartition, list[Any]]:
        """Wait for records, and take up to ``most``; with 0 none is taken, and the membership is kept.

        Returns early, and empty, when partitions were assigned. Whatever it raises, records may have been skipped: `go` to
        where they are.
        """
        if self._polling is None:
            wanted = () if most else (_NOWHERE,)
            poll = self._consumer.getmany(*wanted, timeout_ms=int(POLL_S * 1000), max_records=most or 1)
            self._polling = asyncio.create_task(poll)
        # While the group rebalances, the library waits longer than it was told. A poll that is cancelled counts as going on for
        # ever, and a member that polls no more would never lose its membership: so it is left to the next call.
        self._change = asyncio.get_running_loop().create_future()
        await asyncio.wait({self._polling, self._change}, timeout=POLL_S * 2, return_when=asyncio.FIRST_COMPLETED)
        if not self._polling.done():
            return {}
        polled, self._polling = self._polling, None
        return dict(polled.result())

    def position(self, place: TopicPartition, otherwise: int) -> int:
        """The offset that is read next, behind what was taken and behind control records; ``otherwise`` if it is not ours."""
        if place not in self._consumer.assignment():
            return otherwise
        answer = self._consumer.position(place)
        try:
            answer.send(None)
        except StopIteration as known:
            return int(known.value)
        answer.close()
        return otherwise

    def heard(self) -> int:
        """When a fetch was answered last, in the library's milliseconds; 0 is never. A value that stands still is a silence."""
        return max((self._consumer.last_poll_timestamp(place) or 0 for place in self._consumer.assignment()), default=0)

    async def commit(self, offsets: dict[TopicPartition, tuple[int, str]]) -> bool:
        """Commit offsets with their notes; whether it worked. While the group rebalances it does not, and need not."""
        try:
            async with asyncio.timeout(_COMMIT_S):
                await self._consumer.commit(offsets)
        except (KafkaError, TimeoutError):
            return False
        return True


async def _stop(consumer: Any) -> None:
    """Stop ``consumer``, and what the library forgets when it is stopped while a broker does not answer."""
    stopping = asyncio.create_task(consumer.stop())
    await asyncio.wait({stopping})
    if stopping.cancelled() or stopping.exception() is not None:
        left = set() if consumer._fetcher is None else set(consumer._fetcher._pending_tasks)  # noqa: SLF001 - no public way
        for task in left:
            task.cancel()
        if left:
            await asyncio.wait(left)
        await consumer._client.close()  # noqa: SLF001 - no public way


class _Listener(ConsumerRebalanceListener):  # type: ignore[misc]  # the library has no types
    def __init__(self, assigned: Callable[[set[TopicPartition]], None]) -> None:
        self._assigned = assigned

    def on_partitions_revoked(self, revoked: set[TopicPartition]) -> None:
        """Keep what we know: most of it comes back."""

    def on_partitions_assigned(self, assigned: set[TopicPartition]) -> None:
        self._assigned(assigned)

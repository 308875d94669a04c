"""A clause that nothing can fail proves nothing: brokers that break their promises are found out by the clause that says so."""

from __future__ import annotations

import asyncio
import itertools
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import TYPE_CHECKING

import msgspec
import pytest

from agentq.brokers.base import Backlog
from agentq.testing.broker import MemoryBroker
from agentq.testing.conformance.brokers import CLAUSES
from tests.helpers import broker_settings

if TYPE_CHECKING:
    from collections.abc import Sequence

    from agentq.brokers.base import Delivery

BY_NAME = {str(clause): clause for clause in CLAUSES}


class _Wrapped(MemoryBroker):
    """A broker whose inboxes a subclass may spoil."""

    @asynccontextmanager
    async def _inbox(self, queues, positions, *, dead):
        async with super()._inbox(queues, positions, dead=dead) as inbox:
            self.spoil(inbox)
            yield inbox

    def spoil(self, inbox) -> None:
        receive = inbox.receive

        async def spoilt(room: int) -> Sequence[Delivery]:
            return await self.received(inbox, list(await receive(room)))

        inbox.receive = spoilt

    async def received(self, inbox, found: list[Delivery]) -> list[Delivery]:
        return found


class Hasty(_Wrapped):
    async def received(self, inbox, found):
        await inbox.acknowledge(found)
        return found


class Renaming(_Wrapped):
    numbers = itertools.count()

    async def received(self, inbox, found):
        return [msgspec.structs.replace(delivery, id=str(next(self.numbers))) for delivery in found]


class Bare(_Wrapped):
    async def received(self, inbox, found):
        return [msgspec.structs.replace(delivery, attributes={}) for delivery in found]


class Backwards(_Wrapped):
    async def received(self, inbox, found):
        return found[::-1]


class Positionless(_Wrapped):
    async def received(self, inbox, found):
        return [msgspec.structs.replace(delivery, position=None) for delivery in found]


class Hoarding(_Wrapped):
    """What it takes is lost where nobody waits for it any more."""

    def spoil(self, inbox):
        receive = inbox.receive

        async def slow(room: int) -> Sequence[Delivery]:
            found = await receive(room)
            await asyncio.sleep(0.2 if found else 0)
            return found

        inbox.receive = slow


class Absent(_Wrapped):
    """A poll that nobody waits for any more goes on, and what it brings is lost."""

    def spoil(self, inbox):
        receive = inbox.receive
        inbox.receive = lambda room: asyncio.shield(receive(room))


class Greedy(_Wrapped):
    def spoil(self, inbox):
        receive = inbox.receive

        async def greedy(room: int) -> Sequence[Delivery]:
            return await receive(room + 50)

        inbox.receive = greedy


class Deaf(_Wrapped):
    def spoil(self, inbox):
        async def nothing(deliveries: Sequence[Delivery]) -> None:
            pass

        inbox.acknowledge = nothing


class Keeping(_Wrapped):
    def spoil(self, inbox):
        async def nothing(deliveries: Sequence[Delivery]) -> None:
            pass

        inbox.release = nothing


class Proud(MemoryBroker):
    """It knows where it has read to, whatever the store says."""

    @asynccontextmanager
    async def _inbox(self, queues, positions, *, dead):
        async def none(_: str) -> dict[int, int]:
            return {}

        async with super()._inbox(queues, none, dead=dead) as inbox:
            yield inbox


class Hopeful(MemoryBroker):
    async def backlog(self, queues):
        return [Backlog(queue=queue, ready=0) for queue in queues]


class Abrupt(MemoryBroker):
    async def send(self, messages):
        answers = await super().send(messages)
        for answer in answers:
            if answer is not None:
                raise answer
        return answers


class Impatient(MemoryBroker):
    async def send(self, messages):
        return await super().send([msgspec.structs.replace(message, delay_s=0.0) for message in messages])


QUEUE: dict = {}
LOG = {"partitions": 3}
BAD = [
    (Hasty, QUEUE, "what_is_not_acknowledged_comes_again"),
    (Hasty, LOG, "what_is_not_acknowledged_comes_again"),
    (Renaming, QUEUE, "a_delivery_keeps_its_id_when_it_comes_again"),
    (Bare, QUEUE, "attributes_travel"),
    (Backwards, {"ordering": True}, "messages_of_one_group_come_in_order"),
    (Backwards, LOG, "messages_of_one_group_come_in_order"),
    (Positionless, LOG, "positions_rise_within_a_partition"),
    (Hoarding, QUEUE, "a_receive_that_was_cancelled_loses_nothing"),
    (Absent, QUEUE, "leaving_hands_back_what_was_not_returned"),
    (Greedy, QUEUE, "room_zero_takes_nothing"),
    (Greedy, QUEUE, "room_bounds_what_is_taken"),
    (Deaf, QUEUE, "what_is_acknowledged_never_comes_again"),
    (Deaf, LOG, "what_is_acknowledged_never_comes_again"),
    (Keeping, QUEUE, "what_is_released_comes_at_once"),
    (Keeping, QUEUE, "what_is_released_before_leaving_comes_at_once_to_the_next"),
    (Proud, LOG, "positions_say_where_to_read_on"),
    (Proud, LOG, "stored_positions_win_over_committed_ones"),
    (Hopeful, QUEUE, "backlog_counts_what_is_there"),
    (Hopeful, QUEUE, "backlog_tells_errors_not_zero"),
    (Abrupt, QUEUE, "over_max_bytes_is_answered_not_raised"),
    (Abrupt, QUEUE, "a_broker_that_is_not_there_answers_each_message"),
    (Impatient, QUEUE, "a_delay_is_kept"),
]


@pytest.mark.parametrize(("bad", "kind", "name"), BAD, ids=lambda value: getattr(value, "__name__", str(value) or "-"))
async def test_a_bad_broker_is_found_out(bad, kind, name):
    setting = replace(broker_settings.in_memory(bad, **kind), patience_s=0.3, at_once_s=0.3)
    with pytest.raises(Exception):  # noqa: B017, PT011 - whatever it raises is its result
        await BY_NAME[name](setting)
    await BY_NAME[name](replace(broker_settings.in_memory(**kind), patience_s=2.0, at_once_s=2.0))

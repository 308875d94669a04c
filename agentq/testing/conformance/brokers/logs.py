"""Clauses about logs: positions say where to read on, and the store's word counts for more than the broker's."""

# ruff: noqa: D103, PLR2004, S101 - a clause is named after what it proves, and asserts it with plain values

from __future__ import annotations

from collections.abc import Sequence

from agentq.brokers.base import Delivery
from agentq.testing.conformance.brokers.bench import Bench, Need, bodies, clause, fresh
from agentq.testing.wait import wait_until


@clause(Need.LOG)
async def positions_rise_within_a_partition(bench: Bench) -> None:
    await bench.put(30)
    async with bench.inbox() as inbox:
        found = await bench.collect(inbox, 30, room=7, acknowledge=True)
    read: dict[tuple[str, int], int] = {}
    for delivery in found:
        assert delivery.position is not None, "a log's delivery has no position"
        place = (delivery.position.source, delivery.position.partition)
        assert delivery.position.offset > read.get(place, 0)
        read[place] = delivery.position.offset
    assert len({source for source, _ in read}) == 1


@clause(Need.LOG)
async def positions_say_where_to_read_on(bench: Bench) -> None:
    sent = await bench.put(6, group="one", ordered=True)
    async with bench.inbox() as inbox:
        found = await bench.collect(inbox, 6)
    assert bodies(found) == sent
    _store(bench, found[:4])
    async with bench.inbox() as inbox:
        assert bodies(await bench.collect(inbox, 2, acknowledge=True)) == sent[4:]
        assert await bench.rest(inbox) == []


@clause(Need.LOG)
async def stored_positions_win_over_committed_ones(bench: Bench) -> None:
    sent = await bench.put(6, group="one", ordered=True)
    async with bench.inbox() as inbox:
        found = await bench.collect(inbox, 6, acknowledge=True)
    _store(bench, found[:2])
    async with bench.another() as broker, bench.inbox(broker=broker) as inbox:
        assert bodies(await bench.collect(inbox, 4, acknowledge=True)) == sent[2:]


@clause(Need.LOG)
async def what_the_store_has_read_is_not_backlog(bench: Bench) -> None:
    await bench.put(5, group="one", ordered=True)
    async with bench.inbox() as inbox:
        _store(bench, await bench.collect(inbox, 5))

    async def empty() -> bool:
        found = await bench.counted()
        return not (found.error or found.ready or found.taken)

    async with bench.inbox() as inbox:
        assert await bench.rest(inbox) == []
        await wait_until("the broker has heard of it", empty, timeout_s=bench.setting.patience_s, every_s=0.05)
    assert await empty()


@clause(Need.LOG)
async def a_source_names_one_log(bench: Bench) -> None:
    other = fresh()
    await bench.make(other)
    await bench.send(bench.message(), bench.message(queue=other))
    async with bench.inbox(bench.queue, other) as inbox:
        found = await bench.collect(inbox, 2, acknowledge=True)
    assert len({delivery.position.source for delivery in found if delivery.position is not None}) == 2


@clause(Need.LOG)
async def a_group_stays_in_one_partition(bench: Bench) -> None:
    await bench.send(*(bench.message(f'"{n % 4}"', group=str(n % 4)) for n in range(24)))
    async with bench.inbox() as inbox:
        found = await bench.collect(inbox, 24, acknowledge=True)
    places = {(delivery.body, delivery.position.partition) for delivery in found if delivery.position is not None}
    assert len(places) == 4


@clause(Need.LOG)
async def a_log_gives_nothing_up(bench: Bench) -> None:
    await bench.put(1)
    async with bench.inbox(dead=True) as dead:
        assert await bench.rest(dead) == []
    assert (await bench.counted()).dead == 0


def _store(bench: Bench, deliveries: Sequence[Delivery]) -> None:
    """Keep how far these have been read, as intake does."""
    for delivery in deliveries:
        assert delivery.position is not None
        bench.stored.setdefault(delivery.position.source, {})[delivery.position.partition] = delivery.position.offset

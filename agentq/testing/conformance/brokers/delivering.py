"""Clauses about deliveries: what comes, what comes again, and what never does."""

# ruff: noqa: D103, S101 - a clause is named after what it proves, and asserts it with plain values

from __future__ import annotations

from agentq.testing.conformance.brokers.bench import Bench, Need, bodies, clause, fresh

BATCH = 10
"""How many more than wanted a batch under way may bring."""


@clause(brief=True)
async def a_delivery_keeps_its_id_when_it_comes_again(bench: Bench) -> None:
    sent = await bench.put(4)
    async with bench.inbox() as inbox:
        first = {delivery.body: delivery.id for delivery in await bench.collect(inbox, 4)}
    await bench.expire()
    async with bench.another() as broker, bench.inbox(broker=broker) as inbox:
        again = {delivery.body: delivery.id for delivery in await bench.collect(inbox, 4, acknowledge=True)}
    assert again == first
    assert len(set(first.values())) == len(sent)


@clause()
async def ids_differ_between_queues(bench: Bench) -> None:
    other = fresh()
    await bench.make(other)
    await bench.send(bench.message(b'"same"'), bench.message(b'"same"', queue=other))
    async with bench.inbox(bench.queue, other) as inbox:
        first, second = await bench.collect(inbox, 2, acknowledge=True)
    assert first.id != second.id
    assert {first.queue, second.queue} == {bench.queue, other}


@clause(brief=True)
async def what_is_acknowledged_never_comes_again(bench: Bench) -> None:
    await bench.put(5)
    async with bench.inbox() as inbox:
        await bench.collect(inbox, 5, acknowledge=True)
        await bench.expire()
        assert await bench.rest(inbox) == []
    async with bench.another() as broker, bench.inbox(broker=broker) as inbox:
        assert await bench.rest(inbox) == []


@clause(brief=True)
async def what_is_not_acknowledged_comes_again(bench: Bench) -> None:
    await bench.put(6)
    async with bench.inbox() as inbox:
        found = await bench.collect(inbox, 6)
        await inbox.acknowledge(found[:2])
    await bench.expire()
    async with bench.inbox() as inbox:
        again = await bench.collect(inbox, 4, acknowledge=True)
        assert sorted(bodies(again)) == sorted(bodies(found[2:]))
        assert await bench.rest(inbox) == []


@clause(Need.QUEUE, brief=True)
async def what_is_held_for_too_long_goes_to_another(bench: Bench) -> None:
    await bench.put(3)
    async with bench.inbox() as slow, bench.another() as broker, bench.inbox(broker=broker) as quick:
        held = await bench.collect(slow, 3)
        await bench.expire()
        again = await bench.collect(quick, 3)
        assert {delivery.id for delivery in again} == {delivery.id for delivery in held}
        await slow.acknowledge(held)  # late: harmless, whatever it does
        await quick.acknowledge(again)
        await bench.expire()
        assert await bench.rest(quick) == []


@clause()
async def acknowledging_again_is_harmless(bench: Bench) -> None:
    await bench.put(2)
    async with bench.inbox() as inbox:
        found = await bench.collect(inbox, 2, acknowledge=True)
        await inbox.acknowledge(found)
        await inbox.acknowledge([])
        await inbox.release([])
        sent = await bench.put(2)
        assert sorted(bodies(await bench.collect(inbox, 2, acknowledge=True))) == sorted(sent)


@clause(brief=True)
async def many_are_acknowledged_in_one_call(bench: Bench) -> None:
    await bench.put(35)
    async with bench.inbox() as inbox:
        await inbox.acknowledge(await bench.collect(inbox, 35, room=35))
        await bench.expire()
        assert await bench.rest(inbox) == []


@clause()
async def what_is_released_comes_at_once(bench: Bench) -> None:
    sent = await bench.put(12)
    async with bench.inbox() as inbox:
        found = await bench.collect(inbox, 12, room=12)
        await inbox.release(found)
        again = await bench.collect(inbox, 12, room=12, acknowledge=True, within_s=bench.setting.at_once_s)
    assert sorted(bodies(again)) == sorted(sent)


@clause(Need.ORDERING)
async def what_is_released_comes_in_order_again(bench: Bench) -> None:
    sent = [bench.message(f'"{n}"', group="a", ordered=True) for n in range(6)]
    await bench.send(*sent)
    async with bench.inbox() as inbox:
        found = await inbox.receive(6)
        while not found:
            found = await inbox.receive(6)
        kept, back = found[:1], found[1:]
        await inbox.acknowledge(kept)
        await inbox.release(back)
        again = await bench.collect(inbox, 5, acknowledge=True, within_s=bench.setting.at_once_s)
    assert bodies(kept) + bodies(again) == [message.body for message in sent]


@clause()
async def room_zero_takes_nothing(bench: Bench) -> None:
    sent = await bench.put(3)
    async with bench.inbox() as inbox:
        for _ in range(3):
            assert list(await inbox.receive(0)) == []
        found = await bench.collect(inbox, 3, acknowledge=True, within_s=bench.setting.at_once_s)
    assert sorted(bodies(found)) == sorted(sent)


@clause()
async def room_bounds_what_is_taken(bench: Bench) -> None:
    await bench.put(60)
    async with bench.inbox() as inbox:
        for room in (1, 3, 10):
            found = await inbox.receive(room)
            assert len(found) <= room + BATCH, f"receive({room}) brought {len(found)}"
            await inbox.acknowledge(found)


@clause()
async def one_inbox_receives_from_all_its_queues(bench: Bench) -> None:
    others = [fresh(), fresh()]
    for queue in others:
        await bench.make(queue)
    queues = [bench.queue, *others]
    await bench.send(*(bench.message(f'"{queue}"', queue=queue) for queue in queues for _ in range(3)))
    async with bench.inbox(*queues) as inbox:
        found = await bench.collect(inbox, 9, acknowledge=True)
    assert sorted((delivery.queue, delivery.body) for delivery in found) == sorted(
        (queue, f'"{queue}"'.encode()) for queue in queues for _ in range(3)
    )


@clause()
async def what_comes_while_an_inbox_waits_is_received(bench: Bench) -> None:
    async with bench.inbox() as inbox:
        assert list(await inbox.receive(5)) == []
        for _ in range(3):
            sent = await bench.put(2)
            assert sorted(bodies(await bench.collect(inbox, 2, acknowledge=True))) == sorted(sent)


@clause()
async def a_delivery_says_when_it_was_sent(bench: Bench) -> None:
    before = bench.setting.wall()
    await bench.put(1)
    after = bench.setting.wall()
    async with bench.inbox() as inbox:
        [found] = await bench.collect(inbox, 1, acknowledge=True)
    if found.sent_at is not None:
        assert before - 5 <= found.sent_at <= after + 5


@clause(Need.QUEUE, Need.GIVES_UP)
async def what_is_given_up_is_read_from_the_dead_inbox(bench: Bench) -> None:
    [body] = await bench.put(1)
    async with bench.inbox() as inbox:
        for _ in range(bench.setting.give_up_after or 0):
            await inbox.release(await bench.collect(inbox, 1, room=1))
        assert await bench.rest(inbox) == []
    assert (await bench.counted()).dead == 1
    async with bench.inbox(dead=True) as dead:
        assert bodies(await bench.collect(dead, 1, acknowledge=True)) == [body]
    assert (await bench.counted()).dead == 0

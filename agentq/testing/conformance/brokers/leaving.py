"""Clauses about inboxes that come and go: nothing is lost by it, and nobody waits for those who are gone."""

# ruff: noqa: D103, S101 - a clause is named after what it proves, and asserts it with plain values

from __future__ import annotations

import asyncio

from agentq.brokers.base import Inbox
from agentq.testing.conformance.brokers.bench import Bench, bodies, clause


@clause()
async def leaving_hands_back_what_was_not_returned(bench: Bench) -> None:
    async with bench.inbox() as inbox:
        await inbox.receive(1)  # memberships and connections are there from here on
        waiting = asyncio.create_task(inbox.receive(10))
        await asyncio.sleep(0.05)  # the poll is under way
        waiting.cancel()
        await asyncio.wait({waiting})
        sent = await bench.put(3)
    async with bench.another() as broker, bench.inbox(broker=broker) as second:
        found = await bench.collect(second, 3, acknowledge=True, within_s=bench.setting.at_once_s)
    assert sorted(bodies(found)) == sorted(sent)


@clause()
async def a_receive_that_was_cancelled_loses_nothing(bench: Bench) -> None:
    async with bench.inbox() as inbox:
        await inbox.receive(1)
        for patience_s in (0.0, 0.002, 0.01, 0.03, 0.1):
            waiting = asyncio.create_task(inbox.receive(10))
            await asyncio.sleep(0)
            sent = await bench.put(2)
            await asyncio.wait({waiting}, timeout=patience_s)
            waiting.cancel()
            await asyncio.wait({waiting})
            found = list(waiting.result()) if not waiting.cancelled() else []
            await inbox.acknowledge(found)
            if len(found) < len(sent):
                found += await bench.collect(inbox, len(sent) - len(found), acknowledge=True, within_s=bench.setting.at_once_s)
            assert sorted(bodies(found)) == sorted(sent)


@clause()
async def an_inbox_can_be_left_at_once(bench: Bench) -> None:
    async with bench.inbox():
        pass
    sent = await bench.put(1)
    async with bench.inbox() as inbox:
        assert bodies(await bench.collect(inbox, 1, acknowledge=True)) == sent


@clause()
async def what_is_released_before_leaving_comes_at_once_to_the_next(bench: Bench) -> None:
    sent = await bench.put(5)
    async with bench.inbox() as inbox:
        await inbox.release(await bench.collect(inbox, 5))
    async with bench.another() as broker, bench.inbox(broker=broker) as second:
        found = await bench.collect(second, 5, acknowledge=True, within_s=bench.setting.at_once_s)
    assert sorted(bodies(found)) == sorted(sent)


@clause(brief=True)
async def two_inboxes_share(bench: Bench) -> None:
    count = 40
    found: dict[bytes, int] = {}

    async def serve(inbox: Inbox) -> None:
        while len(found) < count:
            batch = await inbox.receive(3)
            for delivery in batch:
                found[delivery.body] = found.get(delivery.body, 0) + 1
            await inbox.acknowledge(batch)

    async with bench.another() as broker, bench.inbox() as one, bench.inbox(broker=broker) as two:
        serving = [asyncio.create_task(serve(one)), asyncio.create_task(serve(two))]
        try:
            sent = await bench.put(count)
            _, late = await asyncio.wait(serving, timeout=bench.setting.patience_s)
        finally:
            for task in serving:
                task.cancel()
            await asyncio.wait(serving)
        assert not late, f"{len(found)} of {count} messages came"
    assert sorted(found) == sorted(sent)
    await bench.expire()
    async with bench.inbox() as inbox:
        assert await bench.rest(inbox) == []


@clause()
async def an_inbox_that_leaves_is_replaced_by_those_that_stay(bench: Bench) -> None:
    async with bench.another() as broker, bench.inbox(broker=broker) as stays:
        async with bench.inbox() as leaves:
            both = [asyncio.create_task(leaves.receive(1)), asyncio.create_task(stays.receive(1))]
            await asyncio.wait(both)
            assert [list(task.result()) for task in both] == [[], []]
        sent = await bench.put(12)
        found = await bench.collect(stays, 12, acknowledge=True)
    assert sorted(bodies(found)) == sorted(sent)

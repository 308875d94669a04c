"""Clauses about brokers that are not there: said by the right error, in time, and over when they are back."""

# ruff: noqa: D103, S101 - a clause is named after what it proves, and asserts it with plain values

from __future__ import annotations

import time

from agentq.brokers.base import Broker, Delivery, Inbox
from agentq.errors import BrokerUnavailable
from agentq.testing.conformance.brokers.bench import Bench, Need, bodies, clause
from agentq.testing.wait import wait_until


@clause(Need.UNREACHABLE)
async def opening_makes_no_connection(bench: Bench) -> None:
    async with _unreachable(bench) as broker:
        assert broker.where
        assert broker.capabilities(bench.queue).max_bytes > 0


@clause(Need.UNREACHABLE)
async def a_broker_that_is_not_there_answers_each_message(bench: Bench) -> None:
    async with _unreachable(bench) as broker:
        answers = await broker.send([bench.message(), bench.message()])
    assert [type(answer) for answer in answers] == [BrokerUnavailable] * 2, answers


@clause(Need.UNREACHABLE)
async def receiving_from_a_broker_that_is_not_there_raises(bench: Bench) -> None:
    async with _unreachable(bench) as broker:
        try:
            async with bench.inbox(broker=broker) as inbox:
                await inbox.receive(1)
        except BrokerUnavailable:
            return
    raise AssertionError("a broker that is not there was received from")


@clause(Need.UNREACHABLE)
async def backlog_tells_errors_not_zero(bench: Bench) -> None:
    async with _unreachable(bench) as broker:
        found = await broker.backlog([bench.queue, "another"])
    assert [each.queue for each in found] == [bench.queue, "another"]
    assert all(each.error for each in found), found


@clause(Need.UNREACHABLE)
async def inspect_says_that_a_broker_is_not_there(bench: Bench) -> None:
    async with _unreachable(bench) as broker:
        found = await broker.inspect([bench.queue])
    assert any(not finding.ok and finding.text for finding in found), found


@clause(Need.STOP)
async def a_broker_that_is_down_is_unavailable_and_recovers(bench: Bench) -> None:
    stop, start = bench.setting.stop, bench.setting.start
    assert stop is not None
    assert start is not None
    async with bench.inbox() as inbox:
        await inbox.receive(1)
        await stop()
        try:
            [answer] = await bench.broker.send([bench.message()])
            assert isinstance(answer, BrokerUnavailable), f"send to a broker that is down answered {answer!r}"
            assert (await bench.counted()).error
            assert await _told(inbox, bench.setting.patience_s) == []
        finally:
            await start()

        async def back() -> bool:
            return not (await bench.counted()).error

        await wait_until("the broker is back", back, timeout_s=bench.setting.patience_s, every_s=0.1)
        sent = await bench.put(2)
        assert await _again(inbox, 2, bench.setting.patience_s) == set(sent)


async def _told(inbox: Inbox, patience_s: float) -> list[Delivery]:
    """Receive until the outage is told; answers what was on its way and came before."""
    until = time.monotonic() + patience_s
    found: list[Delivery] = []
    while time.monotonic() < until:
        try:
            found += await inbox.receive(10)
        except BrokerUnavailable:
            return found
    raise AssertionError("a broker that is down was received from, and nothing was raised")


async def _again(inbox: Inbox, count: int, patience_s: float) -> set[bytes]:
    """Receive until so many different messages have come; a broker that comes back may still be unavailable for a while."""
    until = time.monotonic() + patience_s
    found: set[bytes] = set()
    while len(found) < count:
        assert time.monotonic() < until, f"{len(found)} of {count} messages came after the outage"
        try:
            batch = await inbox.receive(10)
            await inbox.acknowledge(batch)
        except BrokerUnavailable:
            continue
        found.update(bodies(batch))
    return found


def _unreachable(bench: Bench) -> Broker:
    assert bench.setting.unreachable is not None
    return bench.setting.unreachable()

"""Clauses about figures and findings: what is there is told, and what cannot be read is not zero."""

# ruff: noqa: D103, S101 - a clause is named after what it proves, and asserts it with plain values

from __future__ import annotations

from agentq.testing.conformance.brokers.bench import Bench, Need, clause, fresh
from agentq.testing.wait import wait_until


@clause()
async def backlog_counts_what_is_there(bench: Bench) -> None:
    empty = await bench.counted()
    assert (empty.queue, empty.ready, empty.delayed, empty.taken, empty.error) == (bench.queue, 0, 0, 0, "")
    await bench.put(7)
    await _until(bench, ready=7)
    oldest = (await bench.counted()).oldest_age_s
    assert oldest is None or oldest >= 0
    async with bench.inbox() as inbox:
        found = await bench.collect(inbox, 7)
        await _until(bench, all=7)
        await inbox.acknowledge(found[:3])
        await inbox.acknowledge(found[3:])
        await _until(bench, ready=0, all=0)


@clause(Need.QUEUE)
async def what_is_taken_is_not_ready(bench: Bench) -> None:
    await bench.put(4)
    async with bench.inbox() as inbox:
        found = await bench.collect(inbox, 4)
        await _until(bench, ready=0, taken=4)
        await inbox.release(found)
        await _until(bench, ready=4, taken=0)


@clause(Need.DELAY)
async def what_is_delayed_is_not_ready(bench: Bench) -> None:
    await bench.put(2, delay_s=bench.broker.capabilities(bench.queue).max_delay_s)
    await bench.put(1)
    await _until(bench, ready=1, delayed=2)


@clause()
async def backlogs_are_answered_in_the_order_asked(bench: Bench) -> None:
    other = fresh()
    await bench.make(other)
    await bench.send(bench.message(queue=other))
    await wait_until(
        "the other queue's message is counted",
        lambda: _ready(bench, other),
        timeout_s=bench.setting.patience_s,
    )
    for queues in ([bench.queue, other], [other, bench.queue]):
        found = await bench.broker.backlog(queues)
        assert [(each.queue, each.ready) for each in found] == [(queue, int(queue == other)) for queue in queues]


@clause(Need.MADE)
async def a_queue_that_is_not_there_has_no_figures(bench: Bench) -> None:
    missing, there = await bench.broker.backlog([fresh(), bench.queue])
    assert missing.error
    assert not there.error


@clause(Need.MADE)
async def inspect_tells_what_is_missing_and_makes_it(bench: Bench) -> None:
    queue = fresh()
    before = await bench.broker.inspect([queue])
    assert any(not finding.ok and finding.text for finding in before), before
    fixed = await bench.broker.inspect([queue], fix=True)
    assert any(finding.fixed for finding in fixed), fixed
    assert all(finding.ok for finding in fixed), fixed
    after = await bench.broker.inspect([queue])
    assert all(finding.ok and not finding.fixed for finding in after), after


async def _ready(bench: Bench, queue: str) -> bool:
    return (await bench.counted(queue)).ready == 1


async def _until(bench: Bench, **wanted: int) -> None:
    async def so() -> bool:
        found = await bench.counted()
        assert not found.error, found
        figures = {
            "ready": found.ready,
            "delayed": found.delayed,
            "taken": found.taken,
            "all": found.ready + found.delayed + found.taken,
        }
        return wanted.items() <= figures.items()

    await wait_until(f"the backlog is {wanted}", so, timeout_s=bench.setting.patience_s, every_s=0.02)

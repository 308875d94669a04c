"""Clauses about ringing: who has to look is told at once."""

# ruff: noqa: D103, S101 - a clause is named after what it proves, and asserts it with plain values

from __future__ import annotations

import asyncio

from agentq.message import (
    Cancel,
    Fork,
    Pause,
    Released,
    Resume,
    SetWorker,
    WorkerState,
)
from agentq.testing.conformance.bench import Bench, child, clause, signal, timer
from agentq.testing.conformance.waiting import send


@clause
async def a_watch_ends_without_a_tick_when_its_time_is_up(bench: Bench) -> None:
    for topic in ("work", "news"):
        seen = await bench.store.watch(topic, 0, 0)
        for _ in range(50):
            if (again := await bench.store.watch(topic, seen, 0)) == seen:
                break
            seen = again
        else:
            raise AssertionError(f"{topic} ticks without end while nothing happens")


@clause
async def a_submission_rings_for_work(bench: Bench) -> None:
    await rings(bench, "work", bench.submit("run-a"))


@clause
async def a_signal_that_wakes_rings_for_work(bench: Bench) -> None:
    await bench.suspend(await bench.begin(), signal())
    await rings(bench, "work", send(bench, 1))


@clause
async def whatever_makes_a_run_claimable_rings_for_work(bench: Bench) -> None:
    claim = await bench.begin()
    await rings(bench, "work", bench.write(claim, children=(bench.envelope("run-b"),)))
    await rings(bench, "work", bench.write(claim, settle=Released()))
    await bench.claim()
    await rings(bench, "work", bench.store.leave("w1"))
    await bench.submit("run-c")
    await bench.store.command(Pause(run_id="run-c"))
    await rings(bench, "work", bench.store.command(Resume(run_id="run-c")))
    await rings(bench, "work", bench.store.command(Fork(run_id="run-c", new_id="run-d", upto=0)))


@clause
async def a_new_timer_rings_for_work_so_that_nobody_sleeps_past_it(bench: Bench) -> None:
    claim = await bench.begin()
    await rings(bench, "work", bench.submit("run-b", due_at=bench.clock.wall() + 5))
    await rings(bench, "work", bench.suspend(claim, timer(bench.clock.wall() + 5)))


@clause
async def a_command_for_a_worker_rings_for_work(bench: Bench) -> None:
    claim = await bench.begin()
    await bench.beat("w1", claim)
    await bench.commit(claim, waits=(signal(),))
    await rings(bench, "work", send(bench, 1))
    await rings(bench, "work", bench.store.command(SetWorker(worker_id="w1", state=WorkerState.CORDONED)))
    await rings(bench, "work", bench.store.command(Pause(run_id="run-a")))
    await rings(bench, "work", bench.store.command(Cancel(run_id="run-a")))


@clause
async def a_child_that_ends_rings_for_work(bench: Bench) -> None:
    parent = await bench.begin()
    await bench.commit(parent, children=(bench.envelope("run-b"),))
    claim = await bench.take()
    await bench.suspend(parent, child("run-b"))
    await rings(bench, "work", bench.succeed(claim))


@clause
async def a_settlement_rings_for_readers(bench: Bench) -> None:
    claim = await bench.begin()
    await rings(bench, "news", bench.succeed(claim))


@clause
async def a_tick_that_was_missed_is_answered_at_once(bench: Bench) -> None:
    seen = await bench.store.watch("work", 0, 0)
    await bench.submit("run-a")
    assert await bench.store.watch("work", seen, 30) > seen


async def rings(bench: Bench, topic: str, happening: object) -> None:
    """Somebody who watches ``topic`` hears of what ``happening`` does."""
    seen = await bench.store.watch(topic, 0, 0)
    watching = asyncio.create_task(bench.store.watch(topic, seen, 30))
    await asyncio.sleep(0)
    await happening  # type: ignore[misc]
    assert await watching > seen

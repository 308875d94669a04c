"""Cancel and pause reach a run wherever it is: queued, running, waiting, or in the hands of a dead worker."""

import asyncio
from typing import Any

import pytest

from agentq import AgentQ, Context, Retry, RunCancelled, Signal
from agentq.message import Cancel, Pause, Reply, Resume, RunState
from agentq.testing.wait import wait_until
from agentq.worker.ends import End
from agentq.worker.ledger import Stop
from tests.helpers.lab import LEASE_S, Calls, Gate, lab, working

pytestmark = pytest.mark.usefixtures("each_store")

WORD = Signal("word", str)


async def test_a_queued_or_waiting_run_is_cancelled_at_once_and_never_runs() -> None:
    aq, calls = AgentQ("t"), Calls()

    @aq.task
    async def task(ctx: Context) -> None:
        calls.append("runs")
        await ctx.wait_for(WORD)

    async with lab(aq) as bench:
        queued = await bench.submit(task.bind())
        assert await bench.handle(queued).cancel()
        assert not await bench.handle(queued).cancel()
        assert await bench.state(queued) is RunState.CANCELLED
        await bench.settle()
        assert calls == []
        waiting = await bench.submit(task.bind())
        await bench.settle()
        assert await bench.handle(waiting).cancel()
        run = await bench.run(waiting)
        assert (run.state, run.due_at, run.owner) == (RunState.CANCELLED, None, None)
        assert await bench.store.waits(waiting) == []
        with pytest.raises(RunCancelled):
            await bench.result(waiting)
        assert not await bench.handle(waiting).signal(WORD, "late")


async def test_a_running_run_hears_of_its_cancel_with_the_next_heartbeat() -> None:
    aq, gate, seen = AgentQ("t"), Gate(), Calls()

    @aq.step
    async def hang() -> None:
        try:
            await gate.wait()
        finally:
            seen.append("cleaned up")

    @aq.task
    async def task(ctx: Context) -> None:
        await hang()

    async with aq.using(store="memory:"), working(aq) as worker:
        handle = await task.enqueue()
        await gate.reached()
        assert await handle.cancel()
        with pytest.raises(RunCancelled):
            await handle.result(timeout=10)
        assert seen == ["cleaned up"]
        await wait_until("the slot is free", lambda: worker.status()["busy"] == 0)


async def test_of_cancel_and_success_the_first_commit_wins() -> None:
    aq = AgentQ("t")

    @aq.step
    async def cancelled_meanwhile(run_id: str) -> None:
        await bench.command(Cancel(run_id=run_id))

    @aq.task
    async def task(ctx: Context) -> str:
        await cancelled_meanwhile(ctx.run_id)
        return "done"

    async with lab(aq) as bench:
        run_id = await bench.submit(task.bind())
        assert await bench.once() is End.CANCELLED
        assert await bench.state(run_id) is RunState.CANCELLED
        done = await bench.submit(task.bind())
        bench.live.clear()
        await bench.settle()
        assert await bench.command(Cancel(run_id=done)) is Reply.UNCHANGED


async def test_cancelling_what_is_over_is_refused() -> None:
    aq = AgentQ("t")

    @aq.task
    async def task(ctx: Context) -> str:
        return "done"

    async with lab(aq) as bench:
        run = await bench.finish(task.bind())
        assert not await bench.handle(run.id).cancel()
        assert await bench.result(run.id) == "done"


async def test_a_run_whose_worker_died_with_the_cancel_flag_set_settles_without_running_code() -> None:
    aq, calls = AgentQ("t"), Calls()

    @aq.step
    async def die() -> None:
        calls.append("runs")
        await bench.command(Cancel(run_id=next(iter(bench.live))))
        await bench.die_here()

    @aq.task
    async def task(ctx: Context) -> None:
        await die()

    async with lab(aq) as bench:
        run_id = await bench.submit(task.bind())
        assert await bench.once() is End.LOST
        assert (await bench.run(run_id)).cancelling
        bench.clock.advance(LEASE_S + 1)
        await bench.settle()
        assert await bench.state(run_id) is RunState.CANCELLED
        assert calls == ["runs"]


async def test_a_cancel_wins_over_a_retry_and_a_suspension() -> None:
    aq = AgentQ("t")

    @aq.task(retry=Retry(max_attempts=5))
    async def fails(ctx: Context) -> None:
        await bench.command(Cancel(run_id=ctx.run_id))
        raise ValueError("try again?")

    @aq.task
    async def waits(ctx: Context) -> None:
        await bench.command(Cancel(run_id=ctx.run_id))
        await ctx.wait_for(WORD)

    async with lab(aq) as bench:
        for task in (fails, waits):
            run = await bench.finish(task.bind())
            assert run.state is RunState.CANCELLED


async def test_a_paused_run_stops_at_its_next_step_and_goes_on_where_it_was() -> None:
    aq, gate, calls = AgentQ("t"), Gate(), Calls()

    @aq.step
    async def one(n: int) -> int:
        calls.append(n)
        if n == 1:
            await gate.wait()
        return n

    @aq.task
    async def task(ctx: Context) -> int:
        return sum([await one(n) for n in range(4)])

    async with aq.using(store="memory:"), working(aq) as worker:
        handle = await task.enqueue()
        await gate.reached()
        assert await handle.pause()
        assert not await handle.pause()
        await wait_until("the worker heard it", lambda: next(iter(worker._pool.slots.values())).working.stopping)  # type: ignore[union-attr]
        gate.open()
        await wait_until("the run is handed back", lambda: worker.status()["busy"] == 0)
        status = await handle.status()
        assert (status.state, status.paused, status.attempt) == (RunState.QUEUED, True, 1)
        assert calls == [0, 1]
        assert await handle.resume()
        assert not await handle.resume()
        assert await handle.result(timeout=10) == 6
        assert calls == [0, 1, 2, 3]


async def test_a_paused_run_that_waits_is_not_woken_until_it_is_resumed() -> None:
    aq = AgentQ("t")

    @aq.task
    async def task(ctx: Context) -> str:
        return await ctx.wait_for(WORD)

    async with lab(aq) as bench:
        run_id = await bench.submit(task.bind())
        await bench.settle()
        assert await bench.command(Pause(run_id=run_id)) is Reply.DONE
        await bench.send(run_id, WORD, "x", "1")
        assert (await bench.claim())[0] == []
        assert await bench.command(Resume(run_id=run_id)) is Reply.DONE
        await bench.settle()
        assert await bench.result(run_id) == "x"


async def test_a_cancel_reaches_a_paused_run() -> None:
    aq = AgentQ("t")

    @aq.task
    async def task(ctx: Context) -> None: ...

    async with lab(aq) as bench:
        run_id = await bench.submit(task.bind())
        await bench.handle(run_id).pause()
        assert await bench.handle(run_id).cancel()
        assert await bench.state(run_id) is RunState.CANCELLED


async def test_a_cancel_overrules_a_drain_that_is_under_way() -> None:
    aq, gate = AgentQ("t"), Gate()

    @aq.step
    async def hang() -> None:
        await gate.wait()

    @aq.task
    async def task(ctx: Context) -> None:
        await hang()

    async with lab(aq) as bench:
        run_id = await bench.submit(task.bind())
        work = asyncio.create_task(bench.once())
        await gate.reached()
        bench.stop(Stop.DRAIN)
        await bench.command(Cancel(run_id=run_id))
        bench.stop(Stop.CANCEL)
        assert await work is End.CANCELLED
        assert await bench.state(run_id) is RunState.CANCELLED


async def test_swallowing_a_cancel_does_not_help() -> None:
    aq, gate, calls = AgentQ("t"), Gate(), Calls()

    @aq.step
    async def step() -> None:
        calls.append("step")

    @aq.task
    async def task(ctx: Context) -> Any:
        try:
            await gate.wait()
        except asyncio.CancelledError:
            calls.append("swallowed")
        await step()
        return "went on"

    async with lab(aq) as bench:
        run_id = await bench.submit(task.bind())
        work = asyncio.create_task(bench.once())
        await gate.reached()
        await bench.command(Cancel(run_id=run_id))
        bench.stop(Stop.CANCEL)
        assert await work is End.CANCELLED
        assert calls == ["swallowed"]
        assert await bench.state(run_id) is RunState.CANCELLED

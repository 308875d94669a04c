"""Running time of a run, of an attempt, of a step; deadlines; and what counts as running time."""

import asyncio
import itertools
from datetime import datetime, timedelta
from typing import Any

import pytest

from agentq import AgentQ, Context, Retry, RunFailed, Signal, SyncContext
from agentq.message import RunState
from agentq.testing.wait import wait_until
from agentq.worker.ends import End
from agentq.worker.ledger import Stop
from tests.helpers.lab import LEASE_S, Calls, Gate, lab, working

pytestmark = pytest.mark.usefixtures("each_store")

HOUR = timedelta(hours=1)


async def test_a_run_that_used_up_its_running_time_fails_for_good() -> None:
    aq, seen = AgentQ("t"), Calls()

    @aq.step
    async def hang() -> None:
        try:
            await asyncio.Event().wait()
        finally:
            seen.append("cancelled")

    @aq.task(timeout=timedelta(milliseconds=20), retry=Retry(max_attempts=5))
    async def task(ctx: Context) -> None:
        await hang()

    async with lab(aq) as bench:
        run = await bench.finish(task.bind())
        assert (run.state, run.attempt) == (RunState.FAILED, 1)
        assert run.failure is not None
        assert run.failure.type.endswith("RunTimeout")
        assert "0.02 s" in run.failure.message
        assert seen == ["cancelled"]


async def test_an_attempt_that_takes_too_long_is_tried_again() -> None:
    aq, calls = AgentQ("t"), Calls()

    @aq.task(attempt_timeout=timedelta(milliseconds=20), retry=Retry(max_attempts=2))
    async def task(ctx: Context) -> str:
        calls.append(1)
        if len(calls) == 1:
            await asyncio.Event().wait()
        return "second"

    async with lab(aq) as bench:
        run = await bench.finish(task.bind())
        assert await bench.result(run.id) == "second"
        assert run.attempt == 2


async def test_the_submissions_own_timeout_overrides_the_tasks() -> None:
    aq = AgentQ("t")

    @aq.task(timeout=HOUR)
    async def task(ctx: Context) -> None:
        await asyncio.Event().wait()

    async with lab(aq) as bench:
        run = await bench.finish(task.options(timeout=timedelta(milliseconds=10)).bind())
        assert run.failure is not None
        assert run.failure.type.endswith("RunTimeout")


async def test_running_time_adds_up_over_drains_waits_and_attempts_and_leaves_waits_and_queues_out() -> None:
    aq, calls = AgentQ("t"), Calls()

    @aq.step
    async def work(seconds: float) -> None:
        bench.clock.advance(seconds)

    @aq.task(retry=Retry(max_attempts=2, initial=timedelta(minutes=10), jitter=0))
    async def task(ctx: Context) -> None:
        await work(1)
        await ctx.sleep(HOUR)
        await work(2)
        if not calls:
            calls.append("fails")
            raise ValueError
        await work(4)

    async with lab(aq) as bench:
        run_id = await bench.submit(task.bind())
        bench.clock.advance(100)
        await bench.settle()
        run = await bench.run(run_id)
        assert run.state is RunState.SUCCEEDED
        assert run.running_s == pytest.approx(7, abs=0.1)


async def test_time_used_before_counts_towards_the_timeout() -> None:
    aq = AgentQ("t")

    @aq.step
    async def work(seconds: float) -> None:
        bench.clock.advance(seconds)

    @aq.task(timeout=timedelta(seconds=10), retry=Retry(max_attempts=1))
    async def task(ctx: Context) -> None:
        await work(9.995)
        await ctx.sleep(HOUR)
        await asyncio.Event().wait()

    async with lab(aq) as bench:
        run = await bench.finish(task.bind())
        assert run.failure is not None
        assert run.failure.type.endswith("RunTimeout")


async def test_a_deadline_is_wall_time_and_ends_running_queued_and_waiting_runs() -> None:
    aq, calls = AgentQ("t"), Calls()
    word = Signal("word", str)

    @aq.task
    async def waits(ctx: Context) -> None:
        await ctx.wait_for(word)

    @aq.task(retry=Retry(max_attempts=9))
    async def runs(ctx: Context) -> None:
        calls.append("runs")
        await asyncio.Event().wait()

    async with lab(aq) as bench:
        waiting = await bench.finish(waits.options(deadline=HOUR).bind())
        assert waiting.state is RunState.FAILED
        soon = datetime.fromtimestamp(bench.clock.wall() + 0.02, tz=datetime.now().astimezone().tzinfo)
        running = await bench.finish(runs.options(deadline=soon).bind())
        assert (running.state, running.attempt) == (RunState.FAILED, 1)
        assert calls == ["runs"]
        queued = await bench.submit(runs.options(deadline=HOUR).bind())
        bench.clock.advance(3601)
        await bench.settle()
        late = await bench.run(queued)
        assert calls == ["runs"], "a run past its deadline runs no code"
        for run in (waiting, running, late):
            assert run.failure is not None
            assert "DeadlineExceeded" in run.failure.type
            assert "deadline" in run.failure.message


async def test_sync_code_is_stopped_by_the_timeout_too() -> None:
    aq = AgentQ("t")

    @aq.task(timeout=timedelta(milliseconds=20), retry=Retry(max_attempts=1))
    def task(ctx: SyncContext) -> None:
        while True:
            pass

    async with lab(aq) as bench:
        run = await bench.finish(task.bind())
        assert run.failure is not None
        assert run.failure.type.endswith("RunTimeout")


async def test_a_timeout_does_not_wait_for_the_body_and_takes_no_result_of_it() -> None:
    aq, gate = AgentQ("t"), Gate()

    @aq.step
    async def slow() -> str:
        await gate.wait()
        return "late"

    @aq.task(retry=Retry(max_attempts=1))
    async def task(ctx: Context) -> str:
        return await slow()

    async with lab(aq) as bench:
        run_id = await bench.submit(task.bind())
        work = asyncio.create_task(bench.once())
        await gate.reached()
        bench.stop(Stop.TIMEOUT, "used up its running time")
        gate.open()
        assert await work is End.FAILED
        assert await bench.journal(run_id) == []


async def test_a_timeout_in_a_worker_ends_the_run_and_leaves_the_others() -> None:
    aq, gate = AgentQ("t"), Gate()

    @aq.task(timeout=timedelta(milliseconds=50), retry=Retry(max_attempts=1))
    async def hangs(ctx: Context) -> None:
        await asyncio.Event().wait()

    @aq.task
    async def fine(ctx: Context) -> str:
        await gate.wait()
        return "fine"

    async with aq.using(store="memory:"), working(aq) as worker:
        other = await fine.enqueue()
        await gate.reached()
        with pytest.raises(RunFailed, match="RunTimeout"):
            await (await hangs.enqueue()).result(timeout=10)
        gate.open()
        assert await other.result(timeout=10) == "fine"
        await wait_until("slots are free", lambda: worker.status()["busy"] == 0)


async def test_attempts_are_burned_by_failures_alone() -> None:
    aq, calls = AgentQ("t"), Calls()

    @aq.step
    async def step() -> None:
        calls.append("step")
        if len(calls) == 1:
            bench.stop(Stop.DRAIN)
        elif len(calls) == 2:
            bench.stop(Stop.PAUSE)
        elif len(calls) == 3:
            await bench.die_here()
        elif len(calls) == 4:
            raise ValueError("a failure")

    @aq.task(retry=Retry(max_attempts=2))
    async def task(ctx: Context) -> int:
        for _ in range(3):
            await step()
        return ctx.attempt

    async with lab(aq) as bench:
        run = await bench.finish(task.bind())
        assert await bench.result(run.id) == 2
        assert [end for _, end in bench.ends] == [End.RELEASED, End.RELEASED, End.LOST, End.RETRYING, End.SUCCEEDED]
        assert bench.clock.wall() >= LEASE_S


async def test_attempts_of_the_submission_override_the_tasks_and_delays_follow_the_policy() -> None:
    aq, at = AgentQ("t"), Calls()

    @aq.task(retry=Retry(max_attempts=9, initial=timedelta(seconds=10), factor=3, jitter=0))
    async def task(ctx: Context) -> Any:
        at.append(bench.clock.wall())
        raise ValueError(f"attempt {ctx.attempt}")

    async with lab(aq) as bench:
        run = await bench.finish(task.options(max_attempts=3).bind())
        assert run.state is RunState.FAILED
        assert run.failure is not None
        assert run.failure.message == "attempt 3"
        assert [round(b - a) for a, b in itertools.pairwise(at)] == [10, 30]

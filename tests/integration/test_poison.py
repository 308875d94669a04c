"""Poison is judged by deaths alone and without journal progress: neighbours are never blamed, hand-backs never count."""

import asyncio

import pytest

from agentq import AgentQ, Context, Retry
from agentq.message import ClaimRequest, Requeue, RunState, Write
from agentq.poison import LOSSES
from agentq.worker.ends import End
from agentq.worker.ledger import Stop
from tests.helpers.lab import LEASE_S, Calls, Lab, lab

pytestmark = pytest.mark.usefixtures("each_store")


async def die(bench: Lab, run_id: str, times: int) -> None:
    """A worker claims the run, begins, and dies before anything is recorded."""
    for _ in range(times):
        claimed, _ = await bench.claim()
        [ref] = [live.ledger._lease.ref for live in claimed if live.row.id == run_id]
        await bench.store.write(Write(ref=ref, begins=True))
        bench.clock.advance(LEASE_S + 1)


async def test_a_first_death_without_progress_makes_a_run_suspect_and_only_dying_alone_counts() -> None:
    aq, calls = AgentQ("t"), Calls()

    @aq.task(retry=Retry(max_attempts=1))
    async def task(ctx: Context) -> None:
        calls.append("ran")

    async with lab(aq) as bench:
        run_id = await bench.submit(task.bind())
        await die(bench, run_id, 1)
        (live,), _ = await bench.claim()
        assert (live.row.suspect, live.row.deaths, live.row.takeovers) == (True, 0, 1)
        bench.clock.advance(LEASE_S + 1)
        await die(bench, run_id, LOSSES)
        (live,), _ = await bench.claim()
        assert (live.row.deaths, live.row.losses) == (0, LOSSES)
        assert await bench.work_on(live) is End.FAILED
        run = await bench.run(run_id)
        assert run.failure is not None
        assert (run.failure.type, run.attempt, calls) == ("Poisoned", 1, [])


async def test_progress_of_the_journal_clears_a_run() -> None:
    aq = AgentQ("t")

    @aq.step
    async def one(n: int) -> int:
        return n

    @aq.task
    async def progress(ctx: Context) -> int:
        for n in range(20):
            await one(n)
            if n == ctx.fence and ctx.fence < 8:
                await bench.die_here()
        return 1

    async with lab(aq) as bench:
        run = await bench.finish(progress.bind())
        assert await bench.result(run.id) == 1
        assert (run.takeovers, run.suspect, run.deaths, run.attempt) == (7, False, 0, 1)


async def test_hand_backs_never_make_a_run_suspect() -> None:
    aq = AgentQ("t")

    @aq.task
    async def task(ctx: Context) -> str:
        if ctx.fence < 10:
            bench.stop(Stop.DRAIN)
            await asyncio.Event().wait()
        return "done"

    async with lab(aq) as bench:
        run = await bench.finish(task.bind())
        assert await bench.result(run.id) == "done"
        assert (run.suspect, run.deaths, run.takeovers, run.attempt) == (False, 0, 0, 1)


async def test_neighbours_of_a_killer_are_suspects_once_and_then_cleared() -> None:
    aq, calls = AgentQ("t"), Calls()

    @aq.task
    async def task(ctx: Context, n: int) -> int:
        calls.append(n)
        return n

    async with lab(aq) as bench:
        ids = [await bench.submit(task.bind(n)) for n in range(3)]
        await bench.claim()
        bench.clock.advance(LEASE_S + 1)
        await bench.settle()
        assert sorted(calls) == [0, 1, 2]
        assert [(await bench.run(each)).deaths for each in ids] == [0, 0, 0]


async def test_suspects_are_only_handed_out_where_there_is_room_to_run_them_alone() -> None:
    aq = AgentQ("t")

    @aq.task
    async def task(ctx: Context) -> None: ...

    async with lab(aq) as bench:
        run_id = await bench.submit(task.bind())
        await die(bench, run_id, 1)
        request = ClaimRequest(
            worker="w", app="t", queues=aq.queues, tasks=tuple(aq.tasks), limit=5, lease_s=LEASE_S, suspects=False
        )
        assert (await bench.store.claim(request)).claims == ()
        await bench.settle()
        assert await bench.state(run_id) is RunState.SUCCEEDED


async def test_runs_retry_gives_a_poisoned_run_another_chance() -> None:
    aq = AgentQ("t")

    @aq.task
    async def task(ctx: Context) -> str:
        return "fixed"

    async with lab(aq) as bench:
        run_id = await bench.submit(task.bind())
        await die(bench, run_id, LOSSES + 1)
        await bench.settle()
        assert await bench.state(run_id) is RunState.FAILED
        await bench.command(Requeue(run_id=run_id))
        await bench.settle()
        assert await bench.result(run_id) == "fixed"

"""Starting over: `runs retry` tries again what failed, `runs fork` starts a new run from before a step."""

import pytest

from agentq import AgentQ, Context, Retry, StepFailed
from agentq.message import Fork, Reply, Requeue, RunState
from tests.helpers.lab import Calls, failing, lab

pytestmark = pytest.mark.usefixtures("each_store")

ONE = Retry(max_attempts=1)


async def test_retry_keeps_the_journal_and_does_only_what_escaped_again() -> None:
    aq, calls, body = AgentQ("t"), Calls(), failing(1)

    @aq.step
    async def fine(n: int) -> int:
        calls.append(n)
        return n

    @aq.step
    async def caught() -> None:
        calls.append("caught")
        raise ValueError("always")

    @aq.step
    async def flaky() -> int:
        return body()

    @aq.task(retry=ONE)
    async def task(ctx: Context) -> int:
        total = await fine(1)
        try:
            await caught()
        except StepFailed:
            total += 100
        return total + await flaky()

    async with lab(aq) as bench:
        run = await bench.finish(task.bind())
        assert run.state is RunState.FAILED
        assert await bench.command(Requeue(run_id=run.id)) is Reply.DONE
        await bench.settle()
        run = await bench.run(run.id)
        assert await bench.result(run.id) == 103
        assert calls == [1, "caught"]
        assert run.attempt == 1
        assert await bench.command(Requeue(run_id=run.id)) is Reply.REFUSED


async def test_retry_of_a_nested_failure_tries_the_inner_step_again_too() -> None:
    aq, body = AgentQ("t"), failing(1)

    @aq.step
    async def innermost() -> int:
        return body()

    @aq.step
    async def inner() -> int:
        return await innermost()

    @aq.step
    async def outer() -> int:
        return await inner()

    @aq.task(retry=ONE)
    async def task(ctx: Context) -> int:
        return await outer()

    async with lab(aq) as bench:
        run = await bench.finish(task.bind())
        assert run.state is RunState.FAILED
        await bench.command(Requeue(run_id=run.id))
        await bench.settle()
        assert await bench.result(run.id) == 2


async def test_retry_of_a_cancelled_run_goes_on_where_it_was() -> None:
    aq, calls = AgentQ("t"), Calls()

    @aq.step
    async def one() -> None:
        calls.append("one")

    @aq.task
    async def task(ctx: Context) -> str:
        await one()
        await ctx.sleep(3600)
        return "slept"

    async with lab(aq) as bench:
        run_id = await bench.submit(task.bind())
        await bench.once()
        await bench.handle(run_id).cancel()
        assert await bench.command(Requeue(run_id=run_id)) is Reply.DONE
        await bench.settle()
        assert await bench.result(run_id) == "slept"
        assert calls == ["one"]


async def test_fork_starts_a_new_run_with_the_journal_up_to_a_step() -> None:
    aq, calls = AgentQ("t"), Calls()

    @aq.step
    async def page(n: int) -> str:
        calls.append(n)
        return f"page {n} " + "x" * 100_000

    @aq.task
    async def task(ctx: Context) -> list[str]:
        return [(await page(n))[:6] for n in range(4)]

    async with lab(aq) as bench:
        run = await bench.finish(task.bind())
        calls.clear()
        assert await bench.command(Fork(run_id=run.id, new_id="forked-run", upto=2)) is Reply.DONE
        await bench.settle()
        assert await bench.result("forked-run") == ["page 0", "page 1", "page 2", "page 3"]
        assert calls == [2, 3]
        forked = await bench.run("forked-run")
        assert (forked.fork_of, forked.attempt) == (run.id, 1)
        assert [entry.seq for entry in await bench.journal("forked-run")] == [0, 1, 2, 3]
        assert (await bench.run(run.id)).state is RunState.SUCCEEDED


async def test_a_fork_in_the_middle_of_waits_and_snapshots_finds_them() -> None:
    aq, calls = AgentQ("t"), Calls()

    @aq.step
    async def work(n: int) -> int:
        calls.append(n)
        return n

    @aq.task
    async def task(ctx: Context) -> int:
        state = await ctx.restore(int, default=0)
        while state < 4:
            await work(state)
            state += 1
            await ctx.save(state)
            await ctx.sleep(60)
        return state

    async with lab(aq) as bench:
        run = await bench.finish(task.bind())
        journal = await bench.shape(run.id)
        calls.clear()
        upto = [kind for kind, _ in journal].index("saved", 4) + 1
        await bench.command(Fork(run_id=run.id, new_id="forked-run", upto=upto))
        await bench.settle()
        assert await bench.result("forked-run") == 4
        assert calls == [3], "a later snapshot is none of the fork's; what was recorded before is replayed"

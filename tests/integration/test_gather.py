"""Steps side by side: branches of ctx.gather by their place, tasks of the user's own by their arguments."""

import asyncio
from typing import Any

import pytest

from agentq import AgentQ, Context, Retry, StepFailed, current
from agentq.message import EntryKind, RunState
from agentq.worker.ends import End
from agentq.worker.ledger import Stop
from tests.helpers.lab import Calls, Gate, lab

pytestmark = pytest.mark.usefixtures("each_store")

ONE = Retry(max_attempts=1)


async def test_branches_finish_in_any_order_and_results_keep_theirs() -> None:
    aq, calls = AgentQ("t"), Calls()
    gates = [Gate(), Gate(), Gate()]

    @aq.step
    async def one(n: int) -> int:
        await gates[n].wait()
        calls.append(n)
        if calls == [2, 0]:
            await bench.die_here()
        return n

    @aq.task
    async def task(ctx: Context) -> list[int]:
        return await ctx.gather(*(one(n) for n in range(3)))

    async with lab(aq) as bench:
        run_id = await bench.submit(task.bind())
        working = asyncio.create_task(bench.once())
        for gate in gates:
            await gate.reached()
        gates[2].open()
        while not await bench.journal(run_id):
            await asyncio.sleep(0)
        gates[0].open()
        assert await working is End.LOST
        gates[1].open()
        await bench.settle()
        assert await bench.result(run_id) == [0, 1, 2]
        assert calls.count_of(2) == 1
        journal = await bench.journal(run_id)
        assert {entry.branch: entry.step for entry in journal} == {"/0.0": "one", "/0.1": "one", "/0.2": "one"}
        assert len(journal) == 3


async def test_a_branch_of_several_steps_and_a_gather_inside_a_branch_resume_where_they_were() -> None:
    aq, calls = AgentQ("t"), Calls()

    @aq.step
    async def add(a: int, b: int) -> int:
        calls.append((a, b))
        if len(calls) == 5:
            await bench.die_here()
        return a + b

    @aq.task
    async def task(ctx: Context) -> list[Any]:
        async def branch(n: int) -> int:
            total = await add(n, 1)
            return sum(await ctx.gather(add(total, 10), add(total, 10)))

        return await ctx.gather(branch(1), branch(2))

    async with lab(aq) as bench:
        run = await bench.finish(task.bind())
        assert await bench.result(run.id) == [24, 26]
        assert len(await bench.journal(run.id)) == 6
        assert len(calls) - 6 <= 4, "only bodies that were under way are repeated"


async def test_gather_keeps_to_its_limit() -> None:
    aq, most, now = AgentQ("t"), Calls(), Calls()

    @aq.step
    async def one(n: int) -> int:
        now.append(n)
        most.append(len(now))
        await asyncio.sleep(0)
        now.remove(n)
        return n

    @aq.task
    async def task(ctx: Context) -> list[int]:
        return await ctx.gather(*(one(n) for n in range(10)), limit=3)

    async with lab(aq) as bench:
        assert await bench.result((await bench.finish(task.bind())).id) == list(range(10))
        assert max(most) == 3


async def test_an_empty_gather_is_an_empty_list() -> None:
    aq = AgentQ("t")

    @aq.task
    async def task(ctx: Context) -> list[Any]:
        return await ctx.gather()

    async with lab(aq) as bench:
        assert await bench.result((await bench.finish(task.bind())).id) == []


async def test_when_a_branch_fails_the_others_are_cancelled_and_its_error_is_raised_live_and_replayed() -> None:
    aq, seen, gate = AgentQ("t"), Calls(), Gate()

    @aq.step
    async def hang() -> None:
        try:
            await gate.wait()
        except asyncio.CancelledError:
            seen.append("cancelled")
            raise

    @aq.step
    async def boom() -> None:
        raise ValueError("boom")

    @aq.step
    async def die_once() -> None:
        if seen.count_of("caught boom") == 1:
            await bench.die_here()

    @aq.task
    async def task(ctx: Context) -> str:
        try:
            await ctx.gather(hang(), boom())
        except StepFailed as error:
            seen.append(f"caught {error.message}")
        await die_once()
        return "end"

    async with lab(aq) as bench:
        run = await bench.finish(task.bind())
        assert run.state is RunState.SUCCEEDED
        assert seen.count_of("caught boom") == 2
        assert "cancelled" in seen


async def test_of_two_branches_that_fail_at_once_the_same_error_is_raised_when_replayed() -> None:
    aq, seen = AgentQ("t"), Calls()
    together = asyncio.Event()

    @aq.step
    async def boom(n: int) -> None:
        if n == 3:
            together.set()
        await together.wait()
        raise ValueError(f"boom {n}")

    @aq.step
    async def die_once() -> None:
        if len(seen) == 1:
            await bench.die_here()

    @aq.task
    async def task(ctx: Context) -> None:
        try:
            await ctx.gather(*(boom(n) for n in range(4)))
        except StepFailed as error:
            seen.append(error.message)
        await die_once()

    async with lab(aq) as bench:
        await bench.finish(task.bind())
        assert len(seen) == 2
        assert seen[0] == seen[1]


async def test_a_branch_that_is_cancelled_by_its_own_code_is_not_a_result() -> None:
    aq = AgentQ("t")

    @aq.task(retry=ONE)
    async def task(ctx: Context) -> list[Any]:
        async def odd() -> int:
            future = asyncio.get_running_loop().create_future()
            future.cancel()
            return await future  # type: ignore[no-any-return]

        async def fine() -> int:
            return 1

        return await ctx.gather(odd(), fine())

    async with lab(aq) as bench:
        run = await bench.finish(task.bind())
        assert run.state is RunState.FAILED
        assert run.failure is not None
        assert "cancelled by its own code" in run.failure.message


@pytest.mark.parametrize("how", ["gather", "task group", "create_task"])
async def test_foreign_tasks_are_told_apart_by_their_arguments(how: str) -> None:
    aq, calls = AgentQ("t"), Calls()
    order = [0, 1, 2, 3]

    @aq.step
    async def tool(n: int) -> int:
        calls.append(n)
        if n == 2 and current().fence == 1:
            while len(await bench.journal(current().run_id)) < 2:
                await asyncio.sleep(0)
            await bench.die_here()
        if n == 3 and current().fence == 1:
            await asyncio.get_running_loop().create_future()
        return n * n

    @aq.task
    async def task(ctx: Context) -> list[int]:
        if how == "gather":
            found = await asyncio.gather(*(tool(n) for n in order))
        elif how == "task group":
            async with asyncio.TaskGroup() as group:
                tasks = [group.create_task(tool(n)) for n in order]
            found = [each.result() for each in tasks]
        else:
            tasks = [asyncio.create_task(tool(n)) for n in order]
            found = [await each for each in tasks]
        return sorted(found)

    async with lab(aq) as bench:
        run_id = await bench.submit(task.bind())
        assert await bench.once() is End.LOST
        order.reverse()
        await bench.settle()
        assert await bench.result(run_id) == [0, 1, 4, 9]
        journal = await bench.journal(run_id)
        assert len(journal) == len({entry.branch for entry in journal}) == 4
        assert calls.count_of(0) == calls.count_of(1) == 1, "what was recorded before the death is not done again"


async def test_equal_calls_of_foreign_tasks_are_counted() -> None:
    aq, calls = AgentQ("t"), Calls()

    @aq.step
    async def tool(n: int) -> int:
        calls.append(n)
        return len(calls)

    @aq.task
    async def task(ctx: Context) -> list[int]:
        return list(await asyncio.gather(tool(1), tool(1), tool(1)))

    async with lab(aq) as bench:
        run = await bench.finish(task.bind())
        assert sorted(await bench.result(run.id)) == [1, 2, 3]
        assert [entry.occurrence for entry in await bench.journal(run.id)] == [0, 1, 2]


async def test_return_exceptions_sees_step_failures_and_the_run_goes_on() -> None:
    aq = AgentQ("t")

    @aq.step
    async def tool(n: int) -> int:
        if n:
            raise ValueError(n)
        return n

    @aq.task(retry=ONE)
    async def task(ctx: Context) -> list[str]:
        return [str(type(each).__name__) for each in await asyncio.gather(tool(0), tool(1), return_exceptions=True)]

    async with lab(aq) as bench:
        assert await bench.result((await bench.finish(task.bind())).id) == ["int", "StepFailed"]


@pytest.mark.parametrize("how", ["gather", "asyncio.gather", "task group"])
async def test_a_drain_in_the_middle_of_a_gather_lets_bodies_end_and_begins_no_more(how: str) -> None:
    aq, gate, calls = AgentQ("t"), Gate(), Calls()

    @aq.step
    async def first(n: int) -> int:
        await gate.wait()
        calls.append(("first", n))
        return n

    @aq.step
    async def second(n: int) -> int:
        calls.append(("second", n))
        return n

    @aq.task
    async def task(ctx: Context) -> int:
        async def branch(n: int) -> int:
            return await second(await first(n))

        if how == "gather":
            return sum(await ctx.gather(branch(1), branch(2)))
        if how == "asyncio.gather":
            return sum(await asyncio.gather(branch(1), branch(2)))
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(branch(1)), group.create_task(branch(2))]
        return sum(each.result() for each in tasks)

    async with lab(aq) as bench:
        run_id = await bench.submit(task.bind())
        working = asyncio.create_task(bench.once())
        while gate.arrivals < 2:
            await asyncio.sleep(0)
        bench.stop(Stop.DRAIN)
        gate.open()
        assert await working is End.RELEASED
        assert sorted(calls) == [("first", 1), ("first", 2)]
        await bench.settle()
        assert await bench.result(run_id) == 3
        assert sorted(calls) == [("first", 1), ("first", 2), ("second", 1), ("second", 2)]
        assert (await bench.run(run_id)).attempt == 1


async def test_a_task_of_the_users_own_that_outlives_the_run_can_do_nothing_in_its_name() -> None:
    aq, gate, calls, left = AgentQ("t"), Gate(), Calls(), Calls()

    @aq.step
    async def late() -> None:
        calls.append("late")

    @aq.task
    async def task(ctx: Context) -> str:
        async def forgotten() -> None:
            await gate.wait()
            await late()
            calls.append("went on")

        left.append(asyncio.create_task(forgotten()))
        await asyncio.sleep(0)
        return "done"

    async with lab(aq) as bench:
        run = await bench.finish(task.bind())
        assert run.state is RunState.SUCCEEDED
        gate.open()
        await asyncio.wait(left)
        assert calls == []
        assert left[0].cancelled()
        assert await bench.names(run.id, EntryKind.DONE) == []


async def test_coroutines_that_were_never_started_are_closed() -> None:
    aq = AgentQ("t")

    @aq.step
    async def boom() -> None:
        raise ValueError("boom")

    @aq.step
    async def never() -> None: ...

    @aq.task(retry=ONE)
    async def task(ctx: Context) -> None:
        await ctx.gather(boom(), never(), never(), limit=1)

    async with lab(aq) as bench:
        run = await bench.finish(task.bind())
        assert run.state is RunState.FAILED
        assert await bench.shape(run.id) == [("failed", "boom")]

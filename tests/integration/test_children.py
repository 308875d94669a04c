"""Child runs: results, failures, limits, firsts, cancellation that reaches them, and replays that decide the same."""

import asyncio
from datetime import timedelta
from typing import Any

import pytest

from agentq import AgentQ, ChildFailed, Context, Outcome, PermanentError, Retry, Signal, SyncContext, current
from agentq.message import Cancel, Reply, Requeue, RunQuery, RunState
from agentq.testing.wait import wait_until
from agentq.worker.ends import End
from tests.helpers.lab import Calls, Lab, lab

pytestmark = pytest.mark.usefixtures("each_store")

ONE = Retry(max_attempts=1)
TWICE = Retry(max_attempts=2, initial=timedelta(seconds=1))
GO = Signal("go", str)


async def children(bench: Lab, parent_id: str) -> list[Any]:
    found = await bench.store.runs(RunQuery(parent_id=parent_id, limit=100))
    return sorted(found, key=lambda run: run.args)


async def test_a_child_runs_once_and_its_result_comes_back_typed() -> None:
    aq, calls = AgentQ("t"), Calls()

    @aq.task
    async def double(ctx: Context, n: int) -> int:
        calls.append(n)
        return n * 2

    @aq.step
    async def die_once() -> None:
        if "dead" not in calls:
            calls.append("dead")
            await bench.die_here()

    @aq.task
    async def parent(ctx: Context) -> list[int]:
        first = await ctx.call(double, 4)
        await die_once()
        return [first, await ctx.call(double, n=5)]

    async with lab(aq) as bench:
        run_id = await bench.submit(parent.bind())
        assert await bench.once() is End.SUSPENDED, "a parent that waits for its child needs no slot"
        (child,) = await children(bench, run_id)
        assert (child.parent_id, child.root_id, child.state) == (run_id, run_id, RunState.QUEUED)
        await bench.settle()
        assert await bench.result(run_id) == [8, 10]
        assert calls == [4, "dead", 5]
        assert len(await children(bench, run_id)) == 2


async def test_grandchildren_have_the_same_root_and_inherit_the_tenant() -> None:
    aq = AgentQ("t")

    @aq.task
    async def leaf(ctx: Context) -> str:
        return f"{ctx.tenant}"

    @aq.task
    async def middle(ctx: Context) -> str:
        return await ctx.call(leaf)

    @aq.task
    async def top(ctx: Context) -> str:
        return await ctx.call(middle)

    async with lab(aq) as bench:
        run = await bench.finish(top.options(tenant="acme").bind())
        assert await bench.result(run.id) == "acme"
        everyone = await bench.store.runs(RunQuery())
        assert {each.root_id for each in everyone if each.id != run.id} == {run.id}


async def test_a_failed_child_raises_child_failed_and_says_why() -> None:
    aq = AgentQ("t")

    @aq.task(retry=ONE)
    async def bad(ctx: Context) -> None:
        raise ValueError("broken child")

    @aq.task(retry=ONE)
    async def parent(ctx: Context) -> str:
        try:
            await ctx.call(bad)
        except ChildFailed as error:
            return f"{error.task}: {error.failure.type}: {error.failure.message}"
        return "no"

    async with lab(aq) as bench:
        run = await bench.finish(parent.bind())
        assert await bench.result(run.id) == "bad: ValueError: broken child"


async def test_call_many_keeps_order_and_starts_no_more_than_its_limit() -> None:
    aq, starts = AgentQ("t"), Calls()

    @aq.task
    async def work(ctx: Context, n: int) -> int:
        starts.append(n)
        await ctx.sleep(10 - n)
        return n

    @aq.task
    async def parent(ctx: Context) -> list[Any]:
        return [outcome.unwrap() for outcome in await ctx.call_many([work.bind(n) for n in range(6)], limit=2)]

    async with lab(aq) as bench:
        run_id = await bench.submit(parent.bind())
        assert await bench.once() is End.SUSPENDED
        assert len(await children(bench, run_id)) == 2
        most = 0
        while not (await bench.run(run_id)).state.final:
            runs, due = await bench.claim(limit=1)
            if runs:
                await bench.work_on(runs[0])
            else:
                assert due is not None
                bench.clock.advance(due + 0.001)
            open_children = [child for child in await children(bench, run_id) if not child.state.final]
            most = max(most, len(open_children))
        assert await bench.result(run_id) == list(range(6))
        assert most == 2


async def test_call_many_tolerates_so_many_failures_and_no_more() -> None:
    aq = AgentQ("t")

    @aq.task(retry=ONE)
    async def work(ctx: Context, n: int) -> int:
        if n % 2:
            raise ValueError(f"odd {n}")
        return n

    @aq.task(retry=ONE)
    async def parent(ctx: Context, tolerate: int) -> list[str]:
        outcomes = await ctx.call_many([work.bind(n) for n in range(4)], tolerate=tolerate)
        return [str(outcome.value) if outcome.failure is None else outcome.failure.type for outcome in outcomes]

    async with lab(aq) as bench:
        run = await bench.finish(parent.bind(2))
        assert await bench.result(run.id) == ["0", "ValueError", "2", "ValueError"]
        run = await bench.finish(parent.bind(1))
        assert run.state is RunState.FAILED
        assert run.failure is not None
        assert "odd" in run.failure.message


@pytest.mark.parametrize("first", [1, 2])
async def test_first_of_many_cancels_the_rest_and_replays_the_same(first: int) -> None:
    aq, seen = AgentQ("t"), Calls()

    @aq.task
    async def work(ctx: Context, n: int) -> int:
        if n > 2:
            await ctx.sleep(timedelta(hours=n))
        return n

    @aq.step
    async def die_once() -> None:
        if len(seen) == 1:
            await bench.die_here()

    @aq.task
    async def parent(ctx: Context) -> list[Any]:
        outcomes = await ctx.call_many([work.bind(n) for n in range(5)], first=first)
        seen.append([(outcome.value, outcome.ok, outcome.run_id) for outcome in outcomes])
        await die_once()
        return [outcome.value for outcome in outcomes]

    async with lab(aq) as bench:
        run = await bench.finish(parent.bind())
        assert run.state is RunState.SUCCEEDED
        live, replayed = seen
        assert live == replayed, "though three children were done at once, the same are taken"
        assert sum(ok for _, ok, _ in live) == first
        assert {child.state for child in await children(bench, run.id)} == {RunState.SUCCEEDED, RunState.CANCELLED}


async def test_children_not_needed_are_cancelled_though_the_parents_worker_died_before_it_could_say_so() -> None:
    aq, crash = AgentQ("t"), [True]

    @aq.task
    async def work(ctx: Context, n: int) -> int:
        if n:
            await ctx.wait_for(GO)
        return n

    @aq.task
    async def parent(ctx: Context) -> int:
        outcomes = await ctx.call_many([work.bind(n) for n in range(2)], first=1)
        await ctx.sleep(timedelta(hours=1))
        return sum(outcome.ok for outcome in outcomes)

    async with lab(aq) as bench:
        run_id = await bench.submit(parent.bind())
        real = bench.store.write

        async def write(write: Any) -> Any:
            verdict = await real(write)
            if crash[0] and write.ref.run_id == run_id and write.entries:
                crash[0] = False
                bench.kill(run_id)
            return verdict

        bench.store.write = write  # type: ignore[method-assign]
        await bench.settle(rounds=30)
        assert not crash[0]
        assert await bench.result(run_id) == 1
        first, second = await children(bench, run_id)
        assert (first.state, second.state) == (RunState.SUCCEEDED, RunState.CANCELLED)
        assert await bench.store.waits(run_id) == []


async def test_a_child_cancelled_with_its_sibling_is_started_anew_when_the_run_tries_again() -> None:
    aq, calls = AgentQ("t"), Calls()

    @aq.task
    async def slow(ctx: Context) -> str:
        await ctx.sleep(timedelta(hours=1))
        return "slow"

    @aq.step
    async def flaky() -> str:
        calls.append("flaky")
        if len(calls) == 1:
            while not await bench.store.waits(current().run_id):
                await asyncio.sleep(0)
            raise ValueError("once")
        return "fine"

    @aq.task(retry=TWICE)
    async def parent(ctx: Context) -> list[str]:
        return await ctx.gather(ctx.call(slow), flaky())

    async with lab(aq) as bench:
        run = await bench.finish(parent.bind())
        assert await bench.result(run.id) == ["slow", "fine"]
        assert sorted(child.state for child in await children(bench, run.id)) == ["cancelled", "succeeded"]


async def test_a_childs_failure_that_escaped_is_tried_again_with_the_next_attempt() -> None:
    aq, calls = AgentQ("t"), Calls()

    @aq.task(retry=ONE)
    async def child(ctx: Context) -> str:
        calls.append("child")
        if len(calls) == 1:
            raise ValueError("once")
        return "fine"

    @aq.task(retry=TWICE)
    async def parent(ctx: Context) -> str:
        return await ctx.call(child)

    async with lab(aq) as bench:
        run = await bench.finish(parent.bind())
        assert await bench.result(run.id) == "fine"
        assert run.attempt == 2


async def test_runs_retry_tries_a_failed_child_again() -> None:
    aq, calls = AgentQ("t"), Calls()

    @aq.task(retry=ONE)
    async def child(ctx: Context) -> str:
        calls.append("child")
        if len(calls) == 1:
            raise PermanentError("once")
        return "fine"

    @aq.task(retry=ONE)
    async def parent(ctx: Context) -> str:
        return await ctx.call(child)

    async with lab(aq) as bench:
        run = await bench.finish(parent.bind())
        assert run.state is RunState.FAILED
        assert await bench.command(Requeue(run_id=run.id)) is Reply.DONE
        await bench.settle()
        assert await bench.result(run.id) == "fine"


async def test_a_childs_failure_that_was_caught_replays_as_it_was() -> None:
    aq, seen, calls = AgentQ("t"), Calls(), Calls()

    @aq.task(retry=ONE)
    async def child(ctx: Context) -> str:
        calls.append("child")
        raise ValueError("always")

    @aq.step
    async def flaky() -> str:
        if len(seen) == 1:
            raise ConnectionError("once")
        return "end"

    @aq.task(retry=TWICE)
    async def parent(ctx: Context) -> str:
        try:
            await ctx.call(child)
        except ChildFailed as error:
            seen.append((error.run_id, error.failure.message))
        return await flaky()

    async with lab(aq) as bench:
        run = await bench.finish(parent.bind())
        assert await bench.result(run.id) == "end"
        assert calls == ["child"]
        assert seen[0] == seen[1]


async def test_cancel_reaches_the_whole_subtree_running_waiting_and_queued() -> None:
    aq, started = AgentQ("t"), Calls()

    @aq.step
    async def hang() -> None:
        started.append(1)
        await asyncio.Event().wait()

    @aq.task
    async def runs(ctx: Context) -> None:
        await hang()

    @aq.task
    async def waits(ctx: Context) -> None:
        await ctx.call(leaf)

    @aq.task
    async def leaf(ctx: Context) -> None:
        await ctx.wait_for(GO)

    @aq.task
    async def parent(ctx: Context) -> None:
        await ctx.call_many([runs.bind(), waits.bind()])

    async with lab(aq) as bench:
        run_id = await bench.submit(parent.bind())
        await bench.once()
        claimed, _ = await bench.claim()
        work = [asyncio.create_task(bench.work_on(live)) for live in claimed]
        await wait_until("the child hangs", lambda: started)
        await wait_until("the other waits", lambda: work[1].done() or work[0].done())
        while (later := await bench.claim())[0]:
            for live in later[0]:
                await bench.work_on(live)
        assert await bench.command(Cancel(run_id=run_id)) is Reply.DONE
        states = {run.task: (run.state, run.cancelling) for run in await bench.store.runs(RunQuery())}
        assert states == {
            "parent": (RunState.CANCELLED, False), "waits": (RunState.CANCELLED, False), "leaf": (RunState.CANCELLED, False),
            "runs": (RunState.RUNNING, True),
        }  # fmt: skip
        for live in list(bench.live.values()):
            from agentq.worker.ledger import Stop  # noqa: PLC0415

            live.stop(Stop.CANCEL, "cancelled")
        assert sorted(await asyncio.gather(*work)) == [End.CANCELLED, End.SUSPENDED]
        assert {run.state for run in await bench.store.runs(RunQuery())} == {RunState.CANCELLED}


async def test_a_child_is_not_inserted_after_the_cancel_flag() -> None:
    aq = AgentQ("t")

    @aq.task
    async def child(ctx: Context) -> None: ...

    @aq.step
    async def cancelled_meanwhile(run_id: str) -> None:
        await bench.command(Cancel(run_id=run_id))

    @aq.task
    async def parent(ctx: Context) -> None:
        await cancelled_meanwhile(ctx.run_id)
        await ctx.call(child)

    async with lab(aq) as bench:
        run_id = await bench.submit(parent.bind())
        assert await bench.once() is End.CANCELLED
        assert await bench.state(run_id) is RunState.CANCELLED
        assert await children(bench, run_id) == []


async def test_a_cancelled_child_is_a_failed_call_for_its_parent() -> None:
    aq = AgentQ("t")

    @aq.task
    async def child(ctx: Context) -> None:
        await ctx.wait_for(GO)

    @aq.task(retry=ONE)
    async def parent(ctx: Context) -> list[str]:
        (outcome,) = await ctx.call_many([child.bind()], tolerate=1)
        assert isinstance(outcome, Outcome)
        with pytest.raises(ChildFailed):
            outcome.unwrap()
        assert outcome.failure is not None
        return [outcome.failure.type]

    async with lab(aq) as bench:
        run_id = await bench.submit(parent.bind())
        await bench.settle()
        (run,) = await children(bench, run_id)
        await bench.command(Cancel(run_id=run.id))
        await bench.settle()
        assert await bench.result(run_id) == ["Cancelled"]


async def test_a_timeout_of_the_users_own_around_a_call_cancels_the_child() -> None:
    aq, out = AgentQ("t"), asyncio.Event()

    @aq.task
    async def child(ctx: Context) -> None:
        await ctx.wait_for(GO)

    @aq.step
    async def until_then() -> None:
        await out.wait()

    @aq.task(retry=ONE)
    async def parent(ctx: Context) -> str:
        async def impatient() -> str:
            try:
                async with asyncio.timeout(0.01):
                    await ctx.call(child)
            except TimeoutError:
                out.set()
                return "gave up"
            return "never"

        return str((await ctx.gather(impatient(), until_then()))[0])

    async with lab(aq) as bench:
        run_id = await bench.submit(parent.bind())
        assert await bench.once() is End.SUCCEEDED
        assert [run.state for run in await children(bench, run_id)] == [RunState.CANCELLED]


async def test_tokens_and_money_of_children_count_with_their_parent() -> None:
    aq = AgentQ("t")

    @aq.task
    async def child(ctx: Context) -> None:
        await ctx.spend(tokens=100, cost_usd="0.25")

    @aq.task
    async def parent(ctx: Context) -> None:
        await ctx.spend(tokens=1)
        await ctx.call_many([child.bind(), child.bind()])

    async with lab(aq) as bench:
        run = await bench.finish(parent.bind())
        status = await bench.handle(run.id).status()
        assert (status.tokens, str(status.cost_usd)) == (201, "0.5")


async def test_an_enqueue_inside_a_run_is_done_once_and_is_no_child() -> None:
    aq, calls = AgentQ("t"), Calls()

    @aq.task
    async def other(ctx: Context, n: int) -> None:
        calls.append(n)

    @aq.step
    async def die_once() -> None:
        if "dead" not in calls:
            calls.append("dead")
            await bench.die_here()

    @aq.task
    async def parent(ctx: Context) -> list[str]:
        handle = await other.enqueue(1)
        more = await aq.enqueue_many([other.bind(2), other.options(key="k").bind(3)])
        await die_once()
        return [handle.id, *(each.id for each in more)]

    async with lab(aq) as bench:
        run = await bench.finish(parent.bind())
        ids = await bench.result(run.id)
        assert len(set(ids)) == 3
        assert sorted(each for each in calls if each != "dead") == [1, 2, 3]
        found = await bench.store.runs(RunQuery(ids=tuple(ids)))
        assert {each.parent_id for each in found} == {None}
        assert len(await bench.store.runs(RunQuery())) == 4


async def test_an_enqueue_whose_journal_entry_was_lost_makes_no_second_run() -> None:
    aq, calls = AgentQ("t"), Calls()

    @aq.task
    async def other(ctx: Context) -> None:
        calls.append("other")

    @aq.task
    async def parent(ctx: Context) -> str:
        return (await other.enqueue()).id

    async with lab(aq) as bench:
        real, crash = bench.store.write, [True]

        async def write(write: Any) -> Any:
            if crash[0] and write.entries:
                crash[0] = False
                bench.kill()
                await asyncio.get_running_loop().create_future()
            return await real(write)

        bench.store.write = write  # type: ignore[method-assign]
        run = await bench.finish(parent.bind())
        assert run.state is RunState.SUCCEEDED
        assert not crash[0]
        assert calls == ["other"]


async def test_sync_tasks_call_children_too() -> None:
    aq = AgentQ("t")

    @aq.task
    async def double(ctx: Context, n: int) -> int:
        return n * 2

    @aq.task
    def parent(ctx: SyncContext) -> list[int]:
        one = ctx.call(double, 1)
        return [one, *(outcome.unwrap() for outcome in ctx.call_many([double.bind(2), double.bind(3)]))]

    async with lab(aq) as bench:
        run = await bench.finish(parent.bind())
        assert await bench.result(run.id) == [2, 4, 6]

"""Code that changed under a run: it is told what changed and what to do, or the declared policy is followed."""

from typing import Any, Literal

import pytest

from agentq import AgentQ, Context, Retry
from agentq.message import RunState
from tests.helpers.lab import Calls, lab, told

pytestmark = pytest.mark.usefixtures("each_store")


def app(on_mismatch: Literal["error", "rerun", "ignore"], version: str | None = None) -> tuple[AgentQ, Any, list[int], Calls]:
    aq, argument, calls = AgentQ("t"), [1], Calls()

    @aq.step
    async def work(n: int) -> int:
        calls.append(n)
        return n * 10

    @aq.step
    async def die(times: int) -> None:
        if calls.count_of("dead") < times:
            calls.append("dead")
            argument[0] = 2
            await current_bench[0].die_here()

    @aq.task(on_mismatch=on_mismatch, version=version, retry=Retry(max_attempts=3))
    async def task(ctx: Context) -> int:
        found = await work(argument[0])
        await die(2)
        return found

    return aq, task, argument, calls


current_bench: list[Any] = [None]


async def test_by_default_the_run_fails_and_says_what_changed_and_what_to_do() -> None:
    aq, task, _, calls = app("error", "v1")
    async with lab(aq) as bench, told() as events:
        current_bench[0] = bench
        run = await bench.finish(task.bind())
        assert (run.state, run.attempt) == (RunState.FAILED, 1)
        assert run.failure is not None
        assert run.failure.type.endswith("JournalMismatch")
        for words in ("'work'", "entry 0", "agentq runs fork RUN --keep 0", "on_mismatch="):
            assert words in run.failure.message
        assert run.version == "v1"
        assert calls == [1, "dead"]
        assert [fields["step"] for event, fields in events if event == "journal.mismatch"] == ["work"]


async def test_the_versions_are_named_when_they_differ() -> None:
    aq, task, _, _ = app("error", "v1")
    async with lab(aq) as bench:
        current_bench[0] = bench
        run_id = await bench.submit(task.bind())
        await bench.once()
        newer, changed, argument, _ = app("error", "v2")
        argument[0] = 2
        bench.app = newer
        bench.app.tasks[changed.name] = changed
        await bench.settle()
        run = await bench.run(run_id)
        assert run.failure is not None
        assert "'v1'" in run.failure.message
        assert "'v2'" in run.failure.message


async def test_ignore_takes_the_recorded_value() -> None:
    aq, task, _, calls = app("ignore")
    async with lab(aq) as bench:
        current_bench[0] = bench
        run = await bench.finish(task.bind())
        assert await bench.result(run.id) == 10
        assert calls == [1, "dead", "dead"]


async def test_rerun_does_it_again_once_and_keeps_the_old_entry_beside() -> None:
    aq, task, _, calls = app("rerun")
    async with lab(aq) as bench:
        current_bench[0] = bench
        run = await bench.finish(task.bind())
        assert await bench.result(run.id) == 20
        assert calls == [1, "dead", 2, "dead"]
        journal = [entry for entry in await bench.journal(run.id) if entry.step == "work"]
        assert [(entry.seq, entry.attempt, entry.value) for entry in journal] == [(0, 1, b"10"), (1, 2, b"20")]


async def test_a_recorded_value_that_no_longer_fits_its_annotation_says_so() -> None:
    aq, dead = AgentQ("t"), Calls()
    returns: list[Any] = [int]

    @aq.step
    async def die_once() -> None:
        if not dead:
            dead.append(1)
            await bench.die_here()

    @aq.task(retry=Retry(max_attempts=1))
    async def task(ctx: Context) -> None:
        await ctx.step("make", lambda: 1, returns=returns[0])
        returns[0] = list
        await die_once()

    async with lab(aq) as bench:
        run = await bench.finish(task.bind())
        assert run.failure is not None
        assert run.failure.type.endswith("JournalMismatch")
        assert "no longer fits" in run.failure.message


async def test_new_steps_after_the_recorded_ones_are_simply_done() -> None:
    aq, calls = AgentQ("t"), Calls()

    @aq.step
    async def old() -> int:
        return 1

    @aq.step
    async def new() -> int:
        calls.append("new")
        return 2

    @aq.step
    async def die_once() -> None:
        if "dead" not in calls:
            calls.append("dead")
            await bench.die_here()

    @aq.task
    async def task(ctx: Context) -> int:
        total = await old()
        if "dead" in calls:
            total += await new()
        await die_once()
        return total

    async with lab(aq) as bench:
        run = await bench.finish(task.bind())
        assert await bench.result(run.id) == 3


@pytest.mark.parametrize("policy", ["error", "ignore"])
async def test_a_steps_own_policy_overrides_the_tasks(policy: Any) -> None:
    aq, argument, dead = AgentQ("t"), [1], Calls()

    @aq.step(on_mismatch=policy)
    async def work(n: int) -> int:
        return n

    @aq.step
    async def die_once() -> None:
        if not dead:
            dead.append(1)
            argument[0] = 2
            await bench.die_here()

    @aq.task(on_mismatch="rerun", retry=Retry(max_attempts=1))
    async def task(ctx: Context) -> int:
        value = await work(argument[0])
        await die_once()
        return value

    async with lab(aq) as bench:
        run = await bench.finish(task.bind())
        assert run.state is (RunState.FAILED if policy == "error" else RunState.SUCCEEDED)


async def test_another_step_in_the_place_of_a_recorded_one_is_a_mismatch() -> None:
    aq, calls = AgentQ("t"), Calls()
    first = [True]

    @aq.step
    async def one(n: int) -> int:
        calls.append("one")
        return n

    @aq.step
    async def two(n: int) -> int:
        calls.append("two")
        return n

    @aq.task(retry=Retry(max_attempts=1))
    async def task(ctx: Context) -> int:
        got = await (one(1) if first[0] else two(1))
        await ctx.sleep(60)
        return got

    async with lab(aq) as bench:
        run_id = await bench.submit(task.bind())
        await bench.once()
        first[0] = False
        await bench.settle()
        run = await bench.run(run_id)
        assert run.failure is not None
        assert run.failure.type == "agentq.errors.JournalMismatch"
        assert "'two'" in run.failure.message
        assert "1 recorded entry" in run.failure.message or "2 recorded entries" in run.failure.message
        assert calls == ["one"]

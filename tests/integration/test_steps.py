"""Steps are done once: replay, retries, failures that were caught, failures that escaped, effects and identities."""

import asyncio
import contextlib
from datetime import timedelta
from typing import Any

import msgspec
import pytest

from agentq import AgentQ, Context, PermanentError, Retry, RunFailed, StepFailed, TemporaryError, current
from agentq.errors import DeclarationError, StepTimeout
from agentq.message import EntryKind, RunState
from agentq.worker.ends import End
from agentq.worker.ledger import Stop
from tests.helpers.lab import Calls, Doubtful, Gate, failing, lab

pytestmark = pytest.mark.usefixtures("each_store")

TWICE = Retry(max_attempts=2, initial=timedelta(seconds=1))


class Point(msgspec.Struct):
    x: int
    when: tuple[int, ...] = ()


async def test_a_step_that_is_recorded_is_not_done_again_after_the_worker_died() -> None:
    aq, done = AgentQ("t"), Calls()

    @aq.step
    async def one(n: int) -> int:
        done.append(n)
        return n * 10

    @aq.step
    async def dies() -> str:
        done.append("dies")
        if done.count_of("dies") == 1:
            await bench.die_here()
        return "lived"

    @aq.task
    async def task(ctx: Context) -> list[Any]:
        return [await one(1), await one(2), await dies(), await one(3)]

    async with lab(aq) as bench:
        run = await bench.finish(task.bind())
        assert await bench.result(run.id) == [10, 20, "lived", 30]
        assert done == [1, 2, "dies", "dies", 3]
        assert await bench.names(run.id) == ["one", "one", "dies", "one"]
        assert (run.attempt, run.takeovers) == (1, 1)
        assert [entry.seq for entry in await bench.journal(run.id)] == [0, 1, 2, 3]


async def test_the_first_execution_returns_what_a_replay_returns() -> None:
    aq, seen = AgentQ("t"), Calls()

    @aq.step
    async def make() -> Point:
        return Point(1, (1, 2))

    @aq.step
    async def plain() -> Any:
        return {"a": (1, 2)}

    @aq.step
    async def boom() -> int:
        raise LookupError("gone")

    @aq.step
    async def die_once() -> None:
        if len(seen) == 1:
            await bench.die_here()

    @aq.task
    async def task(ctx: Context) -> None:
        values = [await make(), await plain()]
        try:
            await boom()
        except StepFailed as error:
            values.append((type(error), error.type, error.message, error.step))
        seen.append(values)
        await die_once()

    async with lab(aq) as bench:
        await bench.finish(task.bind())
    live, replayed = seen
    assert live == replayed == [Point(1, (1, 2)), {"a": [1, 2]}, (StepFailed, "LookupError", "gone", "boom")]
    assert type(live[0]) is Point


async def test_tries_are_counted_across_takeovers_and_the_policy_holds() -> None:
    aq, tries = AgentQ("t"), Calls()

    @aq.step(retry=Retry(max_attempts=3))
    async def flaky() -> str:
        tries.append(current().step_attempt)
        if len(tries) == 2:
            await bench.die_here()
        raise ValueError("no")

    @aq.task(retry=Retry(max_attempts=1))
    async def task(ctx: Context) -> str:
        return await flaky()

    async with lab(aq) as bench:
        run = await bench.finish(task.bind())
        assert run.state is RunState.FAILED
        assert tries == [1, 2, 2, 3]
        assert await bench.shape(run.id) == [("tried", "flaky"), ("tried", "flaky"), ("failed", "flaky")]
        assert run.failure is not None
        assert (run.failure.step, run.failure.seq) == ("flaky", 2)


async def test_a_failure_that_escaped_is_superseded_by_the_next_attempt_and_one_that_was_caught_is_not() -> None:
    aq, calls = AgentQ("t"), Calls()

    @aq.step
    async def optional() -> str:
        calls.append("optional")
        raise ValueError("always caught")

    @aq.step
    async def needed() -> str:
        calls.append("needed")
        if calls.count_of("needed") == 1:
            raise ConnectionError("once")
        return "ok"

    @aq.task(retry=TWICE)
    async def task(ctx: Context) -> str:
        try:
            await optional()
        except StepFailed:
            calls.append("caught")
        return await needed()

    async with lab(aq) as bench:
        run = await bench.finish(task.bind())
        assert await bench.result(run.id) == "ok"
        assert calls == ["optional", "caught", "needed", "caught", "needed"]
        assert await bench.shape(run.id) == [
            ("failed", "optional"), ("failed", "needed"), ("superseded", "needed"), ("done", "needed"),
        ]  # fmt: skip
        assert run.attempt == 2


async def test_a_failure_that_was_caught_stays_caught_though_its_fallback_fails_inside_the_except_block() -> None:
    aq, calls = AgentQ("t"), Calls()

    @aq.step
    async def first() -> str:
        calls.append("first")
        if calls.count_of("first") > 1:
            return "changed its mind"
        raise ValueError("first")

    @aq.step
    async def fallback() -> str:
        calls.append("fallback")
        if calls.count_of("fallback") == 1:
            raise ConnectionError("fallback")
        return "from the fallback"

    @aq.task(retry=TWICE)
    async def task(ctx: Context) -> str:
        try:
            return await first()
        except StepFailed:
            return await fallback()

    async with lab(aq) as bench:
        run = await bench.finish(task.bind())
        assert await bench.result(run.id) == "from the fallback"
        assert calls == ["first", "fallback", "fallback"]
        assert await bench.names(run.id, EntryKind.SUPERSEDED) == ["fallback"]


@pytest.mark.parametrize("how", ["raise from", "raise in except", "bare reraise", "group"])
async def test_a_failure_that_escapes_inside_another_error_is_tried_again(how: str) -> None:
    aq, body = AgentQ("t"), failing(1)

    @aq.step
    async def flaky() -> int:
        return body()

    @aq.task(retry=TWICE)
    async def task(ctx: Context) -> int:
        try:
            return await flaky()
        except StepFailed as error:
            if how == "raise from":
                raise RuntimeError("wrapped") from error
            if how == "raise in except":
                raise RuntimeError("wrapped")  # noqa: B904 - the point
            if how == "group":
                raise ExceptionGroup("both", [KeyError("x"), error])  # noqa: B904
            raise

    async with lab(aq) as bench:
        assert await bench.result((await bench.finish(task.bind())).id) == 2


async def test_a_nested_step_whose_inner_failure_escaped_is_tried_again_inside_and_out() -> None:
    aq, body, outer_calls = AgentQ("t"), failing(1), Calls()

    @aq.step
    async def fine() -> str:
        outer_calls.append("fine")
        return "fine"

    @aq.step
    async def inner() -> int:
        return body()

    @aq.step(retry=TWICE)
    async def outer() -> int:
        outer_calls.append("outer")
        await fine()
        return await inner()

    @aq.task
    async def task(ctx: Context) -> int:
        return await outer()

    async with lab(aq) as bench:
        run = await bench.finish(task.bind())
        assert await bench.result(run.id) == 2
        assert outer_calls == ["outer", "fine", "outer"]
        assert run.attempt == 1
        branches = {entry.step: entry.branch for entry in await bench.journal(run.id)}
        assert branches == {"fine": "/outer#0", "inner": "/outer#0", "outer": ""}


async def test_a_run_retry_after_a_replayed_nested_failure_really_tries_again() -> None:
    aq, body = AgentQ("t"), failing(1)
    death = Calls()

    @aq.step
    async def inner() -> int:
        return body()

    @aq.step
    async def outer() -> int:
        return await inner()

    @aq.step
    async def die_once() -> None:
        death.append(1)
        if len(death) == 1:
            await bench.die_here()

    @aq.task(retry=TWICE)
    async def task(ctx: Context) -> int:
        try:
            return await outer()
        finally:
            await die_once()

    async with lab(aq) as bench:
        assert await bench.result((await bench.finish(task.bind())).id) == 2


async def test_permanent_errors_are_not_tried_again_and_temporary_ones_say_when() -> None:
    aq, tries = AgentQ("t"), Calls()

    @aq.step(retry=Retry(max_attempts=5))
    async def hopeless() -> None:
        tries.append("hopeless")
        raise PermanentError("never")

    @aq.step(retry=Retry(max_attempts=2, initial=timedelta(seconds=1)))
    async def later() -> str:
        tries.append(bench.clock.wall())
        if len(tries) == 2:
            raise TemporaryError("rate limited", retry_after=77)
        return "ok"

    @aq.task(retry=Retry(max_attempts=5))
    async def task(ctx: Context) -> str:
        with contextlib.suppress(StepFailed):
            await hopeless()
        return await later()

    @aq.task(retry=Retry(max_attempts=5))
    async def lost(ctx: Context) -> None:
        await hopeless()

    async with lab(aq) as bench:
        assert await bench.result((await bench.finish(task.bind())).id) == "ok"
        assert tries[0] == "hopeless"
        assert tries[2] - tries[1] == 77
        tries.clear()
        run = await bench.finish(lost.bind())
        assert (run.state, run.attempt, len(tries)) == (RunState.FAILED, 1, 1)


async def test_a_step_that_takes_too_long_fails_with_step_timeout_live_and_replayed() -> None:
    aq, seen = AgentQ("t"), Calls()

    @aq.step(timeout=timedelta(milliseconds=10))
    async def slow() -> None:
        await asyncio.Event().wait()

    @aq.step
    async def die_once() -> None:
        if len(seen) == 1:
            await bench.die_here()

    @aq.task
    async def task(ctx: Context) -> None:
        try:
            await slow()
        except StepTimeout as error:
            seen.append((type(error).__name__, isinstance(error, TimeoutError), str(error)))
        await die_once()

    async with lab(aq) as bench:
        await bench.finish(task.bind())
    assert seen[0] == seen[1]
    assert seen[0][:2] == ("StepTimeout", True)


async def test_a_timeout_of_the_bodys_own_is_an_ordinary_failure() -> None:
    aq = AgentQ("t")

    @aq.step(timeout=timedelta(seconds=60))
    async def body() -> None:
        async with asyncio.timeout(0.001):
            await asyncio.Event().wait()

    @aq.task
    async def task(ctx: Context) -> str:
        try:
            await body()
        except StepTimeout:
            return "wrong"
        except StepFailed as error:
            return error.type
        return "none"

    async with lab(aq) as bench:
        assert await bench.result((await bench.finish(task.bind())).id) == "TimeoutError"


async def test_methods_are_steps_without_self_and_ignored_arguments_do_not_count() -> None:
    aq, calls = AgentQ("t"), Calls()

    class Client:
        def __init__(self, secret: object) -> None:
            self.secret = secret

        @aq.step
        async def fetch(self, url: str) -> str:
            calls.append(url)
            return f"page {url}"

    @aq.step(ignore=("client",))
    async def via(client: Client, url: str) -> str:
        calls.append(client)
        return url

    @aq.step
    async def die_once() -> None:
        if calls.count_of("dying") == 0:
            calls.append("dying")
            await bench.die_here()

    @aq.task
    async def task(ctx: Context) -> list[str]:
        client = Client(object())
        found = [await client.fetch("a"), await via(client, "b"), await via(client=client, url="b")]
        await die_once()
        return found

    async with lab(aq) as bench:
        run = await bench.finish(task.bind())
        assert await bench.result(run.id) == ["page a", "b", "b"]
        assert await bench.names(run.id) == ["Client.fetch", "via", "via", "die_once"]
        assert calls[0] == "a"
        assert len(calls) == 4


async def test_an_unencodable_argument_names_the_remedy() -> None:
    aq = AgentQ("t")

    @aq.step
    async def via(client: Any, url: str) -> str:
        return url

    @aq.task(retry=Retry(max_attempts=5))
    async def task(ctx: Context) -> str:
        return await via(object(), "b")

    async with lab(aq) as bench:
        run = await bench.finish(task.bind())
        assert run.state is RunState.FAILED
        assert run.attempt == 1
        assert run.failure is not None
        assert "ignore=" in run.failure.message


async def test_an_unencodable_step_result_is_a_failure_of_that_step_and_says_so() -> None:
    aq = AgentQ("t")

    @aq.step(retry=Retry(max_attempts=3))
    async def make() -> Any:
        return object()

    @aq.task(retry=Retry(max_attempts=3))
    async def task(ctx: Context) -> None:
        await make()

    async with lab(aq) as bench:
        run = await bench.finish(task.bind())
        assert (run.state, run.attempt) == (RunState.FAILED, 1)
        assert await bench.shape(run.id) == [("failed", "make")]
        assert run.failure is not None
        assert "CodecError" in run.failure.message


async def test_a_result_that_does_not_fit_the_annotation_is_an_error_before_it_is_recorded() -> None:
    aq = AgentQ("t")

    @aq.step
    async def lies() -> int:
        return "text"  # type: ignore[return-value]

    @aq.task(retry=Retry(max_attempts=1))
    async def task(ctx: Context) -> int:
        return await lies()

    async with lab(aq) as bench:
        run = await bench.finish(task.bind())
        assert await bench.shape(run.id) == [("failed", "lies")]


async def test_ad_hoc_steps_are_journaled_by_name_and_read_back_as_their_type() -> None:
    aq, calls = AgentQ("t"), Calls()

    @aq.task
    async def task(ctx: Context) -> int:
        async def reply() -> Point:
            calls.append("reply")
            return Point(7)

        def plain() -> int:
            calls.append("plain")
            return 3

        point = await ctx.step("chat", reply, returns=Point)
        length = await ctx.step("plain", plain, returns=int)
        if calls.count_of("dead") == 0:
            calls.append("dead")
            await bench.die_here()
        return point.x + length

    async with lab(aq) as bench:
        run = await bench.finish(task.bind())
        assert await bench.result(run.id) == 10
        assert calls == ["reply", "plain", "dead"]
        assert await bench.names(run.id) == ["chat", "plain"]


@pytest.mark.parametrize("name", ["", "a/b", "a~b", "a#b", "ctx.mine"])
async def test_step_names_that_would_confuse_the_journal_are_refused(name: str) -> None:
    aq = AgentQ("t")
    with pytest.raises(DeclarationError):

        @aq.step(name=name)
        async def one() -> None: ...


async def test_a_step_outside_a_run_is_just_the_function() -> None:
    aq = AgentQ("t")

    @aq.step
    async def double(n: int) -> int:
        return n * 2

    @aq.step
    def triple(n: int) -> int:
        return n * 3

    assert (await double(2), triple(2)) == (4, 6)


async def test_the_same_step_never_commits_twice_though_the_outcome_of_the_commit_is_unknown() -> None:
    aq, calls = AgentQ("t"), Calls()

    @aq.step
    async def one(n: int) -> int:
        calls.append(n)
        return n

    @aq.task
    async def task(ctx: Context) -> int:
        return sum([await one(n) for n in range(3)])

    async with lab(aq) as bench:
        bench.store = Doubtful(bench.store)
        run = await bench.finish(task.bind())
        assert await bench.result(run.id) == 3
        assert calls == [0, 1, 2]
        assert await bench.names(run.id) == ["one"] * 3
        assert run.attempt == 1


async def test_idempotency_key_and_fence_are_stable_and_distinct() -> None:
    aq, keys, fences = AgentQ("t"), Calls(), Calls()

    @aq.step(retry=Retry(max_attempts=2))
    async def pay(n: int) -> int:
        keys.append(current().idempotency_key)
        fences.append(current().fence)
        if len(keys) == 1:
            raise ValueError("again")
        if len(keys) == 2:
            await bench.die_here()
        return n

    @aq.task
    async def task(ctx: Context) -> str:
        await pay(1)
        await pay(1)
        return ctx.idempotency_key

    async with lab(aq) as bench:
        run = await bench.finish(task.bind())
        of_run = await bench.result(run.id)
    assert keys[0] == keys[1] == keys[2] != keys[3]
    assert len({*keys, of_run}) == 3
    assert all(len(key) == 32 for key in [*keys, of_run])
    assert fences == [1, 1, 2, 2]


async def test_exit_and_interrupt_in_a_step_or_task_fail_the_run_and_nothing_else() -> None:
    aq = AgentQ("t")

    @aq.step
    async def leave(how: str) -> None:
        raise SystemExit(3) if how == "exit" else KeyboardInterrupt

    @aq.task(retry=Retry(max_attempts=1))
    async def in_step(ctx: Context, how: str) -> None:
        await leave(how)

    @aq.task(retry=Retry(max_attempts=1))
    async def in_branch(ctx: Context, how: str) -> None:
        await ctx.gather(leave(how))

    @aq.task(retry=Retry(max_attempts=1))
    async def in_foreign_task(ctx: Context, how: str) -> None:
        await asyncio.gather(leave(how))

    @aq.task(retry=Retry(max_attempts=1))
    async def in_task(ctx: Context, how: str) -> None:
        raise SystemExit(3) if how == "exit" else KeyboardInterrupt

    @aq.task(retry=Retry(max_attempts=1))
    async def in_plain_branch(ctx: Context, how: str) -> None:
        async def branch() -> None:
            raise SystemExit(3) if how == "exit" else KeyboardInterrupt

        await ctx.gather(branch())

    async with lab(aq) as bench:
        for task in (in_task, in_step, in_branch, in_foreign_task, in_plain_branch):
            for how, name in (("exit", "SystemExit"), ("interrupt", "KeyboardInterrupt")):
                run = await bench.finish(task.bind(how))
                assert run.state is RunState.FAILED, task
                assert run.failure is not None
                assert name in run.failure.message, (task, run.failure)


async def test_a_group_raised_by_a_task_group_is_recorded_with_its_members() -> None:
    aq = AgentQ("t")

    @aq.step
    async def boom(n: int) -> None:
        raise ValueError(f"number {n}")

    @aq.task(retry=Retry(max_attempts=1))
    async def task(ctx: Context) -> None:
        async with asyncio.TaskGroup() as group:
            group.create_task(boom(1))

    @aq.task(retry=Retry(max_attempts=1))
    async def worse(ctx: Context) -> None:
        raise BaseExceptionGroup("worse", [GeneratorExit(), ValueError("inner")])

    async with lab(aq) as bench:
        run = await bench.finish(task.bind())
        assert run.failure is not None
        assert "number 1" in run.failure.message
        run = await bench.finish(worse.bind())
        assert run.failure is not None
        assert run.state is RunState.FAILED
        assert "inner" in run.failure.message


async def test_a_step_in_the_middle_of_its_retry_delay_hands_over_at_once() -> None:
    aq, gate = AgentQ("t"), Gate()
    body = failing(1)

    @aq.step(retry=Retry(max_attempts=3))
    async def flaky() -> int:
        return body()

    @aq.task
    async def task(ctx: Context) -> int:
        return await flaky()

    async def delay(seconds: float) -> None:
        await gate.wait()

    async with lab(aq) as bench:
        bench.vary(sleep=delay)
        run_id = await bench.submit(task.bind())
        working = asyncio.create_task(bench.once())
        await gate.reached()
        bench.stop(Stop.DRAIN)
        assert await working is End.RELEASED
        gate.open()
        await bench.settle()
        assert await bench.result(run_id) == 2
        assert (await bench.run(run_id)).attempt == 1


async def test_a_task_that_cancels_itself_fails_and_says_so() -> None:
    aq = AgentQ("t")

    @aq.task(retry=Retry(max_attempts=1))
    async def task(ctx: Context) -> None:
        me = asyncio.current_task()
        assert me is not None
        me.cancel()
        await asyncio.sleep(0)

    async with lab(aq) as bench:
        run = await bench.finish(task.bind())
        assert run.failure is not None
        assert "cancelled by its own code" in run.failure.message
        with pytest.raises(RunFailed):
            await bench.result(run.id)

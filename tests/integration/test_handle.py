"""A run seen from outside: result, status, live events, and what is shown while it works."""

import asyncio
from datetime import timedelta
from typing import Any

import pytest

from agentq import AgentQ, Context, Retry, RunCancelled, RunEvent, RunFailed, Signal, current
from agentq.errors import CodecError, NotFound, NotOpen, ResultTimeout
from agentq.message import RunState
from agentq.testing.wait import wait_until
from tests.helpers.lab import Calls, Gate, lab, working

pytestmark = pytest.mark.usefixtures("each_store")

WORD = Signal("word", str)


async def test_the_result_is_awaited_and_typed_by_the_task() -> None:
    aq, gate = AgentQ("t"), Gate()

    @aq.task
    async def task(ctx: Context) -> tuple[int, str]:
        await gate.wait()
        return (1, "a")

    async with aq.using(store="memory:"), working(aq):
        handle = await task.enqueue()
        waiting = asyncio.create_task(handle.result(timeout=10))
        await gate.reached()
        with pytest.raises(ResultTimeout, match="goes on"):
            await handle.result(timeout=0)
        gate.open()
        assert await waiting == (1, "a")
        assert await task.handle(handle.id).result() == (1, "a")
        assert await aq.handle(handle.id).result() == [1, "a"]


async def test_failures_cancels_and_unknown_runs_are_told_apart() -> None:
    aq = AgentQ("t")

    @aq.task(retry=Retry(max_attempts=1))
    async def task(ctx: Context) -> None:
        raise LookupError("gone")

    async with lab(aq) as bench:
        run = await bench.finish(task.bind())
        with pytest.raises(RunFailed, match="LookupError: gone") as failed:
            await bench.result(run.id)
        assert failed.value.run_id == run.id
        assert "in task" in failed.value.failure.traceback
        other = await bench.submit(task.bind())
        await bench.handle(other).cancel()
        with pytest.raises(RunCancelled):
            await bench.result(other)
        for verb in ("result", "status", "cancel", "pause", "resume"):
            with pytest.raises(NotFound, match="no-such-run"):
                await getattr(aq.handle("no-such-run"), verb)()
        with pytest.raises(NotFound):
            await aq.handle("no-such-run").signal(WORD, "x")


async def test_a_handle_outside_of_an_open_app_says_what_to_do() -> None:
    aq = AgentQ("t")

    @aq.task
    async def task(ctx: Context) -> None: ...

    with pytest.raises(NotOpen, match="async with aq"):
        await task.handle("x").result()
    with pytest.raises(NotOpen):
        await task.enqueue()


async def test_a_result_of_another_type_than_the_task_declares_now_is_named() -> None:
    aq, other = AgentQ("t"), AgentQ("t")

    @aq.task
    async def task(ctx: Context) -> str:
        return "text"

    @other.task(name="task")
    async def newer(ctx: Context) -> int:
        return 1

    async with lab(aq) as bench:
        run = await bench.finish(task.bind())
        async with other.using(store=bench.store):
            with pytest.raises(CodecError, match="int"):
                await newer.handle(run.id).result(timeout=0)


async def test_a_result_that_cannot_be_encoded_fails_the_run_with_a_named_error_and_is_not_retried() -> None:
    aq, calls = AgentQ("t"), Calls()

    @aq.task(retry=Retry(max_attempts=5))
    async def task(ctx: Context) -> Any:
        calls.append(1)
        return object()

    @aq.task(retry=Retry(max_attempts=5))
    async def lies(ctx: Context) -> int:
        calls.append(1)
        return "text"  # type: ignore[return-value]

    async with lab(aq) as bench:
        for each in (task, lies):
            run = await bench.finish(each.bind())
            assert run.state is RunState.FAILED
            assert run.failure is not None
            assert "cannot be recorded" in run.failure.message
        assert calls == [1, 1]


async def test_status_follows_a_run_from_submission_to_end() -> None:
    aq = AgentQ("t")

    @aq.step
    async def one() -> None: ...

    @aq.task(queue="q")
    async def task(ctx: Context) -> None:
        await one()
        await ctx.progress(0.25, "a quarter")
        await ctx.wait_for(WORD, timeout=timedelta(hours=1), default="")
        await ctx.spend(tokens=3, cost_usd="0.5")

    async with lab(aq) as bench:
        run_id = await bench.submit(task.options(tenant="acme", tags={"a": "b"}).bind())
        handle = task.handle(run_id)
        status = await handle.status()
        assert (status.state, status.task, status.queue, status.tenant, status.tags) == (
            RunState.QUEUED, "task", "q", "acme", {"a": "b"},
        )  # fmt: skip
        assert (status.started_at, status.finished_at, status.final) == (None, None, False)
        await bench.once()
        status = await handle.status()
        assert (status.state, status.steps, status.progress, status.note) == (RunState.WAITING, 1, 0.25, "a quarter")
        assert status.due_at is not None
        await bench.settle()
        status = await handle.status()
        assert (status.state, status.final, status.tokens, str(status.cost_usd)) == (RunState.SUCCEEDED, True, 3, "0.5")
        assert status.started_at is not None
        assert status.finished_at is not None
        assert status.started_at < status.finished_at


async def test_a_retrying_run_tells_why_its_last_attempt_failed() -> None:
    aq = AgentQ("t")

    @aq.task
    async def task(ctx: Context) -> None:
        raise ValueError("first try")

    async with lab(aq) as bench:
        run_id = await bench.submit(task.bind())
        await bench.once()
        status = await bench.handle(run_id).status()
        assert (status.state, status.attempt) == (RunState.QUEUED, 2)
        assert status.failure is not None
        assert status.failure.message == "first try"


async def test_events_tell_steps_progress_and_stream_live_until_the_end() -> None:
    aq, gate = AgentQ("t"), Gate()

    @aq.step
    async def one() -> int:
        return 1

    @aq.task
    async def task(ctx: Context) -> None:
        await one()
        await ctx.emit("token", {"text": "hel"})
        await ctx.progress(0.5, "half")
        await gate.wait()
        await ctx.emit("token", {"text": "lo"})

    async with aq.using(store="memory:"), working(aq):
        handle = await task.enqueue()
        seen: list[RunEvent] = []

        async def follow() -> None:
            async for event in handle.events():
                seen.append(event)  # noqa: PERF401 - it is told live

        following = asyncio.create_task(follow())
        await wait_until("progress is told while the run works", lambda: any(event.kind == "progress" for event in seen))
        assert any(event.kind == "step" and event.step == "one" for event in seen)
        assert not any(event.state is not None and event.state.final for event in seen)
        gate.open()
        await following
        assert [event.payload["text"] for event in seen if event.kind == "emit"] == ["hel", "lo"]
        assert {event.epoch for event in seen if event.kind == "emit"} == {1}
        assert (seen[-1].kind, seen[-1].state) == ("state", RunState.SUCCEEDED)
        again = [event async for event in handle.events()]
        assert [event.kind for event in again if event.kind in {"step", "emit"}] == ["step", "emit", "emit"]


async def test_progress_and_emit_are_silent_while_replaying_and_speak_again_after() -> None:
    aq, dead = AgentQ("t"), Calls()

    @aq.step
    async def one(n: int) -> int:
        return n

    @aq.step
    async def die_once() -> None:
        if not dead:
            dead.append(1)
            await bench.die_here()

    @aq.task
    async def task(ctx: Context) -> list[bool]:
        replaying = []
        for n in range(3):
            replaying.append(ctx.replaying)
            await ctx.emit("n", n)
            await ctx.progress(n / 10)
            await one(n)
        await die_once()
        replaying.append(ctx.replaying)
        await ctx.emit("n", "end")
        return replaying

    async with lab(aq) as bench:
        run = await bench.finish(task.bind())
        chunks = await bench.store.stream(run.id)
        assert [(chunk.payload, chunk.epoch) for chunk in chunks] == [(b"0", 1), (b"1", 1), (b"2", 1), (b'"end"', 2)]
        assert await bench.result(run.id) == [True, True, True, False]


async def test_a_run_whose_code_left_its_journal_speaks_again() -> None:
    aq, dead = AgentQ("t"), Calls()

    @aq.step
    async def one(name: str) -> None: ...

    @aq.step
    async def other() -> None: ...

    @aq.step
    async def die_once() -> None:
        if not dead:
            dead.append(1)
            await bench.die_here()

    @aq.task(on_mismatch="ignore")
    async def task(ctx: Context) -> None:
        if not dead:
            await one("a")
            await one("b")
        else:
            await other()
            await ctx.emit("n", "live")
        await die_once()

    async with lab(aq) as bench:
        run = await bench.finish(task.bind())
        assert [chunk.payload for chunk in await bench.store.stream(run.id)] == [b'"live"']


async def test_emits_of_a_body_that_is_repeated_carry_a_higher_epoch() -> None:
    aq, dead = AgentQ("t"), Calls()

    @aq.task
    async def task(ctx: Context) -> None:
        async def body() -> None:
            await ctx.emit("token", "a")
            if not dead:
                dead.append(1)
                await ctx.step("flush", lambda: None)
                await bench.die_here()

        await ctx.step("chat", body)

    async with lab(aq) as bench:
        run = await bench.finish(task.bind())
        assert [chunk.epoch for chunk in await bench.store.stream(run.id)] == [1, 2]


async def test_many_small_emits_keep_their_order_and_none_is_lost() -> None:
    aq = AgentQ("t")

    @aq.step
    async def chat(ctx_emit: int) -> int:
        for n in range(ctx_emit):
            current().emit("token", n)
            if n % 100 == 0:
                await asyncio.sleep(0)
        return ctx_emit

    @aq.task
    async def task(ctx: Context) -> int:
        return await chat(1000)

    async with lab(aq) as bench:
        run = await bench.finish(task.bind())
        chunks = await bench.store.stream(run.id, limit=5000)
        assert [int(chunk.payload) for chunk in chunks] == list(range(1000))
        assert [event.payload async for event in bench.handle(run.id).events() if event.kind == "emit"] == list(range(1000))

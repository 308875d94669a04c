"""Synchronous tasks: the same verbs in threads, and code in threads that ends when it must."""

import asyncio
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextvars import copy_context
from datetime import timedelta
from typing import Any, cast

import pytest

from agentq import AgentQ, AgentQError, Context, Retry, Signal, StepFailed, SyncContext, current
from agentq.errors import DeclarationError
from agentq.message import EntryKind, RunState
from agentq.testing.wait import wait_until
from agentq.worker.ends import End
from agentq.worker.ledger import Stop
from tests.helpers.lab import Calls, Lab, lab

pytestmark = pytest.mark.usefixtures("each_store")

ONE = Retry(max_attempts=1)
WORD = Signal("word", str)


class Door:
    """A gate for threads."""

    def __init__(self) -> None:
        self.came = threading.Event()
        self.opened = threading.Event()

    def wait(self) -> None:
        self.came.set()
        while not self.opened.wait(0.005):
            pass  # an interrupt is let in between two bytecodes


def die_from_thread(bench: Lab) -> None:
    """The worker dies while a thread of the run is in its code."""
    loop = bench.live[next(iter(bench.live))].loop
    loop.call_soon_threadsafe(bench.kill)
    while True:
        time.sleep(0.001)


async def test_context_and_kind_of_function_must_fit() -> None:
    aq = AgentQ("t")
    with pytest.raises(DeclarationError, match="SyncContext"):
        aq.task(cast("Any", _wrong_sync))
    with pytest.raises(DeclarationError, match="Context"):
        aq.task(cast("Any", _wrong_async))


def _wrong_sync(ctx: Context) -> None: ...


async def _wrong_async(ctx: SyncContext) -> None: ...


async def test_steps_in_threads_are_done_once_and_resume() -> None:
    aq, calls = AgentQ("t"), Calls()

    @aq.step
    def work(n: int) -> int:
        calls.append((n, threading.current_thread() is task_thread[-1]))
        if n == 2 and len(calls) == 3:
            die_from_thread(bench)
        return n * 10

    task_thread: list[threading.Thread] = []

    @aq.task
    def task(ctx: SyncContext) -> list[int]:
        task_thread.append(threading.current_thread())
        return [work(n) for n in range(4)]

    async with lab(aq) as bench:
        run = await bench.finish(task.bind())
        assert await bench.result(run.id) == [0, 10, 20, 30]
        assert [n for n, _ in calls] == [0, 1, 2, 2, 3]
        assert all(same for _, same in calls), "bodies run in the thread that calls them"
        assert [entry.branch for entry in await bench.journal(run.id)] == [""] * 4


async def test_verbs_block_and_waits_free_the_slot() -> None:
    aq, calls = AgentQ("t"), Calls()

    @aq.task
    def task(ctx: SyncContext) -> list[Any]:
        calls.append("begins")
        began = ctx.now()
        ctx.sleep(timedelta(hours=1))
        word = ctx.wait_for(WORD, ask="word?")
        late = ctx.wait_for(WORD, timeout=timedelta(hours=1), default="none")
        ctx.spend(tokens=5)
        ctx.progress(0.5, "half")
        ctx.emit("topic", {"a": 1})
        return [(ctx.now() - began).total_seconds() >= 3600, word, late, ctx.step("plain", lambda: 7)]

    async with lab(aq) as bench:
        run_id = await bench.submit(task.bind())
        assert await bench.once() is End.SUSPENDED
        await bench.settle()
        await bench.send(run_id, WORD, "hey", "1")
        await bench.settle()
        assert await bench.result(run_id) == [True, "hey", "none", 7]
        assert len(calls) == 4
        run = await bench.run(run_id)
        assert (run.tokens, run.progress, run.progress_note) == (5, 0.5, "half")
        assert [chunk.topic for chunk in await bench.store.stream(run_id)] == ["topic"]


async def test_gather_in_threads_has_branches_and_resumes() -> None:
    aq, calls = AgentQ("t"), Calls()

    @aq.step
    def work(n: int) -> int:
        calls.append(n)
        return n

    @aq.task
    def task(ctx: SyncContext) -> list[int]:
        def branch(n: int) -> int:
            total = work(n) + work(n + 10)
            ctx.wait_for(Signal(f"s{n}", str))
            return total

        return ctx.gather(*(lambda n=n: branch(n) for n in range(3)), limit=3)

    async with lab(aq) as bench:
        run_id = await bench.submit(task.bind())
        assert await bench.once() is End.SUSPENDED
        assert len(await bench.store.waits(run_id)) == 3
        for n in range(3):
            await bench.send(run_id, Signal(f"s{n}", str), "go", "1")
        await bench.settle()
        assert await bench.result(run_id) == [10, 12, 14]
        assert sorted(calls) == [0, 1, 2, 10, 11, 12]
        steps = {entry.branch for entry in await bench.journal(run_id) if entry.kind is EntryKind.DONE}
        assert steps == {"/0.0", "/0.1", "/0.2"}


async def test_failures_retries_and_caught_errors_in_threads() -> None:
    aq, calls = AgentQ("t"), Calls()

    @aq.step(retry=Retry(max_attempts=2))
    def flaky() -> str:
        calls.append(current().step_attempt)
        if len(calls) == 1:
            raise ValueError("once")
        return "fine"

    @aq.step
    def boom() -> None:
        raise LookupError("gone")

    @aq.task(retry=ONE)
    def task(ctx: SyncContext) -> list[str]:
        try:
            boom()
        except StepFailed as error:
            return [flaky(), error.type]
        return []

    async with lab(aq) as bench:
        assert await bench.result((await bench.finish(task.bind())).id) == ["fine", "LookupError"]
        assert calls == [1, 2]


@pytest.mark.parametrize("swallow", ["except Exception", "finally", "nothing"])
async def test_a_suspension_cannot_be_swallowed_by_except_exception_in_a_thread(swallow: str) -> None:
    aq, seen = AgentQ("t"), Calls()

    @aq.task(retry=ONE)
    def task(ctx: SyncContext) -> str:
        try:
            return ctx.wait_for(WORD)
        except Exception as error:  # noqa: BLE001 - the point
            seen.append(error)
            return "swallowed"
        finally:
            if swallow == "finally" and not seen:
                seen.append("finally")
                ctx.sleep(1)

    async with lab(aq) as bench:
        run_id = await bench.submit(task.bind())
        assert await bench.once() is End.SUSPENDED
        await bench.send(run_id, WORD, "x", "1")
        await bench.settle()
        assert await bench.result(run_id) == "x"
        assert seen in ([], ["finally"])


@pytest.mark.parametrize("stop", [Stop.CANCEL, Stop.TIMEOUT, Stop.LOST])
async def test_code_in_a_thread_is_interrupted_between_bytecodes(stop: Stop) -> None:
    aq, door, seen = AgentQ("t"), Door(), Calls()

    @aq.task(retry=ONE)
    def task(ctx: SyncContext) -> None:
        try:
            door.wait()
        except BaseException as error:
            seen.append(type(error).__name__)
            raise

    async with lab(aq) as bench:
        await bench.submit(task.bind())
        working = asyncio.create_task(bench.once())
        await wait_until("the thread is in its code", door.came.is_set)
        bench.stop(stop, "test")
        assert await working is {Stop.CANCEL: End.CANCELLED, Stop.TIMEOUT: End.FAILED, Stop.LOST: End.LOST}[stop]
        assert seen == ["Unwind"]


async def test_a_drain_lets_the_body_in_a_thread_end_and_stops_at_the_next_step() -> None:
    aq, door, calls = AgentQ("t"), Door(), Calls()

    @aq.step
    def first() -> str:
        door.wait()
        calls.append("first")
        return "1"

    @aq.step
    def second() -> str:
        calls.append("second")
        return "2"

    @aq.task
    def task(ctx: SyncContext) -> str:
        return first() + second()

    async with lab(aq) as bench:
        run_id = await bench.submit(task.bind())
        working = asyncio.create_task(bench.once())
        await wait_until("the body runs", door.came.is_set)
        bench.stop(Stop.DRAIN)
        door.opened.set()
        assert await working is End.RELEASED
        assert calls == ["first"]
        await bench.settle()
        assert await bench.result(run_id) == "12"
        assert calls == ["first", "second"]


async def test_code_blocked_in_c_is_abandoned_after_the_grace_and_nothing_is_released() -> None:
    aq, came, release = AgentQ("t"), threading.Event(), threading.Lock()
    release.acquire()

    @aq.task
    def task(ctx: SyncContext) -> None:
        came.set()
        with release:  # a thread in C code: no exception reaches it
            pass

    async with lab(aq) as bench:
        bench.vary(grace_s=0.05)
        run_id = await bench.submit(task.bind())
        before = asyncio.all_tasks()
        working = asyncio.create_task(bench.once())
        await wait_until("the thread is in C", came.is_set)
        bench.stop(Stop.DRAIN)
        assert await working is End.ABANDONED
        assert await bench.state(run_id) is RunState.RUNNING
        release.release()
        await asyncio.wait(asyncio.all_tasks() - before)


async def test_a_run_is_released_only_after_its_code_has_ended() -> None:
    aq, door, order = AgentQ("t"), Door(), Calls()

    @aq.task
    def task(ctx: SyncContext) -> None:
        try:
            door.wait()
        finally:
            time.sleep(0.02)
            order.append("code ended")

    async with lab(aq) as bench:
        await bench.submit(task.bind())
        working = asyncio.create_task(bench.once())
        await wait_until("the thread is in its code", door.came.is_set)
        real = bench.store.write

        async def write(write: Any) -> Any:
            order.append("settled")
            return await real(write)

        bench.store.write = write  # type: ignore[method-assign]
        bench.stop(Stop.DRAIN)
        assert await working is End.RELEASED
        assert order == ["code ended", "settled"]


async def test_threads_of_the_users_own_are_told_apart_by_arguments_and_may_use_the_context() -> None:
    aq, calls = AgentQ("t"), Calls()

    @aq.step
    def tool(n: int) -> int:
        calls.append(n)
        return n * n

    @aq.task
    def task(ctx: SyncContext) -> list[int]:
        with ThreadPoolExecutor(4) as pool:
            futures = [pool.submit(copy_context().run, tool, n) for n in range(4)]
            found = [each.result() for each in futures]
        thread = threading.Thread(target=lambda: found.append(ctx.step("extra", lambda: 100)))
        thread.start()
        thread.join()
        if calls.count_of("slept") == 0:
            calls.append("slept")
            ctx.sleep(3600)
        return found

    async with lab(aq) as bench:
        run = await bench.finish(task.bind())
        assert await bench.result(run.id) == [0, 1, 4, 9, 100]
        assert sorted(each for each in calls if each != "slept") == [0, 1, 2, 3]
        foreign = [entry for entry in await bench.journal(run.id) if entry.kind is EntryKind.DONE]
        assert len(foreign) == 5
        assert all(entry.branch.startswith("~") for entry in foreign)


async def test_async_tasks_call_sync_steps_in_threads_and_not_on_the_loop() -> None:
    aq, calls = AgentQ("t"), Calls()

    @aq.step
    def work(n: int) -> int:
        calls.append(threading.current_thread() is threading.main_thread())
        return n

    def plain(n: int) -> int:
        return work(n) + 1

    @aq.task(retry=ONE)
    async def task(ctx: Context) -> list[int]:
        with pytest.raises(AgentQError, match=r"ctx\.thread"):
            work(1)
        found = [await ctx.thread(work, 2), await ctx.thread(plain, 3)]
        if calls.count_of("slept") == 0:
            calls.append("slept")
            await ctx.sleep(3600)
        return found

    async with lab(aq) as bench:
        run = await bench.finish(task.bind())
        assert await bench.result(run.id) == [2, 4]
        assert calls == [False, False, "slept"]


async def test_exit_in_a_thread_fails_the_run() -> None:
    aq = AgentQ("t")

    @aq.task(retry=ONE)
    def task(ctx: SyncContext) -> None:
        raise SystemExit(2)

    @aq.step
    def leaves() -> None:
        raise KeyboardInterrupt

    @aq.task(retry=ONE)
    def by_step(ctx: SyncContext) -> None:
        leaves()

    async with lab(aq) as bench:
        for each, name in ((task, "SystemExit"), (by_step, "KeyboardInterrupt")):
            run = await bench.finish(each.bind())
            assert run.failure is not None
            assert name in run.failure.message


async def test_an_enqueue_from_a_sync_task_is_a_journaled_step() -> None:
    aq, calls = AgentQ("t"), Calls()

    @aq.task
    async def other(ctx: Context, n: int) -> None:
        calls.append(n)

    @aq.task
    def task(ctx: SyncContext) -> str:
        handle = aq.blocking(other.enqueue(1))
        if calls.count_of("slept") == 0:
            calls.append("slept")
            ctx.sleep(3600)
        return handle.id

    async with lab(aq) as bench:
        run = await bench.finish(task.bind())
        assert run.state is RunState.SUCCEEDED, run.failure
        assert sorted(map(str, calls)) == ["1", "slept"]
        assert await bench.names(run.id) == ["ctx.enqueue"]


async def test_a_body_that_swallows_its_interruption_records_nothing() -> None:
    aq, door, calls = AgentQ("t"), Door(), Calls()

    @aq.step
    def partial() -> str:
        calls.append("called")
        if len(calls) == 1:
            try:
                door.wait()
            except BaseException:  # noqa: BLE001 - the point
                return "half of it"
        return "all of it"

    @aq.task
    def task(ctx: SyncContext) -> str:
        return partial()

    async with lab(aq) as bench:
        run_id = await bench.submit(task.bind())
        working = asyncio.create_task(bench.once())
        await wait_until("the body runs", door.came.is_set)
        bench.stop(Stop.DRAIN)
        for live in bench.live.values():
            live.hurry()
        assert await working is End.RELEASED
        assert await bench.journal(run_id) == []
        await bench.settle()
        assert await bench.result(run_id) == "all of it"

"""Submitting runs: keys, conflicts, options, many at once, and from synchronous code."""

import asyncio
import subprocess
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, cast

import pytest

from agentq import AgentQ, Context, InvalidArgument, KeyConflict, Retry, SyncContext
from agentq.errors import DeclarationError, UnknownTask
from agentq.message import RunQuery, RunState
from tests.helpers.lab import Calls, lab, working


def make() -> tuple[AgentQ, Any, Calls]:
    aq, calls = AgentQ("t"), Calls()

    @aq.task
    async def task(ctx: Context, n: int, name: str = "x") -> int:
        calls.append(n)
        return n

    return aq, task, calls


async def test_the_same_key_is_the_same_run_with_one_result() -> None:
    aq, task, calls = make()
    async with aq.using(store="memory:"), working(aq):
        first = await task.options(key="k").enqueue(1)
        assert await first.result(timeout=10) == 1
        second = await task.options(key="k").enqueue(n=1)
        assert second.id == first.id
        assert await second.result(timeout=10) == 1
        assert calls == [1]


async def test_the_same_key_with_other_arguments_is_a_conflict_that_shows_both() -> None:
    aq, task, _ = make()
    async with aq.using(store="memory:"):
        first = await task.options(key="k").enqueue(1, "first")
        with pytest.raises(KeyConflict) as conflict:
            await task.options(key="k").enqueue(2, "second")
        text = str(conflict.value)
        assert "'k'" in text
        assert '"first"' in text
        assert '"second"' in text
        assert first.id in text
        assert len(await aq.store.runs(RunQuery())) == 1


async def test_a_key_is_its_own_per_app_tenant_and_task() -> None:
    aq, task, _ = make()
    other = AgentQ("other")

    @aq.task
    async def sibling(ctx: Context, n: int) -> None: ...

    @other.task(name="task")
    async def same_name(ctx: Context, n: int) -> None: ...

    async with aq.using(store="memory:"), other.using(store=aq.store):
        keyed = [
            task.options(key="k"), task.options(key="k", tenant="a"), task.options(key="k", tenant="b"),
            sibling.options(key="k"), same_name.options(key="k"), task.options(key="K"),
        ]  # fmt: skip
        ids = [(await each.enqueue(1)).id for each in keyed]
        assert len(set(ids)) == len(ids)
        assert len({(await task.enqueue(1)).id for _ in range(10)}) == 10


async def test_arguments_are_checked_where_they_are_given() -> None:
    aq, task, _ = make()
    async with aq.using(store="memory:"):
        for args, kwargs, names in (
            (("text",), {}, "n"), ((), {}, "n"), ((1,), {"nmae": "typo"}, "nmae"), ((1, 2), {}, "name"), ((1, "a", 3), {}, "3"),
        ):  # fmt: skip
            with pytest.raises(InvalidArgument, match=names):
                await task.enqueue(*args, **kwargs)
        assert await aq.store.runs(RunQuery()) == []


async def test_arguments_that_no_longer_fit_the_code_fail_the_run_with_the_field() -> None:
    aq, calls = AgentQ("t"), Calls()
    newer = AgentQ("t")

    @aq.task
    async def task(ctx: Context, n: int) -> None: ...

    @newer.task(name="task", retry=Retry(max_attempts=5))
    async def changed(ctx: Context, n: int, added: str) -> None:
        calls.append("runs")

    async with lab(aq) as bench:
        run_id = await bench.submit(task.bind(1))
        bench.app = newer
        await bench.settle()
        run = await bench.run(run_id)
        assert (run.state, run.attempt, calls) == (RunState.FAILED, 1, [])
        assert run.failure is not None
        assert "added" in run.failure.message


async def test_a_task_that_this_code_does_not_know_waits_for_a_worker_that_does() -> None:
    aq, task, _ = make()
    older = AgentQ("t")

    @older.task(name="other")
    async def other(ctx: Context) -> None: ...

    async with aq.using(store="memory:"), older.using(store=aq.store):
        handle = await task.enqueue(1)
        async with working(older):
            await (await other.enqueue()).result(timeout=10)
            assert (await handle.status()).state is RunState.QUEUED
        async with working(aq):
            assert await handle.result(timeout=10) == 1
    with pytest.raises(UnknownTask, match="other"):
        older.find("task")


async def test_delays_moments_and_priorities_order_the_start() -> None:
    aq, task, calls = make()
    async with lab(aq) as bench:
        now = datetime.fromtimestamp(bench.clock.wall(), UTC)
        await bench.submit(task.options(at=now + timedelta(minutes=2)).bind(4))
        await bench.submit(task.options(delay=timedelta(minutes=1)).bind(3))
        await bench.submit(task.bind(2))
        await bench.submit(task.options(priority=9).bind(1))
        while (claimed := await bench.claim(limit=1))[0] or claimed[1] is not None:
            if claimed[0]:
                await bench.work_on(claimed[0][0])
            else:
                bench.clock.advance((claimed[1] or 0) + 0.001)
        assert calls == [1, 2, 3, 4]


async def test_options_that_cannot_work_are_refused_by_name() -> None:
    _, task, _ = make()
    naive = datetime(2030, 1, 1)  # noqa: DTZ001 - the point
    for options, field in (
        ({"key": ""}, "key"), ({"delay": timedelta(1), "at": datetime.now(UTC)}, "at"), ({"max_attempts": 0}, "max_attempts"),
        ({"delay": timedelta(-1)}, "delay"), ({"at": naive}, "at"), ({"deadline": naive}, "deadline"),
    ):  # fmt: skip
        with pytest.raises(InvalidArgument) as refused:
            task.options(**options)
        assert refused.value.field == field


async def test_options_add_up_and_leave_the_task_alone() -> None:
    aq, task, _ = make()
    async with aq.using(store="memory:"):
        special = task.options(tags={"a": "1"}, tenant="x").options(tags={"b": "2"}, priority=3, timeout=timedelta(seconds=9))
        (run,) = await aq.store.runs(RunQuery(ids=((await special.enqueue(1)).id,)))
        assert (run.tags, run.tenant, run.priority, run.timeout_s) == ({"a": "1", "b": "2"}, "x", 3, 9.0)
        (plain,) = await aq.store.runs(RunQuery(ids=((await task.enqueue(1)).id,)))
        assert (plain.tags, plain.tenant, plain.priority) == ({}, None, 0)


async def test_many_at_once_keep_their_order_and_their_types() -> None:
    aq, task, calls = make()

    @aq.task
    async def shout(ctx: Context, text: str) -> str:
        return text.upper()

    async with lab(aq) as bench:
        handles = await aq.enqueue_many([task.bind(1), shout.bind("a"), task.bind(2)])
        await bench.settle()
        assert [await handle.result(timeout=0) for handle in handles] == [1, "A", 2]
        assert await aq.enqueue_many([]) == []
        with pytest.raises(InvalidArgument, match="bind"):
            await aq.enqueue_many([task])
        assert sorted(calls) == [1, 2]


async def test_a_conflict_among_many_lets_the_others_in() -> None:
    aq, task, _ = make()
    async with aq.using(store="memory:"):
        await task.options(key="k").enqueue(1)
        with pytest.raises(KeyConflict):
            await aq.enqueue_many([task.bind(10), task.options(key="k").bind(2), task.bind(11)])
        assert len(await aq.store.runs(RunQuery())) == 3


async def test_calling_a_task_directly_says_what_to_write() -> None:
    _, task, _ = make()
    with pytest.raises(TypeError, match=r"enqueue.*ctx\.call.*testing\.run"):
        task(1)


async def test_declarations_that_can_never_work_are_refused() -> None:
    aq, task, _ = make()

    def sync_generator(ctx: SyncContext) -> Any:
        yield 1

    async def generator(ctx: Context) -> Any:
        yield 1

    async def no_context() -> None: ...

    async def wrong_first(n: int) -> None: ...

    for function in (sync_generator, generator, no_context, wrong_first, 3, AgentQ):
        with pytest.raises(DeclarationError):
            aq.task(cast("Any", function))
    for options in (
        {"queue": "a b"}, {"timeout": timedelta(0)}, {"attempt_timeout": timedelta(-1)}, {"on_mismatch": "hope"},
    ):  # fmt: skip
        with pytest.raises(DeclarationError):
            aq.task(**cast("Any", options))(task.fn)
    with pytest.raises(DeclarationError, match="two tasks"):
        aq.task(task.fn)
    with pytest.raises(DeclarationError):
        AgentQ("a b")


async def test_opening_twice_closes_once_and_using_refuses_an_open_app() -> None:
    aq, task, _ = make()
    async with aq.using(store="memory:"):
        async with aq:
            await task.enqueue(1)
        await task.enqueue(2)
        with pytest.raises(RuntimeError, match="open already"):
            async with aq.using(store="memory:"):
                pass
    with pytest.raises(Exception, match="not open"):
        aq.store  # noqa: B018 - it raises


async def test_two_that_open_at_once_both_find_the_app_open(tmp_path: Path) -> None:
    aq, task, _ = make()
    aq._given_store = f"sqlite:{tmp_path}/a.db"

    async def one() -> str:
        async with aq:
            return str((await task.enqueue(1)).id)

    assert len(set(await asyncio.gather(one(), one(), one()))) == 3


async def test_an_app_that_could_not_be_opened_can_be_opened_later(tmp_path: Path) -> None:
    aq, task, _ = make()
    aq._given_store = "nonsense://x"
    for found in await asyncio.gather(aq.__aenter__(), aq.__aenter__(), return_exceptions=True):
        assert isinstance(found, Exception)
    aq._given_store = f"sqlite:{tmp_path}/a.db"
    async with aq:
        assert (await task.enqueue(1)).id


async def test_blocking_on_an_event_loop_is_refused() -> None:
    aq, task, _ = make()
    with pytest.raises(RuntimeError, match="await"):
        aq.blocking(task.enqueue(1))


def test_synchronous_code_submits_and_asks_through_one_portal(tmp_path: Path) -> None:
    program = f"""
import threading
from agentq import AgentQ, Context, InvalidArgument

aq = AgentQ("shell", store="sqlite:{tmp_path}/shell.db")

@aq.task
async def task(ctx: Context, n: int) -> int:
    return n

handles = []
threads = [threading.Thread(target=lambda n=n: handles.append(aq.blocking(task.enqueue(n)))) for n in range(4)]
for thread in threads: thread.start()
for thread in threads: thread.join()
try:
    aq.blocking(task.enqueue("text"))
except InvalidArgument as error:
    print(error.field)
print(len({{handle.id for handle in handles}}), aq.blocking(handles[0].status()).state)
print(sum(thread.name == "agentq-shell" for thread in threading.enumerate()))
"""
    command = [sys.executable, "-W", "error", "-c", program]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert done.stdout.split() == ["n", "4", "queued", "1"], done.stderr
    assert done.stderr == ""


async def test_an_enqueue_in_the_middle_of_cancellation_of_its_caller_leaves_a_usable_app() -> None:
    aq, task, _ = make()
    async with aq.using(store="memory:"):
        job = asyncio.create_task(task.enqueue(1))
        job.cancel()
        await asyncio.wait([job])
        assert (await task.enqueue(2)).id


async def test_a_broker_in_front_of_the_default_store_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AGENTQ_BROKER", "kafka://user:secret@localhost:9092")
    with pytest.raises(InvalidArgument, match=r"AGENTQ_STORE") as refused:
        async with AgentQ("t"):
            pass
    assert "secret" not in str(refused.value)


async def test_waiting_for_another_run_inside_a_run_is_refused_and_says_what_to_write():
    aq = AgentQ("t")

    @aq.task
    async def other(ctx: Context) -> int:
        return 1

    @aq.task(retry=Retry(max_attempts=1))
    async def task(ctx: Context) -> int:
        handle = await other.enqueue()
        return await handle.result()

    async with lab(aq) as bench:
        run = await bench.finish(task.bind())
        assert run.failure is not None
        assert "ctx.call" in run.failure.message

"""A worker: its queues and slots, one run only, recycling, admission, readiness, status, and errors that are not its runs'."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any

import msgspec
import pytest

from agentq import AgentQ, Context, Retry, RunFailed
from agentq.errors import NotOpen, StoreUnavailable
from agentq.message import Entry, EntryKind, RunState
from agentq.settings import WorkerSettings
from agentq.stores import open_store
from agentq.stores.memory import MemoryStore
from agentq.testing.wait import wait_until
from agentq.worker import Worker, admission
from agentq.worker.ends import End
from tests.helpers.lab import FAST, Calls, Gate, told, working


def settings(**given: Any) -> WorkerSettings:
    return WorkerSettings(**{"concurrency": 4, "heartbeat_s": 0.02, "poll_s": 0.02, "drain_s": 5, "grace_s": 2, **given})


async def test_slots_bound_what_runs_at_a_time_and_a_free_slot_is_filled() -> None:
    aq, now, most = AgentQ("t"), Calls(), Calls()

    @aq.task
    async def task(ctx: Context, n: int) -> int:
        now.append(n)
        most.append(len(now))
        await asyncio.sleep(0)
        now.remove(n)
        return n

    async with aq.using(store="memory:"), working(aq, settings(concurrency=3)):
        handles = await aq.enqueue_many([task.bind(n) for n in range(50)])
        assert [await handle.result(timeout=10) for handle in handles] == list(range(50))
        assert max(most) <= 3


async def test_it_serves_every_queue_that_its_tasks_declare_or_those_it_is_told() -> None:
    aq = AgentQ("t")

    @aq.task(queue="a")
    async def in_a(ctx: Context) -> str:
        return "a"

    @aq.task(queue="b")
    async def in_b(ctx: Context) -> str:
        return "b"

    async with aq.using(store="memory:"):
        async with working(aq):
            assert [await (await each.enqueue()).result(timeout=10) for each in (in_a, in_b)] == ["a", "b"]
        async with working(aq, settings(queues=(("b", 1),))):
            left = await in_a.enqueue()
            assert await (await in_b.enqueue()).result(timeout=10) == "b"
            assert (await left.status()).state is RunState.QUEUED


async def test_a_queue_of_weight_nine_is_asked_first_nine_times_as_often() -> None:
    aq, order = AgentQ("t"), Calls()

    @aq.task(queue="heavy")
    async def heavy(ctx: Context) -> None:
        order.append("heavy")

    @aq.task(queue="light")
    async def light(ctx: Context) -> None:
        order.append("light")

    async with aq.using(store="memory:"):
        handles = await aq.enqueue_many([task.bind() for task in (light, heavy) for _ in range(200)])
        async with working(aq, settings(concurrency=1, queues=(("heavy", 9), ("light", 1)))):
            for handle in handles:
                await handle.result(timeout=20)
    first = order[:100]
    assert 75 <= first.count("heavy") < 100, "both are served, the heavy one far more often"


async def test_one_run_and_its_descendants_only() -> None:
    aq = AgentQ("t")

    @aq.task
    async def child(ctx: Context) -> str:
        return "child"

    @aq.task
    async def parent(ctx: Context) -> str:
        return await ctx.call(child)

    async with aq.using(store="memory:"):
        other, mine = await parent.enqueue(), await parent.enqueue()
        async with working(aq, root=mine.id):
            assert await mine.result(timeout=10) == "child"
        assert (await other.status()).state is RunState.QUEUED


async def test_one_claim_and_then_the_end() -> None:
    aq = AgentQ("t")

    @aq.task
    async def task(ctx: Context) -> None: ...

    async with aq.using(store="memory:"):
        await aq.enqueue_many([task.bind(), task.bind()])
        report = await Worker(aq, FAST, one=True).run()
        assert (report.runs, report.ends) == (1, {End.SUCCEEDED: 1})
        await Worker(aq, FAST, one=True).run()
        assert (await Worker(aq, FAST, one=True).run()).runs == 0


async def test_it_is_recycled_after_so_many_runs() -> None:
    aq = AgentQ("t")

    @aq.task
    async def task(ctx: Context) -> None: ...

    async with aq.using(store="memory:"), told() as events:
        await aq.enqueue_many([task.bind() for _ in range(10)])
        report = await Worker(aq, settings(concurrency=1, max_runs=3)).run()
        assert (report.runs, report.recycled) == (3, True)
        assert "worker.recycled" in [event for event, _ in events]


async def test_it_claims_nothing_while_memory_is_short_and_goes_on_when_it_is_not(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    aq = AgentQ("t")

    @aq.task
    async def task(ctx: Context) -> str:
        return "ran"

    (tmp_path / "memory.max").write_text("1000\n")
    (tmp_path / "memory.current").write_text("950\n")
    monkeypatch.setattr(admission, "_V2", tmp_path)
    async with aq.using(store="memory:"), told() as events, working(aq, settings(admit_memory=0.9)) as worker:
        handle = await task.enqueue()
        await wait_until("it says so", lambda: worker.status()["admission"] != "open")
        assert (await handle.status()).state is RunState.QUEUED
        (tmp_path / "memory.current").write_text("500\n")
        assert await handle.result(timeout=10) == "ran"
        assert worker.status()["admission"] == "open"
        assert [fields["limit_mb"] for event, fields in events if event == "worker.admission"] == [0]


async def test_it_is_recycled_when_memory_passes_its_share(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    aq = AgentQ("t")

    @aq.task
    async def task(ctx: Context) -> None:
        (tmp_path / "memory.current").write_text("900\n")

    (tmp_path / "memory.max").write_text("1000\n")
    (tmp_path / "memory.current").write_text("100\n")
    monkeypatch.setattr(admission, "_V2", tmp_path)
    async with aq.using(store="memory:"):
        await task.enqueue()
        report = await Worker(aq, settings(max_memory=0.8, admit_memory=None)).run()
        assert (report.runs, report.recycled) == (1, True)


async def test_it_is_ready_after_the_first_contact_and_no_hiccup_of_the_store_changes_that() -> None:
    aq = AgentQ("t")

    @aq.task
    async def task(ctx: Context) -> None: ...

    class Down(MemoryStore):
        down = True

        async def beat(self, *args: Any) -> Any:
            if self.down:
                raise StoreUnavailable("down")
            return await super().beat(*args)

        async def claim(self, *args: Any) -> Any:
            if self.down:
                raise StoreUnavailable("down")
            return await super().claim(*args)

    store = Down()
    async with aq.using(store=store), told() as events:
        worker = Worker(aq, settings())
        job = asyncio.create_task(worker.run())
        await wait_until("it tried", lambda: worker.status()["store"]["error"])
        assert not worker.ready
        assert worker.alive()[0]
        store.down = False
        await wait_until("it is ready", lambda: worker.ready)
        store.down = True
        await wait_until("it noticed", lambda: not worker.status()["store"]["ok"])
        assert worker.ready
        store.down = False
        assert await (await task.enqueue()).result(timeout=10) is None
        await wait_until("it recovered", lambda: worker.status()["store"]["ok"])
        worker.drain()
        assert not worker.ready or worker.status()["state"] != "draining"
        await job
        names = [event for event, _ in events]
        assert names.index("store.unavailable") < names.index("store.recovered")


async def test_its_status_is_json_and_names_slots_runs_and_dependencies() -> None:
    aq, gate = AgentQ("t"), Gate()

    @aq.task
    async def task(ctx: Context) -> None:
        await gate.wait()

    async with aq.using(store="memory:"), working(aq, settings(concurrency=2)) as worker:
        handle = await task.enqueue()
        await gate.reached()
        status = msgspec.json.decode(msgspec.json.encode(worker.status()))
        assert (status["state"], status["slots"], status["busy"], status["done"]) == ("active", 2, 1, 0)
        assert list(status["runs"]) == [handle.id]
        assert status["store"]["ok"]
        assert status["store"]["where"] == "memory"

        async def row() -> Any:
            return next((each for each in (await aq.store.census()).workers if each.runs), None)

        async def seen() -> bool:
            return await row() is not None

        await wait_until("its row tells of the run", seen)
        told_row = await row()
        assert (told_row.slots, told_row.busy, told_row.tasks, told_row.queues) == (2, 1, ("task",), ("default",))
        assert list(told_row.runs) == [handle.id]
        gate.open()
        await handle.result(timeout=10)


async def test_the_lifespan_is_entered_once_around_all_runs() -> None:
    order = Calls()

    @asynccontextmanager
    async def lifespan(app: AgentQ) -> AsyncIterator[None]:
        order.append("opens")
        yield
        order.append("closes")

    aq = AgentQ("t", lifespan=lifespan)

    @aq.task
    async def task(ctx: Context, n: int) -> None:
        order.append(n)

    async with aq.using(store="memory:"), working(aq, settings(concurrency=1)):
        for handle in await aq.enqueue_many([task.bind(1), task.bind(2)]):
            await handle.result(timeout=10)
    assert order == ["opens", 1, 2, "closes"]


async def test_a_worker_of_an_app_that_is_not_open_says_so() -> None:
    with pytest.raises(NotOpen):
        await Worker(AgentQ("t"), FAST).run()


async def test_an_idle_worker_hears_of_work_at_once_and_of_what_is_due_in_time() -> None:
    aq = AgentQ("t")

    @aq.task
    async def task(ctx: Context) -> str:
        return "ran"

    async with aq.using(store="memory:"), working(aq, settings(poll_s=60)) as worker:
        await wait_until("it idles", lambda: worker.status()["busy"] == 0)
        assert await (await task.enqueue()).result(timeout=10) == "ran"
        assert await (await task.options(delay=timedelta(milliseconds=50)).enqueue()).result(timeout=10) == "ran"


async def test_a_run_that_cannot_be_taken_up_costs_neither_the_worker_nor_its_other_runs() -> None:
    aq = AgentQ("t")

    @aq.task
    async def task(ctx: Context) -> str:
        return "ran"

    store = MemoryStore()
    async with aq.using(store=store), working(aq) as worker:
        handle = await task.options(delay=timedelta(milliseconds=30)).enqueue()
        store._ledger.rows[handle.id].journal.append(Entry(seq=7, kind=EntryKind.DONE, step="gap"))
        with pytest.raises(RunFailed, match="journal gap"):
            await handle.result(timeout=10)
        assert await (await task.enqueue()).result(timeout=10) == "ran"
        assert worker.alive()[0]


async def test_two_workers_on_one_file_share_the_work_and_do_nothing_twice(tmp_path: Path) -> None:
    aq, calls = AgentQ("t"), Calls()

    @aq.step
    async def step(n: int) -> int:
        calls.append(n)
        return n

    @aq.task
    async def task(ctx: Context, n: int) -> int:
        first = await step(n)
        await ctx.sleep(0)
        return first + await step(n)

    async with aq.using(store=open_and_keep(tmp_path)), aq.store, working(aq), working(aq):
        handles = await aq.enqueue_many([task.bind(n) for n in range(40)])
        assert [await handle.result(timeout=20) for handle in handles] == [2 * n for n in range(40)]
        assert sorted(calls) == sorted([*range(40), *range(40)])


def open_and_keep(tmp_path: Path) -> Any:
    return open_store(f"sqlite:{tmp_path}/a.db")


async def test_a_run_that_fails_frees_its_slot_and_is_tried_again_after_its_delay() -> None:
    aq, calls = AgentQ("t"), Calls()

    @aq.task(retry=Retry(max_attempts=3, initial=timedelta(milliseconds=10)))
    async def task(ctx: Context) -> int:
        calls.append(ctx.attempt)
        if ctx.attempt < 3:
            raise ValueError
        return ctx.attempt

    async with aq.using(store="memory:"), working(aq, settings(poll_s=60)):
        assert await (await task.enqueue()).result(timeout=10) == 3
        assert calls == [1, 2, 3]


async def test_code_that_does_not_end_is_abandoned_and_the_worker_makes_room_for_another() -> None:
    aq, release, came = AgentQ("t"), asyncio.Event(), asyncio.Event()

    @aq.task(timeout=timedelta(milliseconds=20))
    async def task(ctx: Context) -> None:
        came.set()
        while not release.is_set():
            try:
                await release.wait()
            except asyncio.CancelledError:
                continue

    store = MemoryStore()
    async with aq.using(store=store):
        handle = await task.enqueue()
        report = await Worker(aq, settings(grace_s=0.05)).run()
        assert (report.abandoned, report.recycled) == (1, True)
        assert (await handle.status()).state is RunState.RUNNING, "its lease runs out instead"
        release.set()
        for other in asyncio.all_tasks() - {asyncio.current_task()}:
            await asyncio.wait([other])

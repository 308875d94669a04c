"""Ownership: renewed by a thread of its own, fenced before it can be stolen, and of no use to a zombie."""

import asyncio
import contextlib
import threading
import time
from typing import Any

from agentq import AgentQ, Context, Retry, SyncContext
from agentq.clock import SystemClock
from agentq.errors import StoreUnavailable
from agentq.message import Beat, ClaimRef, ClaimRequest, EntryKind, Reply, RunState, SetWorker, Verdict, WorkerState, Write
from agentq.message import Worker as Row
from agentq.settings import WorkerSettings
from agentq.stores import open_store
from agentq.stores.memory import MemoryStore
from agentq.testing import SimulatedClock
from agentq.testing.wait import wait_until
from agentq.worker import Worker
from agentq.worker.ends import End
from agentq.worker.leases import Heart
from tests.helpers.lab import LEASE_S, Calls, Gate, lab, told, working

SHORT = WorkerSettings(concurrency=2, heartbeat_s=0.05, fence_s=0.4, lease_s=0.8, poll_s=0.05, drain_s=5, grace_s=2)
"""Fences and leases that a test can wait for."""


class Silent:
    """A store that answers no heartbeat and no write while it is ``silent``."""

    def __init__(self, store: Any) -> None:
        self._store = store
        self.silent = False
        self.beats = 0

    def __getattr__(self, name: str) -> Any:
        return getattr(self._store, name)

    async def beat(self, *args: Any) -> Beat:
        if self.silent:
            raise StoreUnavailable("the network is gone")
        self.beats += 1
        return await self._store.beat(*args)  # type: ignore[no-any-return]

    async def write(self, write: Write) -> Verdict:
        if self.silent:
            raise StoreUnavailable("the network is gone")
        return await self._store.write(write)  # type: ignore[no-any-return]

    async def leave(self, worker_id: str) -> None:
        if self.silent:
            raise StoreUnavailable("the network is gone")
        await self._store.leave(worker_id)


async def test_a_zombie_changes_nothing_and_is_stopped_by_its_first_refused_write() -> None:
    aq, gate, calls = AgentQ("t"), Gate(), Calls()

    @aq.step
    async def first() -> int:
        calls.append("first")
        if calls.count_of("first") == 1:
            await gate.wait()
        return 1

    @aq.step
    async def second() -> int:
        calls.append("second")
        return 2

    @aq.task
    async def task(ctx: Context) -> list[int]:
        return [await first(), await second(), ctx.fence]

    async with lab(aq) as bench:
        run_id = await bench.submit(task.bind())
        (zombie,), _ = await bench.claim(worker="a")
        working = asyncio.create_task(bench.work_on(zombie))
        await gate.reached()
        bench.clock.advance(LEASE_S + 1)
        (taken,), _ = await bench.claim(worker="b")
        assert taken.claim.ref.epoch == zombie.claim.ref.epoch + 1
        assert await taken.work() is End.SUCCEEDED
        before = await bench.run(run_id), await bench.journal(run_id)
        gate.open()
        assert await working is End.LOST
        assert (await bench.run(run_id), await bench.journal(run_id)) == before
        assert calls == ["first", "first", "second"], "the zombie stopped at once"
        assert await bench.result(run_id) == [1, 2, 2]


async def test_a_zombie_that_only_returns_cannot_settle() -> None:
    aq, gate = AgentQ("t"), Gate()

    @aq.task
    async def task(ctx: Context) -> str:
        if ctx.fence == 1:
            await gate.wait()
            return "zombie"
        return "owner"

    async with lab(aq) as bench:
        run_id = await bench.submit(task.bind())
        (zombie,), _ = await bench.claim(worker="a")
        working = asyncio.create_task(bench.work_on(zombie))
        await gate.reached()
        bench.clock.advance(LEASE_S + 1)
        (taken,), _ = await bench.claim(worker="b")
        gate.open()
        assert await working is End.LOST
        assert await bench.state(run_id) is RunState.RUNNING
        assert await taken.work() is End.SUCCEEDED
        assert await bench.result(run_id) == "owner"


async def test_one_stale_run_neither_fails_nor_carries_the_others() -> None:
    aq, gate = AgentQ("t"), Gate()

    @aq.step
    async def step(n: int) -> int:
        await gate.wait()
        return n

    @aq.task
    async def task(ctx: Context, n: int) -> int:
        return await step(n)

    async with lab(aq) as bench:
        ids = [await bench.submit(task.bind(n)) for n in range(3)]
        runs, _ = await bench.claim(worker="a")
        jobs = {live.row.id: asyncio.create_task(bench.work_on(live)) for live in runs}
        while gate.arrivals < 3:
            await asyncio.sleep(0)
        row = bench.store._ledger.rows[ids[1]]  # type: ignore[attr-defined]
        row.lease_until = 0.0
        await bench.claim(worker="b")
        gate.open()
        ends = {run_id: await job for run_id, job in jobs.items()}
        assert ends == {ids[0]: End.SUCCEEDED, ids[1]: End.LOST, ids[2]: End.SUCCEEDED}


async def test_a_run_whose_lease_is_lost_is_stopped_by_the_heartbeats_answer() -> None:
    aq, gate, seen = AgentQ("t"), Gate(), Calls()

    @aq.task
    async def task(ctx: Context) -> None:
        try:
            await gate.wait()
        except asyncio.CancelledError:
            seen.append("stopped")
            raise

    store = MemoryStore()
    async with aq.using(store=store), told() as events, working(aq) as worker:
        handle = await task.enqueue()
        await gate.reached()
        row = store._ledger.rows[handle.id]
        row.epoch, row.token, row.owner = row.epoch + 1, 42, "somebody else"
        await wait_until("the run is stopped", lambda: seen)
        await wait_until("the slot is free", lambda: worker.status()["busy"] == 0)
        assert [fields["reason"] for event, fields in events if event == "run.lost"] == ["another worker owns it"]
        row.lease_until = 0.0
        gate.open()


async def test_a_worker_without_an_answer_fences_itself_before_its_lease_is_over() -> None:
    aq, gate, stopped_at = AgentQ("t"), Gate(), Calls()
    clock = SystemClock()

    @aq.task
    async def task(ctx: Context) -> None:
        try:
            await gate.wait()
        except asyncio.CancelledError:
            stopped_at.append(clock.steady())
            raise

    inner = MemoryStore()
    store = Silent(inner)
    async with aq.using(store=store), told() as events, working(aq, SHORT):
        handle = await task.enqueue()
        await gate.reached()
        store.silent = True
        await wait_until("the run is stopped", lambda: stopped_at)
        row = inner._ledger.rows[handle.id]
        assert stopped_at[0] < row.lease_until, "the worker let go before anybody could take it"
        assert (row.state, row.epoch) == (RunState.RUNNING, 1), "nothing was written after the fence"
        names = [event for event, _ in events]
        assert "heartbeat.failed" in names
        assert "worker.fenced" in names
        store.silent = False
        gate.open()
        await handle.result(timeout=10)
        assert row.epoch == 2
        assert "heartbeat.recovered" in [event for event, _ in events]


async def test_a_task_that_blocks_the_event_loop_does_not_lose_its_lease() -> None:
    aq = AgentQ("t")

    @aq.task
    async def task(ctx: Context) -> int:
        time.sleep(3 * SHORT.lease_s)  # noqa: ASYNC251 - the point
        return ctx.fence

    store = Silent(MemoryStore())
    async with aq.using(store=store), working(aq, SHORT):
        before = store.beats
        handle = await task.enqueue()
        assert await handle.result(timeout=20) == 1
        assert store.beats > before + 5


async def test_a_heartbeat_renews_the_claims_it_lists_and_no_others() -> None:
    aq = AgentQ("t")

    @aq.task
    async def task(ctx: Context) -> None: ...

    async with lab(aq) as bench:
        first, second = await bench.submit(task.bind()), await bench.submit(task.bind())
        runs, _ = await bench.claim(worker="a")
        refs = {live.row.id: live.claim.ref for live in runs}
        bench.clock.advance(LEASE_S - 1)
        beat = await bench.store.beat(Row(id="a"), [refs[first]], LEASE_S)
        assert beat.lost == ()
        bench.clock.advance(2)
        taken, _ = await bench.claim(worker="b")
        assert [live.row.id for live in taken] == [second]
        beat = await bench.store.beat(Row(id="a"), list(refs.values()), LEASE_S)
        assert beat.lost == (refs[second],)


async def test_the_heart_goes_on_whatever_the_store_or_the_worker_raise() -> None:
    clock, beats, broken = SystemClock(), Calls(), [True]

    def row() -> Row:
        if broken[0]:
            raise ZeroDivisionError("a defect of ours")
        return Row(id="w")

    heart = Heart(
        MemoryStore(), clock, heartbeat_s=0.01, lease_s=30, fence_s=20, row=row, deliver=beats.append, fenced=lambda refs: None,
        give_up=lambda reason: None,
    )  # fmt: skip
    heart.start()
    try:
        await wait_until("it failed", lambda: heart.failures > 1)
        assert heart.error == "a defect of ours"
        broken[0] = False
        await wait_until("it beats again", lambda: beats)
    finally:
        await heart.stop()


async def test_a_process_whose_loop_is_blocked_past_a_runs_timeout_is_ended() -> None:
    clock, reasons, over = SystemClock(), Calls(), threading.Event()
    store = MemoryStore()

    def give_up(reason: str) -> None:
        reasons.append(reason)
        over.set()

    heart = Heart(
        store, clock, heartbeat_s=0.01, lease_s=30, fence_s=20, row=lambda: Row(id="w"), deliver=lambda beat: None,
        fenced=lambda refs: None, give_up=give_up,
    )  # fmt: skip
    held = heart.hold(ClaimRef(run_id="r", epoch=1, token=1), clock.steady())
    held.limit_at = clock.steady() + 0.03
    heart.start()
    try:
        assert over.wait(10), "this blocks the event loop"
        assert "blocks the event loop past its timeout" in reasons[0]
    finally:
        heart.let_go(held)
        await heart.stop()


async def test_a_blocked_loop_is_healthy_as_long_as_its_runs_may_take() -> None:
    clock = SimulatedClock()
    heart = Heart(
        MemoryStore(), clock, heartbeat_s=5, lease_s=30, fence_s=20, row=lambda: Row(id="w"), deliver=lambda beat: None,
        fenced=lambda refs: None, give_up=lambda reason: None,
    )  # fmt: skip
    held = heart.hold(ClaimRef(run_id="r", epoch=1, token=1), clock.steady())
    held.limit_at = clock.steady() + 600
    heart._turned_at = clock.steady() + 599
    clock.advance(599)
    assert heart.alive()[0]
    clock.advance(10)
    heart._turned_at = clock.steady()
    alive, reason = heart.alive()
    assert not alive
    assert "blocked" in reason
    heart._looped_at = clock.steady()
    clock.advance(60)
    alive, reason = heart.alive()
    assert not alive
    assert "heartbeat thread" in reason


async def test_owner_and_token_are_random_and_the_epoch_grows_with_every_claim() -> None:
    aq = AgentQ("t")

    @aq.task
    async def task(ctx: Context) -> None: ...

    async with lab(aq) as bench:
        run_id = await bench.submit(task.bind())
        seen = []
        for _ in range(5):
            (live,), _ = await bench.claim(worker="same name")
            seen.append(live.claim.ref)
            bench.clock.advance(LEASE_S + 1)
        assert [ref.epoch for ref in seen] == [1, 2, 3, 4, 5]
        assert len({ref.token for ref in seen}) == 5
        assert (await bench.run(run_id)).takeovers == 4
    async with aq.using(store="memory:"):
        assert len({Worker(aq, SHORT).id for _ in range(10)}) == 10


async def test_a_stepped_wall_clock_expires_nothing(tmp_path: Any) -> None:
    aq = AgentQ("t")

    @aq.task
    async def task(ctx: Context) -> None: ...

    clock = SimulatedClock()
    async with open_store(f"sqlite:{tmp_path}/a.db", clock=clock) as store, aq.using(store=store):
        await aq.store.beat(Row(id="a", app="t"), [], 30)
        await task.enqueue()
        request = ClaimRequest(worker="a", app="t", queues=("default",), tasks=("task",), limit=1, lease_s=30)
        clock.step_wall(10 * 365 * 86400.0)
        assert len((await aq.store.claim(request)).claims) == 1
        clock.step_wall(10 * 365 * 86400.0)
        assert (await aq.store.claim(request)).claims == ()


async def test_refused_children_signals_and_snapshots_of_a_zombie_leave_no_trace() -> None:
    aq, gate = AgentQ("t"), Gate()

    @aq.task
    async def child(ctx: Context) -> None: ...

    @aq.task
    async def task(ctx: Context) -> str:
        if ctx.fence == 1:
            await gate.wait()
            await ctx.emit("t", 1)
            await ctx.progress(0.9, "zombie")
            with contextlib.suppress(asyncio.CancelledError):
                await ctx.save({"a": 1})
            with contextlib.suppress(asyncio.CancelledError):
                await ctx.call(child)
        return "owner"

    async with lab(aq) as bench:
        run_id = await bench.submit(task.bind())
        (zombie,), _ = await bench.claim(worker="a")
        working = asyncio.create_task(bench.work_on(zombie))
        await gate.reached()
        bench.clock.advance(LEASE_S + 1)
        (taken,), _ = await bench.claim(worker="b")
        gate.open()
        assert await working is End.LOST
        await taken.work()
        run = await bench.run(run_id)
        assert (run.state, run.progress, run.entries) == (RunState.SUCCEEDED, None, 0)
        assert await bench.store.stream(run_id) == []
        assert set(bench.store._ledger.rows) == {run_id}  # type: ignore[attr-defined]


async def test_a_store_that_hiccups_in_the_middle_of_commits_costs_nothing() -> None:
    aq, calls = AgentQ("t"), Calls()

    @aq.step
    async def one(n: int) -> int:
        calls.append(n)
        if n == 2:
            store.silent = True
            asyncio.get_running_loop().call_later(0.1, _heal, store)
        return n

    @aq.task(retry=Retry(max_attempts=1))
    async def task(ctx: Context) -> int:
        return sum([await one(n) for n in range(5)])

    store = Silent(MemoryStore())
    async with aq.using(store=store), told() as events, working(aq):
        handle = await task.enqueue()
        assert await handle.result(timeout=10) == 10
        assert calls == [0, 1, 2, 3, 4]
        names = [event for event, _ in events]
        assert "store.unavailable" in names
        assert "store.recovered" in names


def _heal(store: Silent) -> None:
    store.silent = False


async def test_sync_code_that_blocks_keeps_its_lease_too() -> None:
    aq = AgentQ("t")

    @aq.step
    def slow() -> int:
        time.sleep(2 * SHORT.lease_s)
        return 1

    @aq.task
    def task(ctx: SyncContext) -> int:
        return slow() + ctx.fence

    async with aq.using(store="memory:"), working(aq, SHORT):
        assert await (await task.enqueue()).result(timeout=20) == 2


async def order(aq: AgentQ, worker: Worker, state: WorkerState) -> None:
    """Say it as soon as the worker's row is there."""

    async def heard() -> bool:
        return await aq.store.command(SetWorker(worker_id=worker.id, state=state)) is Reply.DONE

    await wait_until("the worker's row is there", heard)


async def test_a_cordoned_worker_claims_nothing_more_finishes_what_it_has_and_can_be_uncordoned() -> None:
    aq, gate = AgentQ("t"), Gate()

    @aq.step
    async def wait() -> str:
        await gate.wait()
        return "done"

    @aq.task
    async def task(ctx: Context) -> str:
        return await wait()

    async with aq.using(store="memory:"), working(aq) as worker:
        first = await task.enqueue()
        await gate.reached()
        await order(aq, worker, WorkerState.CORDONED)
        await wait_until("it heard", lambda: worker.status()["state"] == "cordoned")
        second = await task.enqueue()
        gate.open()
        assert await first.result(timeout=10) == "done"
        assert (await second.status()).state is RunState.QUEUED
        await order(aq, worker, WorkerState.ACTIVE)
        assert await second.result(timeout=10) == "done"


async def test_an_operators_drain_ends_the_worker() -> None:
    aq, gate = AgentQ("t"), Gate()

    @aq.task
    async def task(ctx: Context) -> None:
        await gate.wait()

    async with aq.using(store="memory:"):
        handle = await task.enqueue()
        worker = Worker(aq, SHORT)
        job = asyncio.create_task(worker.run())
        await gate.reached()
        await order(aq, worker, WorkerState.DRAINING)
        assert (await job).ends == {End.RELEASED: 1}
        assert (await handle.status()).state is RunState.QUEUED
        assert [entry.kind for entry in await aq.store.journal(handle.id)] == list[EntryKind]()

"""A drain hands runs on at their next step, burns no attempt, and waits for no body longer than it must."""

import asyncio
from typing import Any

import pytest

from agentq import AgentQ, Context, Retry, current
from agentq.message import RunState
from agentq.settings import WorkerSettings
from agentq.testing.wait import wait_until
from agentq.worker import Worker
from agentq.worker.ends import End
from agentq.worker.ledger import Stop
from tests.helpers.lab import FAST, Calls, Gate, lab

pytestmark = pytest.mark.usefixtures("each_store")


async def test_a_drain_in_the_middle_of_a_body_lets_it_end_and_the_next_worker_goes_on() -> None:
    aq, gate, calls = AgentQ("t"), Gate(), Calls()

    @aq.step
    async def first() -> int:
        await gate.wait()
        calls.append(("first", current().draining))
        return 1

    @aq.step
    async def second() -> int:
        calls.append("second")
        return 2

    @aq.task(retry=Retry(max_attempts=1))
    async def task(ctx: Context) -> int:
        return await first() + await second()

    async with lab(aq) as bench:
        run_id = await bench.submit(task.bind())
        working = asyncio.create_task(bench.once())
        await gate.reached()
        bench.stop(Stop.DRAIN)
        assert not working.done()
        gate.open()
        assert await working is End.RELEASED
        run = await bench.run(run_id)
        assert (run.state, run.attempt, run.takeovers, run.owner) == (RunState.QUEUED, 1, 0, None)
        assert await bench.names(run_id) == ["first"]
        await bench.settle()
        assert await bench.result(run_id) == 3
        assert calls == [("first", True), "second"]


async def test_a_drain_between_steps_stops_plain_code_at_once() -> None:
    aq, gate, calls = AgentQ("t"), Gate(), Calls()

    @aq.task(retry=Retry(max_attempts=1))
    async def task(ctx: Context) -> str:
        calls.append("begins")
        if len(calls) == 1:
            await gate.wait()
        return "done"

    async with lab(aq) as bench:
        run_id = await bench.submit(task.bind())
        working = asyncio.create_task(bench.once())
        await gate.reached()
        bench.stop(Stop.DRAIN)
        assert await working is End.RELEASED
        await bench.settle()
        assert await bench.result(run_id) == "done"


@pytest.mark.parametrize("how", ["except Exception", "return_exceptions", "bare except"])
async def test_a_drain_cannot_be_swallowed(how: str) -> None:
    aq, gate, calls = AgentQ("t"), Gate(), Calls()

    @aq.step
    async def first() -> int:
        await gate.wait()
        return 1

    @aq.step
    async def second() -> int:
        calls.append("second")
        return 2

    @aq.task(retry=Retry(max_attempts=1))
    async def task(ctx: Context) -> Any:
        await first()
        if how == "except Exception":
            try:
                return await second()
            except Exception:  # noqa: BLE001 - the point
                return "swallowed"
        if how == "return_exceptions":
            (value,) = await asyncio.gather(second(), return_exceptions=True)
            return value
        try:
            return await second()
        except BaseException:  # noqa: BLE001 - the point
            return "swallowed"

    async with lab(aq) as bench:
        run_id = await bench.submit(task.bind())
        working = asyncio.create_task(bench.once())
        await gate.reached()
        bench.stop(Stop.DRAIN)
        gate.open()
        assert await working is End.RELEASED
        assert calls == []
        await bench.settle()
        assert await bench.result(run_id) == 2


@pytest.mark.parametrize("how", ["returns", "raises"])
@pytest.mark.parametrize("stop", [Stop.DRAIN, Stop.CANCEL, Stop.ATTEMPT_TIMEOUT])
async def test_what_a_body_makes_of_its_cancellation_is_not_recorded(how: str, stop: Stop) -> None:
    aq, gate, calls = AgentQ("t"), Gate(), Calls()

    @aq.step
    async def partial() -> str:
        calls.append(1)
        if len(calls) == 1:
            try:
                await gate.wait()
            except asyncio.CancelledError:
                if how == "raises":
                    raise ConnectionError("closed while reading") from None
                return "half of it"
        return "all of it"

    @aq.task
    async def task(ctx: Context) -> str:
        return await partial()

    async with lab(aq) as bench:
        run_id = await bench.submit(task.bind())
        working = asyncio.create_task(bench.once())
        await gate.reached()
        bench.stop(stop, "the attempt took too long")
        for live in bench.live.values():
            live.hurry()
        end = await working
        assert await bench.journal(run_id) == []
        assert end is {Stop.DRAIN: End.RELEASED, Stop.CANCEL: End.CANCELLED, Stop.ATTEMPT_TIMEOUT: End.RETRYING}[stop]
        if stop is not Stop.CANCEL:
            await bench.settle()
            assert await bench.result(run_id) == "all of it"


async def test_a_nested_step_inside_a_body_is_still_done_while_draining() -> None:
    aq, gate, calls = AgentQ("t"), Gate(), Calls()

    @aq.step
    async def inner() -> int:
        calls.append("inner")
        return 1

    @aq.step
    async def outer() -> int:
        await gate.wait()
        return await inner()

    @aq.task
    async def task(ctx: Context) -> int:
        return await outer()

    async with lab(aq) as bench:
        run_id = await bench.submit(task.bind())
        working = asyncio.create_task(bench.once())
        await gate.reached()
        bench.stop(Stop.DRAIN)
        gate.open()
        assert await working is End.RELEASED
        assert await bench.names(run_id) == ["inner", "outer"]
        await bench.settle()
        assert await bench.result(run_id) == 1
        assert calls == ["inner"]


async def test_a_worker_drains_hands_back_and_another_goes_on() -> None:
    aq, gate, calls = AgentQ("t"), Gate(), Calls()

    @aq.step
    async def one(n: int) -> int:
        calls.append(n)
        if n == 1:
            await gate.wait()
        return n

    @aq.task
    async def task(ctx: Context) -> int:
        return sum([await one(n) for n in range(3)])

    async with aq.using(store="memory:"):
        handle = await task.enqueue()
        worker = Worker(aq, FAST)
        job = asyncio.create_task(worker.run())
        await gate.reached()
        assert worker.ready
        worker.drain("test")
        worker.drain("again")
        await wait_until("the worker says that it drains", lambda: worker.status()["state"] == "draining")
        assert not worker.ready
        gate.open()
        report = await job
        assert (report.runs, report.ends) == (1, {End.RELEASED: 1})
        assert (await aq.store.census()).workers == ()
        other = Worker(aq, FAST)
        job = asyncio.create_task(other.run())
        assert await handle.result(timeout=10) == 3
        other.drain()
        await job
        assert calls == [0, 1, 2]
        status = await handle.status()
        assert (status.attempt, status.takeovers) == (1, 0)


@pytest.mark.parametrize("how", ["abort", "grace"])
async def test_bodies_that_do_not_end_are_cancelled_when_the_grace_is_over_or_at_once(how: str) -> None:
    aq, gate, calls = AgentQ("t"), Gate(), Calls()

    @aq.step
    async def hang() -> None:
        try:
            await gate.wait()
        except asyncio.CancelledError:
            calls.append("cancelled")
            raise

    @aq.task
    async def task(ctx: Context) -> None:
        await hang()

    async with aq.using(store="memory:"):
        handle = await task.enqueue()
        settings = WorkerSettings(heartbeat_s=0.02, poll_s=0.05, drain_s=0.05 if how == "grace" else 600, grace_s=5)
        worker = Worker(aq, settings)
        job = asyncio.create_task(worker.run())
        await gate.reached()
        worker.drain("first signal")
        if how == "abort":
            worker.abort("second signal")
        assert (await job).ends == {End.RELEASED: 1}
        assert calls == ["cancelled"]
        assert (await handle.status()).state is RunState.QUEUED


async def test_a_drain_before_the_worker_has_begun_ends_it_at_once() -> None:
    aq = AgentQ("t")

    @aq.task
    async def task(ctx: Context) -> None: ...

    async with aq.using(store="memory:"):
        await task.enqueue()
        worker = Worker(aq, FAST)
        worker.drain("early")
        assert (await worker.run()).runs == 0

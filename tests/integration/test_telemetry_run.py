"""What a run tells: the events of the catalogue, with their fields, and no value of the user's in any of them."""

import asyncio
import contextlib
from datetime import timedelta
from typing import Any

import pytest

from agentq import AgentQ, Context, Retry, Signal, StepFailed
from agentq.message import Cancel
from agentq.telemetry.events import CATALOGUE
from agentq.worker.ledger import Stop
from tests.helpers.lab import FAST, Calls, Gate, lab, told, working

pytestmark = pytest.mark.usefixtures("each_store")

SECRET = "hunter2-do-not-tell"  # noqa: S105 - that is the point
WORD = Signal("word", str)
Events = list[tuple[str, dict[str, Any]]]


def names(events: Events, prefix: str = "") -> list[str]:
    return [event for event, _ in events if event.startswith(prefix)]


def check(events: Events) -> None:
    for event, fields in events:
        assert event in CATALOGUE, event
        assert set(fields) <= set(CATALOGUE[event].fields), (event, set(fields) - set(CATALOGUE[event].fields))
        assert SECRET not in repr(fields), (event, fields)


async def test_a_run_with_everything_in_it_tells_known_events_with_known_fields_and_no_secrets() -> None:
    aq, dead = AgentQ("t"), Calls()

    @aq.step(retry=Retry(max_attempts=2))
    async def flaky(secret: str) -> str:
        dead.append("flaky")
        if len(dead) == 1:
            raise ConnectionError("refused")
        return secret

    @aq.step
    async def boom() -> None:
        raise ValueError("boom")

    @aq.step
    async def die_once() -> None:
        if "dead" not in dead:
            dead.append("dead")
            await bench.die_here()

    @aq.task
    async def child(ctx: Context, secret: str) -> str:
        return secret

    @aq.task(retry=Retry(max_attempts=2))
    async def task(ctx: Context, secret: str) -> str:
        await flaky(secret)
        with contextlib.suppress(StepFailed):
            await boom()
        await die_once()
        await ctx.wait_for(WORD)
        await ctx.call(child, secret)
        if ctx.attempt == 1:
            raise RuntimeError("once more")
        return secret

    async with lab(aq) as bench, told() as events:
        run_id = await bench.submit(task.bind(SECRET))
        await bench.settle()
        await bench.send(run_id, WORD, SECRET, "1")
        await bench.settle()
        assert await bench.result(run_id) == SECRET
    check(events)
    mine = [event for event, fields in events if fields.get("run_id") == run_id]
    assert [event for event in mine if event.startswith("run.")] == [
        "run.claimed", "run.lost", "run.resumed", "run.suspended", "run.resumed", "run.suspended", "run.resumed",
        "run.retrying", "run.resumed", "run.succeeded",
    ]  # fmt: skip
    assert mine.count("step.done") == 2
    assert mine.count("step.retrying") == 1
    assert mine.count("step.failed") == 1
    assert mine.count("signal.received") == 1
    assert mine.count("child.started") == 1
    assert mine.count("step.replayed") >= 2


async def test_each_end_of_a_run_has_its_event() -> None:
    aq, gate = AgentQ("t"), Gate()

    @aq.task(retry=Retry(max_attempts=1))
    async def task(ctx: Context, how: str) -> None:
        if how == "fails":
            raise ValueError(how)
        if how == "waits":
            await ctx.wait_for(WORD)
        if how == "times out":
            bench.stop(Stop.TIMEOUT, "used up its running time of 1 s")
            await gate.wait()
        if how == "drained" and ctx.fence == 1:
            bench.stop(Stop.DRAIN, "test")
            await gate.wait()
        if how == "cancelled":
            await bench.command(Cancel(run_id=ctx.run_id))

    ends = {
        "succeeds": "run.succeeded", "fails": "run.failed", "waits": "run.suspended", "times out": "run.failed",
        "drained": "run.released", "cancelled": "run.cancelled",
    }  # fmt: skip
    async with lab(aq) as bench:
        for how, event in ends.items():
            async with told() as events:
                await bench.submit(task.bind(how))
                await bench.once()
            check(events)
            assert names(events, "run.")[-1] == event, how
            assert ("run.timed_out" in names(events)) == (how == "times out")
            gate.open()
            await bench.settle()


async def test_a_workers_life_is_told_in_order() -> None:
    aq = AgentQ("t")

    @aq.task
    async def task(ctx: Context) -> None: ...

    async with told() as events, aq.using(store="memory:"):
        async with working(aq, FAST):
            await (await task.enqueue()).result(timeout=10)
        check(events)
        told_names = names(events, "worker.")
        assert told_names == ["worker.started", "worker.ready", "worker.draining", "worker.stopped"]
        (started,) = [fields for event, fields in events if event == "worker.started"]
        assert (started["slots"], started["store"], started["app"]) == (4, "memory", "t")


async def test_a_delay_is_told_with_the_error_that_caused_it() -> None:
    aq = AgentQ("t")

    @aq.task(retry=Retry(max_attempts=2, initial=timedelta(seconds=7), jitter=0))
    async def task(ctx: Context) -> None:
        raise LookupError("gone")

    async with lab(aq) as bench, told() as events:
        await bench.finish(task.bind())
        (retrying,) = [fields for event, fields in events if event == "run.retrying"]
        assert (retrying["delay_s"], retrying["error"], retrying["attempt"]) == (7, "LookupError", 1)
        (failed,) = [fields for event, fields in events if event == "run.failed"]
        assert (failed["error"], failed["reason"], failed["attempt"]) == ("LookupError", "gone", 2)
        assert asyncio.current_task() is not None

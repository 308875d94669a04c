"""Waits free the slot, end by what they wait for, and are journaled: timers, signals, several at once, given up ones."""

import asyncio
from datetime import UTC, datetime, timedelta
from typing import Any, cast

import pytest

from agentq import AgentQ, Context, InvalidArgument, Retry, Signal, WaitTimeout
from agentq.message import EntryKind, RunState, WaitKind
from agentq.worker.ends import End
from agentq.worker.ledger import Stop
from tests.helpers.lab import Calls, Gate, Lab, lab

pytestmark = pytest.mark.usefixtures("each_store")

APPROVED = Signal("approved", bool)
WORD = Signal("word", str)
HOUR = timedelta(hours=1)


async def test_a_sleep_frees_the_slot_and_ends_when_it_is_due_and_is_not_slept_again() -> None:
    aq, woke = AgentQ("t"), Calls()

    @aq.step
    async def die_once() -> None:
        if len(woke) == 1:
            await bench.die_here()

    @aq.task
    async def task(ctx: Context) -> float:
        began = await ctx.now()
        await ctx.sleep(HOUR)
        woke.append(bench.clock.wall())
        await die_once()
        return ((await ctx.now()) - began).total_seconds()

    async with lab(aq) as bench:
        run_id = await bench.submit(task.bind())
        assert await bench.once() is End.SUSPENDED
        run = await bench.run(run_id)
        assert run.state is RunState.WAITING
        assert (run.owner, run.lease_s) == (None, None)
        assert run.due_at == pytest.approx(bench.clock.wall() + 3600)
        runs, due = await bench.claim()
        assert runs == []
        assert due == pytest.approx(3600)
        await bench.settle()
        assert 3600 <= await bench.result(run_id) < 3700
        assert len(woke) == 2


async def test_sleep_until_takes_a_moment_with_a_time_zone() -> None:
    aq, seen = AgentQ("t"), Calls()

    @aq.task
    async def task(ctx: Context) -> str:
        with pytest.raises(InvalidArgument, match="time zone"):
            await ctx.sleep_until(datetime(2030, 1, 1))  # noqa: DTZ001 - the point
        with pytest.raises(InvalidArgument, match="zero"):
            await ctx.sleep(-1)
        moment = datetime.fromtimestamp(bench.clock.wall(), UTC) + HOUR if not seen else seen[0]
        seen.append(moment)
        await ctx.sleep_until(moment)
        return datetime.fromtimestamp(bench.clock.wall(), UTC).isoformat()

    async with lab(aq) as bench:
        run = await bench.finish(task.bind())
        late = datetime.fromisoformat(await bench.result(run.id)) - seen[0]
        assert timedelta(0) <= late < timedelta(seconds=1)


async def test_a_signal_wakes_the_run_and_its_value_is_typed_and_journaled() -> None:
    aq, seen = AgentQ("t"), Calls()

    @aq.step
    async def die_once() -> None:
        if len(seen) == 1:
            await bench.die_here()

    @aq.task
    async def task(ctx: Context) -> bool:
        ok = await ctx.wait_for(APPROVED, ask="Publish?")
        seen.append(ok)
        await die_once()
        return ok

    async with lab(aq) as bench:
        run_id = await bench.submit(task.bind())
        assert await bench.once() is End.SUSPENDED
        status = await bench.handle(run_id).status()
        assert [(asked.signal, asked.ask, asked.until) for asked in status.waiting_for] == [("approved", "Publish?", None)]
        assert await bench.handle(run_id).signal(APPROVED, True)
        await bench.settle()
        assert await bench.result(run_id) is True
        assert seen == [True, True]
        assert await bench.shape(run_id) == [("waited", "ctx.wait_for:approved"), ("done", "die_once")]


async def test_a_signal_of_the_wrong_type_is_refused_before_it_is_sent() -> None:
    aq = AgentQ("t")

    @aq.task
    async def task(ctx: Context) -> bool:
        return await ctx.wait_for(APPROVED)

    async with lab(aq) as bench:
        run_id = await bench.submit(task.bind())
        with pytest.raises(InvalidArgument, match="approved"):
            await bench.handle(run_id).signal(cast("Signal[Any]", APPROVED), "yes")


async def test_signals_come_before_the_wait_in_order_and_each_once() -> None:
    aq = AgentQ("t")

    @aq.task
    async def task(ctx: Context) -> list[str]:
        return [await ctx.wait_for(WORD) for _ in range(3)]

    async with lab(aq) as bench:
        run_id = await bench.submit(task.bind())
        assert await bench.send(run_id, WORD, "a", "1")
        assert not await bench.send(run_id, WORD, "a again", "1")
        assert await bench.send(run_id, WORD, "b", "2")
        await bench.settle()
        assert await bench.state(run_id) is RunState.WAITING
        assert await bench.send(run_id, WORD, "c", "3")
        assert not await bench.send(run_id, WORD, "b again", "2")
        await bench.settle()
        assert await bench.result(run_id) == ["a", "b", "c"]


async def test_a_signal_after_the_end_is_refused() -> None:
    aq = AgentQ("t")

    @aq.task
    async def task(ctx: Context) -> None: ...

    async with lab(aq) as bench:
        run = await bench.finish(task.bind())
        assert not await bench.handle(run.id).signal(APPROVED, True)


async def test_a_wait_that_times_out_returns_its_default_or_raises_and_replays_so() -> None:
    aq, seen = AgentQ("t"), Calls()

    @aq.step
    async def die_once() -> None:
        if len(seen) == 1:
            await bench.die_here()

    @aq.task
    async def task(ctx: Context) -> Any:
        answer: Any = await ctx.wait_for(APPROVED, timeout=HOUR, default="nobody")
        try:
            await ctx.wait_for(APPROVED, timeout=HOUR)
        except WaitTimeout:
            answer += " twice"
        seen.append(answer)
        await die_once()
        return answer

    async with lab(aq) as bench:
        run_id = await bench.submit(task.bind())
        await bench.settle()
        assert await bench.result(run_id) == "nobody twice"
        assert seen == ["nobody twice"] * 2
        run = await bench.run(run_id)
        assert run.running_s < 3600, "waits do not count as running time"


async def test_a_signal_that_comes_too_late_goes_to_the_next_wait() -> None:
    aq = AgentQ("t")

    @aq.task
    async def task(ctx: Context) -> list[Any]:
        first = await ctx.wait_for(WORD, timeout=HOUR, default=None)
        return [first, await ctx.wait_for(WORD)]

    async with lab(aq) as bench:
        run_id = await bench.submit(task.bind())
        assert await bench.once() is End.SUSPENDED
        bench.clock.advance(3601)
        assert await bench.once() is End.SUSPENDED
        await bench.send(run_id, WORD, "late", "1")
        await bench.settle()
        assert await bench.result(run_id) == [None, "late"]


async def test_waits_in_several_branches_suspend_together_and_wake_one_by_one() -> None:
    aq, passed = AgentQ("t"), Calls()

    @aq.step
    async def note(name: str) -> str:
        passed.append(name)
        return name

    @aq.task
    async def task(ctx: Context) -> list[str]:
        async def person(name: str) -> str:
            answer = await ctx.wait_for(Signal(name, str), ask=f"{name}?")
            return await note(f"{name} {answer}")

        return await ctx.gather(person("ann"), person("bob"), note("nobody"))

    async with lab(aq) as bench:
        run_id = await bench.submit(task.bind())
        assert await bench.once() is End.SUSPENDED
        waits = await bench.store.waits(run_id)
        assert sorted((wait.ref, wait.branch, wait.kind) for wait in waits) == [
            ("ann", "/0.0", WaitKind.SIGNAL), ("bob", "/0.1", WaitKind.SIGNAL),
        ]  # fmt: skip
        await bench.send(run_id, Signal("bob", str), "no", "1")
        assert await bench.once() is End.SUSPENDED
        assert passed == ["nobody", "bob no"]
        await bench.send(run_id, Signal("ann", str), "yes", "2")
        await bench.settle()
        assert await bench.result(run_id) == ["ann yes", "bob no", "nobody"]
        assert passed == ["nobody", "bob no", "ann yes"]


async def test_a_run_does_not_suspend_while_a_branch_still_works() -> None:
    aq, gate = AgentQ("t"), Gate()

    @aq.step
    async def slow() -> str:
        await gate.wait()
        return "done"

    @aq.task
    async def task(ctx: Context) -> list[Any]:
        return await ctx.gather(slow(), ctx.wait_for(WORD))

    async with lab(aq) as bench:
        run_id = await bench.submit(task.bind())
        working = asyncio.create_task(bench.once())
        await gate.reached()
        (live,) = bench.live.values()
        assert live.stopping is None
        gate.open()
        assert await working is End.SUSPENDED
        await bench.send(run_id, WORD, "x", "1")
        await bench.settle()
        assert await bench.result(run_id) == ["done", "x"]
        assert gate.arrivals == 1


async def test_two_branches_that_wait_for_the_same_signal_get_one_each() -> None:
    aq = AgentQ("t")

    @aq.task
    async def task(ctx: Context) -> list[str]:
        return await ctx.gather(ctx.wait_for(WORD), ctx.wait_for(WORD))

    async with lab(aq) as bench:
        run_id = await bench.submit(task.bind())
        await bench.settle()
        await bench.send(run_id, WORD, "first", "1")
        await bench.settle()
        assert await bench.state(run_id) is RunState.WAITING
        await bench.send(run_id, WORD, "second", "2")
        await bench.settle()
        assert sorted(await bench.result(run_id)) == ["first", "second"]


def ways_to_swallow(seen: Calls) -> dict[str, Any]:
    async def caught(ctx: Context) -> str:
        try:
            return await ctx.wait_for(WORD)
        except Exception as error:  # noqa: BLE001 - the point
            seen.append(error)
            return "swallowed"

    async def returned(ctx: Context) -> str:
        (answer,) = await asyncio.gather(ctx.wait_for(WORD), return_exceptions=True)
        return str(answer)

    async def grouped(ctx: Context) -> str:
        async with asyncio.TaskGroup() as group:
            waiting = group.create_task(ctx.wait_for(WORD))
        return waiting.result()

    async def bare(ctx: Context) -> str:
        try:
            return await ctx.wait_for(WORD)
        except BaseException as error:  # noqa: BLE001 - the point
            seen.append(type(error))
            return "swallowed"

    async def ends(ctx: Context) -> str:
        try:
            return await ctx.wait_for(WORD)
        finally:
            if not seen:
                seen.append("finally")
                await ctx.wait_for(APPROVED)
                seen.append("never")

    return {
        "except Exception": caught, "return_exceptions": returned, "task group": grouped, "bare except": bare, "finally": ends,
    }  # fmt: skip


@pytest.mark.parametrize("swallow", ["except Exception", "return_exceptions", "task group", "bare except", "finally"])
async def test_no_code_of_the_users_can_swallow_or_wrap_a_suspension(swallow: str) -> None:
    aq, seen = AgentQ("t"), Calls()

    @aq.task(retry=Retry(max_attempts=1))
    async def task(ctx: Context) -> str:
        return str(await ways_to_swallow(seen)[swallow](ctx))

    async with lab(aq) as bench:
        run_id = await bench.submit(task.bind())
        assert await bench.once() is End.SUSPENDED
        assert await bench.state(run_id) is RunState.WAITING
        assert {wait.ref for wait in await bench.store.waits(run_id)} == {"word"}
        await bench.send(run_id, WORD, "heard", "1")
        if swallow == "finally":
            await bench.send(run_id, APPROVED, True, "2")
        await bench.settle()
        assert await bench.result(run_id) == "heard"
        assert seen in ([], [asyncio.CancelledError], ["finally"])
        assert (await bench.run(run_id)).attempt == 1


async def test_from_a_suspension_on_every_verb_refuses_in_finally_blocks_too() -> None:
    aq, refused = AgentQ("t"), Calls()

    @aq.step
    async def cleanup() -> None:
        refused.append("ran")

    @aq.task
    async def other(ctx: Context) -> None: ...

    @aq.task
    async def task(ctx: Context) -> str:
        notes = await ctx.transcript("notes", str)
        try:
            return await ctx.wait_for(WORD)
        finally:
            if len(refused) == 0:
                verbs: dict[str, Any] = {
                    "step": cleanup, "sleep": lambda: ctx.sleep(1), "now": ctx.now, "save": lambda: ctx.save(1),
                    "spend": lambda: ctx.spend(tokens=1), "append": lambda: notes.append("x"),
                    "call": lambda: ctx.call(other), "enqueue": other.enqueue, "gather": lambda: ctx.gather(cleanup()),
                    "wait": lambda: ctx.wait_for(APPROVED), "step()": lambda: ctx.step("x", lambda: refused.append("ran")),
                }  # fmt: skip
                for name, verb in verbs.items():
                    try:
                        await verb()
                    except asyncio.CancelledError:
                        refused.append(name)
                raise RuntimeError("a finally block that raises something else")

    async with lab(aq) as bench:
        run_id = await bench.submit(task.bind())
        assert await bench.once() is End.SUSPENDED
        assert refused == [
            "step", "sleep", "now", "save", "spend", "append", "call", "enqueue", "gather", "wait", "step()",
        ]  # fmt: skip
        assert await bench.journal(run_id) == []
        await bench.send(run_id, WORD, "heard", "1")
        await bench.settle()
        assert await bench.result(run_id) == "heard"


async def test_code_that_swallows_its_cancellation_for_ever_is_abandoned_after_the_grace() -> None:
    aq, release = AgentQ("t"), asyncio.Event()

    @aq.task
    async def task(ctx: Context) -> str:
        while not release.is_set():
            try:
                await ctx.wait_for(WORD)
            except asyncio.CancelledError:
                try:
                    await release.wait()
                except asyncio.CancelledError:
                    continue
        return "over"

    async with lab(aq) as bench:
        bench.vary(grace_s=0.05)
        run_id = await bench.submit(task.bind())
        assert await bench.once() is End.ABANDONED
        run = await bench.run(run_id)
        assert run.state is RunState.RUNNING, "nothing is released: the lease runs out"
        release.set()
        await asyncio.sleep(0)
        bench.clock.advance(31)
        runs, _ = await bench.claim()
        assert [(live.row.id, live.row.takeovers) for live in runs] == [(run_id, 1)]


async def test_a_wait_inside_a_step_body_is_refused_with_the_reason() -> None:
    aq = AgentQ("t")

    @aq.step
    async def body(ctx: Any) -> None: ...

    @aq.task(retry=Retry(max_attempts=1))
    async def task(ctx: Context) -> None:
        async def inner() -> None:
            await ctx.sleep(HOUR)

        await ctx.step("outer", inner)

    async with lab(aq) as bench:
        run = await bench.finish(task.bind())
        assert run.failure is not None
        assert "waits inside its body" in run.failure.message


async def test_a_wait_that_its_code_gave_up_is_closed_and_the_next_gets_the_signal() -> None:
    aq, gate, seen = AgentQ("t"), Gate(), Calls()

    @aq.step
    async def busy() -> None:
        await gate.wait()

    @aq.task
    async def task(ctx: Context) -> list[Any]:
        async def impatient() -> str:
            try:
                async with asyncio.timeout(0.01):
                    return await ctx.wait_for(WORD)
            except TimeoutError:
                gate.open()
                seen.append("gave up")
                return "gave up"

        _, first = await ctx.gather(busy(), impatient())
        return [first, await ctx.wait_for(WORD)]

    async with lab(aq) as bench:
        run_id = await bench.submit(task.bind())
        assert await bench.once() is End.SUSPENDED
        assert [wait.branch for wait in await bench.store.waits(run_id)] == [""]
        assert seen == ["gave up"]
        # The signal is there when the code is replayed: what was given up may now be answered, since nothing recorded
        # that the code gave up but the wait itself. Whatever it does, no signal is lost and none is delivered twice.
        await bench.send(run_id, WORD, "x", "1")
        await bench.settle()
        if await bench.state(run_id) is RunState.WAITING:
            await bench.send(run_id, WORD, "y", "2")
            await bench.settle()
        result = await bench.result(run_id)
        assert result in (["gave up", "x"], ["x", "y"])


async def test_a_wait_given_up_before_a_crash_can_be_waited_for_again() -> None:
    aq, gate, seen = AgentQ("t"), Gate(), Calls()

    @aq.step
    async def busy() -> None:
        await gate.wait()

    @aq.task
    async def task(ctx: Context) -> list[Any]:
        async def impatient() -> str:
            if seen:
                return await ctx.wait_for(WORD)
            try:
                async with asyncio.timeout(0.01):
                    return await ctx.wait_for(WORD)
            except TimeoutError:
                seen.append("gave up")
                gate.open()
                await bench.die_here()
                return ""

        return await ctx.gather(busy(), impatient())

    async with lab(aq) as bench:
        run_id = await bench.submit(task.bind())
        await bench.once()
        await bench.settle()
        assert await bench.state(run_id) is RunState.WAITING
        assert len(await bench.store.waits(run_id)) == 1
        await bench.send(run_id, WORD, "x", "1")
        await bench.settle()
        assert await bench.result(run_id) == [None, "x"]


async def test_a_wait_whose_giving_up_is_recorded_can_be_waited_for_again_after_a_crash() -> None:
    aq, gate, seen = AgentQ("t"), Gate(), Calls()

    @aq.step
    async def busy() -> None:
        await gate.wait()

    @aq.step
    async def die_once() -> None:
        if len(seen) == 1:
            seen.append("dies")
            await bench.die_here()

    @aq.task
    async def task(ctx: Context) -> list[Any]:
        async def impatient() -> str:
            if seen:
                return await ctx.wait_for(WORD)
            try:
                async with asyncio.timeout(0.01):
                    return await ctx.wait_for(WORD)
            except TimeoutError:
                seen.append("gave up")
                gate.open()
                return ""

        found = await ctx.gather(busy(), impatient())
        await die_once()
        return found

    async with lab(aq) as bench:
        run_id = await bench.submit(task.bind())
        await bench.once()
        assert await bench.names(run_id, EntryKind.WAITED) == ["ctx.wait_for:word"]
        await bench.settle(rounds=20)
        assert await bench.state(run_id) is RunState.WAITING
        assert len(await bench.store.waits(run_id)) == 1
        await bench.send(run_id, WORD, "x", "1")
        await bench.settle()
        assert await bench.result(run_id) == [None, "x"]


async def test_foreign_tasks_may_wait_too_and_the_run_suspends_when_nothing_moves() -> None:
    aq = AgentQ("t")

    @aq.task
    async def task(ctx: Context) -> list[Any]:
        return list(await asyncio.gather(ctx.wait_for(WORD), ctx.wait_for(APPROVED), ctx.sleep(HOUR)))

    async with lab(aq) as bench:
        run_id = await bench.submit(task.bind())
        assert await bench.once() is End.SUSPENDED
        assert len(await bench.store.waits(run_id)) == 3
        await bench.send(run_id, APPROVED, True, "1")
        await bench.send(run_id, WORD, "x", "2")
        await bench.settle()
        assert await bench.result(run_id) == ["x", True, None]
        assert len(await bench.names(run_id, EntryKind.WAITED)) == 3


async def test_a_short_wait_keeps_its_slot() -> None:
    aq = AgentQ("t")

    @aq.task
    async def task(ctx: Context) -> str:
        return await ctx.wait_for(WORD, timeout=timedelta(seconds=5), default="late")

    async with lab(aq) as bench:
        bench.vary(linger_s=10.0)
        run_id = await bench.submit(task.bind())
        working = asyncio.create_task(bench.once())
        while not await bench.store.waits(run_id):
            await asyncio.sleep(0)
        await bench.send(run_id, WORD, "quick", "1")
        bench.live[run_id].arrived()
        assert await working is End.SUCCEEDED
        assert await bench.result(run_id) == "quick"


async def test_a_signal_between_opening_the_wait_and_suspending_is_not_lost() -> None:
    aq = AgentQ("t")

    @aq.task
    async def task(ctx: Context) -> str:
        return await ctx.wait_for(WORD)

    async with lab(aq) as bench:
        run_id = await bench.submit(task.bind())
        real = bench.store.write

        async def write(write: Any) -> Any:
            if write.settle is not None and not await bench.journal(run_id):
                await bench.send(run_id, WORD, "just in time", "1")
            return await real(write)

        bench.store.write = write  # type: ignore[method-assign]
        assert await bench.once() is End.SUSPENDED
        assert await bench.state(run_id) is RunState.QUEUED, "the suspender looks again"
        assert await bench.once() is End.SUCCEEDED
        assert await bench.result(run_id) == "just in time"


async def test_a_deadline_ends_a_wait() -> None:
    aq = AgentQ("t")

    @aq.task
    async def task(ctx: Context) -> str:
        return await ctx.wait_for(WORD)

    async with lab(aq) as bench:
        run = await bench.finish(task.options(deadline=HOUR).bind())
        assert run.state is RunState.FAILED
        assert run.failure is not None
        assert "deadline" in run.failure.message
        assert await bench.store.waits(run.id) == []


async def _suspend_elsewhere(bench: Lab, run_id: str) -> None:
    assert await bench.once() is End.SUSPENDED
    assert await bench.state(run_id) is RunState.WAITING


async def test_an_orphaned_wait_whose_signal_came_does_not_wake_the_run_for_ever() -> None:
    """The code changed under the run: it no longer comes to a wait that it opened."""
    aq, version = AgentQ("t"), [1]

    @aq.task
    async def task(ctx: Context) -> str:
        if version == [1]:
            return await ctx.wait_for(WORD)
        await ctx.sleep(HOUR)
        return "slept"

    async with lab(aq) as bench:
        run_id = await bench.submit(task.bind())
        await _suspend_elsewhere(bench, run_id)
        version[0] = 2
        await bench.send(run_id, WORD, "too late", "1")
        await bench.settle(rounds=20)
        assert await bench.result(run_id) == "slept"
        assert len([end for _, end in bench.ends if end is End.SUSPENDED]) <= 3


async def test_a_drain_while_a_wait_has_just_ended_loses_nothing() -> None:
    aq, gate = AgentQ("t"), Gate()

    @aq.step
    async def slow() -> None:
        await gate.wait()

    @aq.task
    async def task(ctx: Context) -> list[Any]:
        return await ctx.gather(ctx.wait_for(WORD), slow())

    async with lab(aq) as bench:
        run_id = await bench.submit(task.bind())
        working = asyncio.create_task(bench.once())
        await gate.reached()
        bench.stop(Stop.DRAIN)
        await bench.send(run_id, WORD, "x", "1")
        bench.live[run_id].arrived()
        gate.open()
        assert await working is End.RELEASED
        await bench.settle()
        assert await bench.result(run_id) == ["x", None]
        assert gate.arrivals == 1

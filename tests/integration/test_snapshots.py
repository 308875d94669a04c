"""Snapshots: only the last is kept, and the code goes on from there without replaying what came before."""

import asyncio
from typing import Any

import msgspec
import pytest

from agentq import AgentQ, AgentQError, Context, Retry, Signal, SyncContext
from agentq.message import EntryKind, RunState
from tests.helpers.lab import Calls, lab

pytestmark = pytest.mark.usefixtures("each_store")

LARGE = "x" * 200_000


class State(msgspec.Struct):
    turn: int = 0
    text: str = ""


async def test_a_restored_run_goes_on_from_its_last_snapshot_and_replays_nothing_before_it() -> None:
    aq, calls, restored = AgentQ("t"), Calls(), Calls()

    @aq.step
    async def work(turn: int) -> int:
        calls.append(turn)
        if turn == 3 and calls.count_of(3) == 1:
            await bench.die_here()
        return turn

    @aq.task
    async def task(ctx: Context) -> str:
        state = await ctx.restore(State, default=State())
        restored.append(state.turn)
        while state.turn < 5:
            state.text += str(await work(state.turn))
            state.turn += 1
            await ctx.save(state)
        return state.text

    async with lab(aq) as bench:
        run = await bench.finish(task.bind())
        assert await bench.result(run.id) == "01234"
        assert restored == [0, 3]
        assert calls == [0, 1, 2, 3, 3, 4]
        assert len(await bench.names(run.id, EntryKind.SAVED)) == 5


async def test_steps_after_the_snapshot_are_replayed_not_repeated() -> None:
    aq, calls = AgentQ("t"), Calls()

    @aq.step
    async def work(name: str) -> str:
        calls.append(name)
        return name

    @aq.step
    async def die_once() -> None:
        if calls.count_of("dies") == 0:
            calls.append("dies")
            await bench.die_here()

    @aq.task
    async def task(ctx: Context) -> str:
        done = await ctx.restore(str, default="")
        if not done:
            done = await work("before")
            await ctx.save(done)
        after = await work("after")
        await die_once()
        return f"{done} {after}"

    async with lab(aq) as bench:
        run = await bench.finish(task.bind())
        assert await bench.result(run.id) == "before after"
        assert calls == ["before", "after", "dies"]


async def test_restore_must_be_the_first_call_of_its_branch() -> None:
    aq = AgentQ("t")

    @aq.task(retry=Retry(max_attempts=1))
    async def task(ctx: Context) -> None:
        await ctx.now()
        with pytest.raises(AgentQError, match="first call"):
            await ctx.restore(State)

    async with lab(aq) as bench:
        assert (await bench.finish(task.bind())).state is RunState.SUCCEEDED


async def test_branches_have_snapshots_of_their_own_and_those_behind_are_not_replayed() -> None:
    aq, calls = AgentQ("t"), Calls()

    @aq.step
    async def work(name: str) -> str:
        calls.append(name)
        return name

    @aq.step
    async def die_once(where: str) -> None:
        if calls.count_of(where) == 0:
            calls.append(where)
            await bench.die_here()

    @aq.task
    async def task(ctx: Context) -> list[str]:
        async def branch(name: str) -> str:
            state = await ctx.restore(str, default="")
            if not state:
                state = await work(name)
                await ctx.save(state)
            await die_once("in the branches")
            return state

        found = await ctx.restore(list[str], default=[])
        if not found:
            found = await ctx.gather(branch("a"), branch("b"))
            await ctx.save(found)
        await die_once("after them")
        return found

    async with lab(aq) as bench:
        run = await bench.finish(task.bind())
        assert await bench.result(run.id) == ["a", "b"]
        assert sorted(calls) == ["a", "after them", "b", "in the branches"]


async def test_a_large_snapshot_and_many_foreign_calls_before_it_are_restored() -> None:
    aq, calls = AgentQ("t"), Calls()

    @aq.step
    async def tool(n: int) -> int:
        calls.append(n)
        return n

    @aq.step
    async def die_once() -> None:
        if calls.count_of("dies") == 0:
            calls.append("dies")
            await bench.die_here()

    @aq.task
    async def task(ctx: Context) -> int:
        state = await ctx.restore(State, default=State())
        if not state.turn:
            await asyncio.gather(*(tool(n) for n in range(1500)))
            await ctx.save(State(1, LARGE))
        else:
            assert state.text == LARGE
        if state.turn < 2:
            state.turn = 1 + await tool(0)
            await ctx.save(State(state.turn + 1, LARGE))
            await die_once()
        return state.turn

    async with lab(aq) as bench:
        run = await bench.finish(task.bind())
        assert await bench.result(run.id) == 2
        assert len(calls) == 1502


async def test_waits_after_a_snapshot_are_found_again() -> None:
    aq = AgentQ("t")
    word = Signal("word", str)

    @aq.task
    async def task(ctx: Context) -> list[str]:
        heard: list[str] = await ctx.restore(list[str], default=[])
        while len(heard) < 3:
            heard.append(await ctx.wait_for(word))
            await ctx.save(heard)
        return heard

    async with lab(aq) as bench:
        run_id = await bench.submit(task.bind())
        for n in range(3):
            await bench.settle()
            await bench.send(run_id, word, f"word {n}", str(n))
        await bench.settle()
        assert await bench.result(run_id) == ["word 0", "word 1", "word 2"]


async def test_sync_tasks_save_and_restore() -> None:
    aq, seen = AgentQ("t"), Calls()

    @aq.task
    def task(ctx: SyncContext) -> Any:
        state = ctx.restore(State, default=State())
        seen.append(state.turn)
        if state.turn == 0:
            ctx.save(State(1, LARGE))
            ctx.sleep(3600)
        return [state.turn, len(state.text)]

    async with lab(aq) as bench:
        assert await bench.result((await bench.finish(task.bind())).id) == [1, 200_000]
        assert seen == [0, 1]

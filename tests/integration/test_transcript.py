"""Transcripts: append-only lists of a run, each item recorded once, large ones outside the row."""

import asyncio
from typing import Any

import msgspec
import pytest

from agentq import AgentQ, Context, Retry, SyncContext
from agentq.message import EntryKind, RunState
from tests.helpers.lab import Calls, lab

pytestmark = pytest.mark.usefixtures("each_store")

LARGE = "x" * 200_000


class Message(msgspec.Struct):
    role: str
    content: str


async def test_items_are_appended_once_and_typed_and_a_replay_shows_only_what_it_appended() -> None:
    aq, seen = AgentQ("t"), Calls()

    @aq.step
    async def die_once() -> None:
        if len(seen) == 2:
            await bench.die_here()

    @aq.task
    async def task(ctx: Context) -> list[Message]:
        notes = await ctx.transcript("notes", Message)
        seen.append(len(notes))
        await notes.append(Message("user", "hello"), Message("assistant", "hi"))
        seen.append([each.role for each in notes])
        await die_once()
        await notes.append(Message("user", LARGE))
        assert notes[-1].content == LARGE
        assert [each.role for each in notes[:2]] == ["user", "assistant"]
        return list(notes)[:2]

    async with lab(aq) as bench:
        run = await bench.finish(task.bind())
        assert (await bench.result(run.id))[0] == {"role": "user", "content": "hello"}
        assert seen == [0, ["user", "assistant"]] * 2
        assert await bench.names(run.id, EntryKind.APPENDED) == ["ctx.transcript:notes"] * 3


async def test_two_transcripts_are_apart_and_two_views_of_one_grow_each_with_its_own_appends() -> None:
    aq = AgentQ("t")

    @aq.task
    async def task(ctx: Context) -> list[list[str]]:
        a, b = await ctx.transcript("a", str), await ctx.transcript("b", str)
        await a.append("1")
        await b.append("2")
        await a.append("3")
        return [list(a), list(b)]

    async with lab(aq) as bench:
        assert await bench.result((await bench.finish(task.bind())).id) == [["1", "3"], ["2"]]


async def test_a_different_item_at_the_same_place_is_a_mismatch() -> None:
    aq, calls = AgentQ("t"), Calls()

    @aq.step
    async def die_once() -> None:
        if len(calls) == 1:
            await bench.die_here()

    @aq.task(retry=Retry(max_attempts=1))
    async def task(ctx: Context) -> None:
        notes = await ctx.transcript("notes", str)
        calls.append("x")
        await notes.append(f"try {len(calls)}")
        await die_once()

    async with lab(aq) as bench:
        run = await bench.finish(task.bind())
        assert run.state is RunState.FAILED
        assert run.failure is not None
        assert "JournalMismatch" in run.failure.type
        assert "ctx.transcript:notes" in run.failure.message


async def test_large_items_and_values_come_back_after_a_takeover() -> None:
    aq, calls = AgentQ("t"), Calls()

    @aq.step
    async def fetch(n: int) -> str:
        calls.append(n)
        return LARGE + str(n)

    @aq.step
    async def die_once() -> None:
        if calls.count_of("dead") == 0:
            calls.append("dead")
            await bench.die_here()

    @aq.task
    async def task(ctx: Context) -> list[int]:
        notes = await ctx.transcript("notes", str)
        pages = await ctx.gather(fetch(1), fetch(2))
        await notes.append(*pages)
        await die_once()
        return [len(pages[0]), len(notes[0]), len(notes[1]), int(notes[1][-1])]

    async with lab(aq) as bench:
        run = await bench.finish(task.bind())
        assert await bench.result(run.id) == [200_001, 200_001, 200_001, 2]
        assert calls == [1, 2, "dead"]
        assert all(entry.blob for entry in await bench.journal(run.id) if entry.step in {"fetch", "ctx.transcript:notes"})


async def test_a_restored_run_shows_all_items_from_before_its_snapshot_also_large_and_foreign_ones() -> None:
    aq, calls = AgentQ("t"), Calls()

    @aq.step
    async def die(n: int) -> None:
        if calls.count_of(n) == 0:
            calls.append(n)
            await bench.die_here()

    @aq.task
    async def task(ctx: Context) -> list[Any]:
        turn = await ctx.restore(int, default=0)
        notes = await ctx.transcript("notes", str)
        while turn < 3:
            await notes.append(f"turn {turn}", LARGE)
            await asyncio.gather(notes.append(f"aside {turn}"))
            turn += 1
            await ctx.save(turn)
            await die(turn)
        return [turn, sorted(note for note in notes if note != LARGE), sum(note == LARGE for note in notes)]

    async with lab(aq) as bench:
        run = await bench.finish(task.bind())
        turns, notes, large = await bench.result(run.id)
        assert (turns, large) == (3, 3)
        assert notes == ["aside 0", "aside 1", "aside 2", "turn 0", "turn 1", "turn 2"]
        assert len(await bench.names(run.id, EntryKind.APPENDED)) == 9


async def test_sync_tasks_have_transcripts_too() -> None:
    aq, calls = AgentQ("t"), Calls()

    @aq.task
    def task(ctx: SyncContext) -> list[str]:
        notes = ctx.transcript("notes", str)
        notes.append("a", LARGE)
        if not calls:
            calls.append("sleeps")
            ctx.sleep(3600)
        return [notes[0], notes[1][:1], str(len(notes))]

    async with lab(aq) as bench:
        assert await bench.result((await bench.finish(task.bind())).id) == ["a", "x", "2"]

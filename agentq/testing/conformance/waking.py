"""Clauses about suspending and waking: whichever comes first, no wake-up is lost."""

# ruff: noqa: D103, PLR2004, S101 - a clause is named after what it proves, and asserts it with plain values

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from agentq.message import Cancel, Failed, Failure, Pause, Resume, RunState, Send, Suspended, Verdict, Write
from agentq.testing.conformance.bench import Bench, child, clause, entry, signal, timer, waited
from agentq.testing.conformance.waiting import send

if TYPE_CHECKING:
    from agentq.message import Claim

RACES = 20


async def family(bench: Bench) -> tuple[Claim, Claim]:
    """A running parent that waits for a running child: their claims."""
    parent = await bench.begin()
    await bench.commit(parent, children=(bench.envelope("run-b", parent_id="run-a"),), waits=(child("run-b"),))
    return parent, await bench.take()


@clause
async def a_signal_before_the_suspension_queues_the_run_at_once(bench: Bench) -> None:
    claim = await bench.begin()
    await send(bench, 1)
    await bench.suspend(claim, signal())
    taken = await bench.take()
    assert taken.waits == (signal(),)
    assert len(await bench.store.inbox(["run-a"])) == 1


@clause
async def a_signal_after_the_suspension_wakes_the_run(bench: Bench) -> None:
    await bench.suspend(await bench.begin(), signal())
    assert (await bench.run()).state is RunState.WAITING
    assert await bench.claim() == []
    await send(bench, 1)
    assert (await bench.run()).state is RunState.QUEUED
    await bench.take()


@clause
async def a_signal_that_was_consumed_wakes_nobody(bench: Bench) -> None:
    claim = await bench.begin()
    await send(bench, 1)
    await bench.commit(claim, waits=(signal(),))
    [arrival] = await bench.store.inbox(["run-a"])
    again = signal(occurrence=1)
    await bench.commit(claim, waited(0, signal()), waits=(again,), signals=(arrival.signal,))
    assert (await bench.beat("w1", claim)).arrivals == ()
    await bench.commit(claim, settle=Suspended())
    assert (await bench.run()).state is RunState.WAITING


@clause
async def a_signal_of_another_name_wakes_nobody(bench: Bench) -> None:
    await bench.suspend(await bench.begin(), signal())
    await send(bench, 1, name="other")
    assert (await bench.run()).state is RunState.WAITING
    assert await bench.claim() == []


@clause
async def a_child_that_ended_before_the_suspension_queues_the_parent_at_once(bench: Bench) -> None:
    parent, claim = await family(bench)
    await bench.succeed(claim)
    await bench.commit(parent, settle=Suspended())
    assert (await bench.take()).run.id == "run-a"


@clause
async def a_child_that_ends_after_the_suspension_wakes_the_parent(bench: Bench) -> None:
    parent, claim = await family(bench)
    await bench.commit(parent, settle=Suspended())
    assert (await bench.run()).state is RunState.WAITING
    await bench.commit(claim, settle=Failed(failure=Failure(type="E", message="m")))
    assert (await bench.run()).state is RunState.QUEUED
    assert (await bench.take()).run.id == "run-a"


@clause
async def a_child_that_is_cancelled_wakes_the_parent(bench: Bench) -> None:
    parent = await bench.begin()
    await bench.commit(parent, children=(bench.envelope("run-b", parent_id="run-a"),))
    await bench.suspend(parent, child("run-b"))
    await bench.store.command(Cancel(run_id="run-b"))
    assert (await bench.take()).run.id == "run-a"


@clause
async def a_child_that_passes_its_deadline_wakes_the_parent(bench: Bench) -> None:
    parent = await bench.begin()
    late = bench.envelope("run-b", parent_id="run-a", deadline=bench.clock.wall() + 1)
    await bench.commit(parent, children=(late,))
    await bench.suspend(parent, child("run-b"))
    bench.clock.advance(2)
    woken = await bench.claim() or await bench.claim()
    assert [claim.run.id for claim in woken] == ["run-a"]


@clause
async def two_branches_may_wait_for_one_child(bench: Bench) -> None:
    parent = await bench.begin()
    first, second = child("run-b", branch="0"), child("run-b", branch="1")
    await bench.commit(parent, children=(bench.envelope("run-b", parent_id="run-a"),), waits=(first, second))
    claim = await bench.take()
    await bench.commit(parent, waited(0, first), settle=Suspended())
    assert (await bench.run()).state is RunState.WAITING
    await bench.succeed(claim)
    assert (await bench.take()).run.id == "run-a"


@clause
async def a_run_may_wait_for_a_run_that_it_did_not_start(bench: Bench) -> None:
    claim = await bench.begin("run-b")
    await bench.suspend(await bench.begin("run-a"), child("run-b"))
    await bench.succeed(claim)
    assert (await bench.take()).run.id == "run-a"


@clause
async def a_timer_that_is_over_queues_the_run_at_once(bench: Bench) -> None:
    await bench.suspend(await bench.begin(), timer(bench.clock.wall()), signal())
    assert (await bench.run()).state is RunState.QUEUED
    await bench.take()


@clause
async def a_timer_wakes_the_run_when_it_is_due(bench: Bench) -> None:
    due = bench.clock.wall() + 60
    await bench.suspend(await bench.begin(), timer(due), timer(due + 99, occurrence=1))
    assert (await bench.run()).due_at == due
    bench.clock.advance(59)
    assert await bench.claim() == []
    bench.clock.advance(1)
    await bench.take()


@clause
async def a_wait_that_times_out_wakes_the_run(bench: Bench) -> None:
    await bench.suspend(await bench.begin(), signal(due_at=bench.clock.wall() + 5))
    bench.clock.advance(5)
    await bench.take()
    assert await bench.store.inbox(["run-a"]) == []


@clause
async def a_cancel_before_the_suspension_settles_the_run(bench: Bench) -> None:
    claim = await bench.begin()
    await bench.store.command(Cancel(run_id="run-a"))
    assert await bench.write(claim, waits=(signal(),), settle=Suspended()) is Verdict.CANCELLED
    assert (await bench.run()).state is RunState.CANCELLED
    assert await bench.store.waits("run-a") == []


@clause
async def a_cancel_after_the_suspension_settles_the_run(bench: Bench) -> None:
    await bench.suspend(await bench.begin(), signal())
    await bench.store.command(Cancel(run_id="run-a"))
    assert (await bench.run()).state is RunState.CANCELLED
    assert await bench.claim() == []


@clause
async def a_suspended_run_can_always_be_woken(bench: Bench) -> None:
    await bench.commit(await bench.begin(), settle=Suspended())
    assert (await bench.run()).state is not RunState.WAITING
    await bench.take()


@clause
async def a_wait_that_the_suspending_write_closes_does_not_count(bench: Bench) -> None:
    claim = await bench.begin()
    await send(bench, 1)
    await bench.commit(claim, waits=(signal(),))
    [arrival] = await bench.store.inbox(["run-a"])
    await bench.commit(claim, waited(0, signal()), waits=(signal("next"),), signals=(arrival.signal,), settle=Suspended())
    assert (await bench.run()).state is RunState.WAITING
    assert await bench.store.waits("run-a") == [signal("next")]


@clause
async def suspending_and_signalling_at_once_loses_no_wakeup(bench: Bench) -> None:
    for n in range(RACES):
        run_id = f"run-{n:02d}"
        claim = await bench.begin(run_id)
        suspension = Write(ref=claim.ref, waits=(signal(),), settle=Suspended())
        sending = Send(run_id=run_id, name="go", signal_id="1", payload=b"1")
        racers = [bench.store.write(suspension), bench.other.command(sending)]
        await asyncio.gather(*(racers if n % 2 else reversed(racers)))
        await bench.succeed(await bench.take())


@clause
async def suspending_and_ending_a_child_at_once_loses_no_wakeup(bench: Bench) -> None:
    for n in range(RACES):
        parent = await bench.begin(f"run-{n:02d}-p")
        await bench.commit(parent, children=(bench.envelope(f"run-{n:02d}-c", parent_id=parent.run.id),))
        claim = await bench.take()
        racers = [bench.suspend(parent, child(claim.run.id)), bench.succeed(claim)]
        await asyncio.gather(*(racers if n % 2 else reversed(racers)))
        await bench.succeed(await bench.take())


@clause
async def suspending_and_cancelling_at_once_always_cancels(bench: Bench) -> None:
    for n in range(RACES):
        run_id = f"run-{n:02d}"
        claim = await bench.begin(run_id)
        racers = [bench.write(claim, waits=(signal(),), settle=Suspended()), bench.other.command(Cancel(run_id=run_id))]
        await asyncio.gather(*(racers if n % 2 else reversed(racers)))
        assert (await bench.run(run_id)).state is RunState.CANCELLED


@clause
async def many_signals_at_once_arrive_each_once(bench: Bench) -> None:
    await bench.suspend(await bench.begin(), signal())
    commands = [Send(run_id="run-a", name="go", signal_id=str(n % 25), payload=b"%d" % (n % 25)) for n in range(50)]
    await asyncio.gather(*((bench.other if n % 2 else bench.store).command(c) for n, c in enumerate(commands)))
    await bench.take()
    assert len(await bench.store.inbox(["run-a"])) == 25


@clause
async def a_paused_run_is_woken_but_not_claimed(bench: Bench) -> None:
    await bench.suspend(await bench.begin(), signal())
    await bench.store.command(Pause(run_id="run-a"))
    await send(bench, 1)
    assert await bench.claim() == []
    await bench.store.command(Resume(run_id="run-a"))
    await bench.take()


@clause
async def a_woken_run_keeps_its_journal_and_attempt(bench: Bench) -> None:
    claim = await bench.begin()
    await bench.commit(claim, entry(0), waits=(signal(),), settle=Suspended())
    await send(bench, 1)
    taken = await bench.take("w2")
    assert (len(taken.journal), taken.run.attempt, taken.run.takeovers, taken.run.suspect) == (1, 1, 0, False)

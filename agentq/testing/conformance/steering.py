"""Clauses about commands: cancel, pause, retry, fork, and what they do to runs in every state."""

# ruff: noqa: D103, PLR2004, S101 - a clause is named after what it proves, and asserts it with plain values

from __future__ import annotations

import asyncio

from agentq.message import (
    Cancel,
    Cancelled,
    Crashed,
    Entry,
    EntryKind,
    Failed,
    Failure,
    Fork,
    Pause,
    Released,
    Reply,
    Requeue,
    Resume,
    Retried,
    RunState,
    Send,
    Settlement,
    SetWorker,
    Succeeded,
    Suspended,
    Verdict,
    WorkerState,
    Write,
)
from agentq.testing.conformance.bench import Bench, child, clause, entry, signal, timer, waited

FAILURE = Failure(type="E", message="m")


@clause
async def commands_for_what_is_not_there_answer_not_found(bench: Bench) -> None:
    for command in (
        Cancel(run_id="no"), Pause(run_id="no"), Resume(run_id="no"), Requeue(run_id="no"),
        Send(run_id="no", name="n", signal_id="1", payload=b"1"), Fork(run_id="no", new_id="new", upto=0),
        SetWorker(worker_id="no", state=WorkerState.CORDONED),
    ):  # fmt: skip
        assert await bench.store.command(command) is Reply.NOT_FOUND, command


@clause
async def a_run_that_is_not_running_is_cancelled_at_once(bench: Bench) -> None:
    await bench.suspend(await bench.begin("run-w"), signal())
    await bench.submit("run-q")
    await bench.submit("run-d", due_at=bench.clock.wall() + 60)
    for name in ("run-w", "run-q", "run-d"):
        assert await bench.store.command(Cancel(run_id=name)) is Reply.DONE
        run = await bench.run(name)
        assert (run.state, run.finished_at, run.lease_s) == (RunState.CANCELLED, bench.clock.wall(), None)
    bench.clock.advance(99)
    assert await bench.claim() == []


@clause
async def a_running_run_gets_a_flag_that_its_worker_sees(bench: Bench) -> None:
    claim = await bench.begin()
    assert (await bench.beat("w1", claim)).cancel == ()
    assert await bench.store.command(Cancel(run_id="run-a")) is Reply.DONE
    run = await bench.run()
    assert (run.state, run.cancelling) == (RunState.RUNNING, True)
    assert (await bench.beat("w1", claim)).cancel == ("run-a",)
    await bench.stop(claim)
    assert (await bench.run()).state is RunState.CANCELLED


@clause
async def steps_that_end_under_the_flag_are_still_recorded(bench: Bench) -> None:
    claim = await bench.begin()
    await bench.store.command(Cancel(run_id="run-a"))
    await bench.commit(claim, entry(0))
    assert await bench.write(claim, entry(1), settle=Succeeded(result=b"1")) is Verdict.CANCELLED
    assert len(await bench.store.journal("run-a")) == 2


@clause
async def every_settlement_after_a_cancel_is_cancelled(bench: Bench) -> None:
    settlements: tuple[Settlement, ...] = (
        Succeeded(result=b"1"), Failed(failure=FAILURE), Retried(failure=FAILURE, delay_s=0), Suspended(),
    )  # fmt: skip
    for n, settle in enumerate(settlements):
        claim = await bench.begin(f"run-{n}")
        await bench.store.command(Cancel(run_id=f"run-{n}"))
        write = Write(ref=claim.ref, waits=(timer(9e9),), settle=settle)
        assert await bench.store.write(write) is Verdict.CANCELLED, settle
        run = await bench.run(f"run-{n}")
        assert (run.state, run.result) == (RunState.CANCELLED, None)


@clause
async def a_hand_back_after_a_cancel_is_never_handed_out_again(bench: Bench) -> None:
    for n, settle in enumerate((Released(), Crashed(failure=FAILURE))):
        claim = await bench.begin(f"run-{n}")
        await bench.store.command(Cancel(run_id=f"run-{n}"))
        await bench.write(claim, settle=settle)
        assert await bench.claim() == []
        assert (await bench.run(f"run-{n}")).state is RunState.CANCELLED


@clause
async def a_run_may_end_as_cancelled_by_itself(bench: Bench) -> None:
    claim = await bench.begin()
    await bench.commit(claim, entry(0), settle=Cancelled())
    assert (await bench.run()).state is RunState.CANCELLED


@clause
async def the_first_of_success_and_cancel_wins(bench: Bench) -> None:
    for n in range(10):
        run_id = f"run-{n}"
        claim = await bench.begin(run_id)
        racers = [bench.write(claim, settle=Succeeded(result=b"1")), bench.other.command(Cancel(run_id=run_id))]
        await asyncio.gather(*(racers if n % 2 else reversed(racers)))
        run = await bench.run(run_id)
        assert run.state in {RunState.SUCCEEDED, RunState.CANCELLED}
        again = await bench.write(claim, settle=Succeeded(result=b"1"))
        assert (again is Verdict.COMMITTED) == (run.state is RunState.SUCCEEDED)


@clause
async def a_cancel_reaches_the_whole_subtree(bench: Bench) -> None:
    root = await bench.begin("root")
    await bench.commit(
        root, children=(bench.envelope("kid-done", parent_id="root"), bench.envelope("kid-run", parent_id="root"))
    )
    kids = {claim.run.id: claim for claim in await bench.claim()}
    await bench.commit(kids["kid-done"], children=(bench.envelope("grand-a", parent_id="kid-done"),))
    await bench.succeed(kids["kid-done"])
    await bench.commit(kids["kid-run"], children=(bench.envelope("grand-b", parent_id="kid-run"),))
    await bench.submit("stranger")
    assert await bench.store.command(Cancel(run_id="root")) is Reply.DONE
    for name in ("root", "kid-run"):
        assert (await bench.run(name)).cancelling, name
    for name in ("grand-a", "grand-b"):
        assert (await bench.run(name)).state is RunState.CANCELLED, name
    assert (await bench.run("kid-done")).state is RunState.SUCCEEDED
    assert (await bench.run("stranger")).state is RunState.QUEUED


@clause
async def a_parent_that_fails_for_good_takes_its_subtree_with_it(bench: Bench) -> None:
    root = await bench.begin("root")
    await bench.commit(
        root, children=(bench.envelope("kid-wait", parent_id="root"), bench.envelope("kid-run", parent_id="root"))
    )
    kids = {claim.run.id: claim for claim in await bench.claim()}
    await bench.suspend(kids["kid-wait"], signal())
    await bench.submit("stranger")
    assert await bench.write(root, settle=Failed(failure=FAILURE)) is Verdict.COMMITTED
    assert (await bench.run("root")).state is RunState.FAILED
    assert (await bench.run("kid-wait")).state is RunState.CANCELLED
    assert (await bench.run("kid-run")).cancelling
    assert (await bench.run("stranger")).state is RunState.QUEUED


@clause
async def what_the_context_records_for_itself_is_no_step(bench: Bench) -> None:
    claim = await bench.begin()
    await bench.commit(claim, entry(0, "ask"), entry(1, "ctx.now"))
    run = await bench.run("run-a")
    assert (run.entries, run.steps) == (2, 1)


@clause
async def a_parent_that_is_cancelled_with_its_child_is_not_woken(bench: Bench) -> None:
    parent = await bench.begin()
    await bench.commit(parent, children=(bench.envelope("run-b", parent_id="run-a"),))
    await bench.suspend(parent, signal())
    await bench.store.command(Cancel(run_id="run-a"))
    assert [(await bench.run(name)).state for name in ("run-a", "run-b")] == [RunState.CANCELLED] * 2
    assert await bench.claim() == []


@clause
async def no_child_starts_after_a_cancel(bench: Bench) -> None:
    claim = await bench.begin()
    await bench.store.command(Cancel(run_id="run-a"))
    verdict = await bench.write(claim, entry(0), children=(bench.envelope("run-b", parent_id="run-a"),), waits=(signal(),))
    assert verdict is Verdict.CANCELLED
    assert await bench.store.journal("run-a") == []
    assert await bench.store.waits("run-a") == []
    assert (await bench.run()).state is RunState.RUNNING
    assert (await bench.submit("run-b"))[0].created


@clause
async def cancelling_again_changes_nothing_and_what_is_final_refuses(bench: Bench) -> None:
    claim = await bench.begin()
    replies = [await bench.store.command(Cancel(run_id="run-a")) for _ in range(2)]
    assert replies == [Reply.DONE, Reply.UNCHANGED]
    await bench.stop(claim)
    assert await bench.store.command(Cancel(run_id="run-a")) is Reply.UNCHANGED
    await bench.succeed(await bench.begin("run-b"))
    assert await bench.store.command(Cancel(run_id="run-b")) is Reply.REFUSED


@clause
async def nothing_claims_a_paused_run_until_it_is_resumed(bench: Bench) -> None:
    await bench.submit("run-a")
    replies = [await bench.store.command(Pause(run_id="run-a")) for _ in range(2)]
    assert replies == [Reply.DONE, Reply.UNCHANGED]
    assert (await bench.run()).paused
    assert await bench.claim() == []
    replies = [await bench.store.command(Resume(run_id="run-a")) for _ in range(2)]
    assert replies == [Reply.DONE, Reply.UNCHANGED]
    await bench.take()


@clause
async def a_running_run_that_is_paused_is_held_once_it_is_handed_back(bench: Bench) -> None:
    settlements: tuple[Settlement, ...] = (Released(reason="pause"), Retried(failure=FAILURE, delay_s=0), Suspended())
    for n, settle in enumerate(settlements):
        claim = await bench.begin(f"run-{n}")
        await bench.store.command(Pause(run_id=f"run-{n}"))
        assert (await bench.beat("w1", claim)).pause == (f"run-{n}",)
        await bench.commit(claim, waits=(timer(bench.clock.wall()),), settle=settle)
        assert await bench.claim() == []
        await bench.store.command(Resume(run_id=f"run-{n}"))
        await bench.succeed(await bench.take())


@clause
async def a_paused_run_can_be_cancelled(bench: Bench) -> None:
    await bench.submit("run-a")
    await bench.store.command(Pause(run_id="run-a"))
    await bench.store.command(Cancel(run_id="run-a"))
    assert (await bench.run()).state is RunState.CANCELLED


@clause
async def what_is_final_cannot_be_paused(bench: Bench) -> None:
    await bench.succeed(await bench.begin())
    assert await bench.store.command(Pause(run_id="run-a")) is Reply.REFUSED


@clause
async def a_retry_keeps_the_journal_and_supersedes_only_the_escaped_failure(bench: Bench) -> None:
    claim = await bench.begin()
    caught = entry(0, kind=EntryKind.FAILED)
    escaped = entry(1, "late", kind=EntryKind.FAILED, branch="0", occurrence=2, attempt=3)
    await bench.commit(claim, settle=Retried(failure=FAILURE, delay_s=0))
    failure = Failure(type="E", message="m", step="late", seq=1)
    await bench.commit(await bench.take(), caught, escaped, settle=Failed(failure=failure))
    assert await bench.store.command(Requeue(run_id="run-a")) is Reply.DONE
    run = await bench.run()
    assert (run.state, run.attempt, run.finished_at, run.result) == (RunState.QUEUED, 1, None, None)
    taken = await bench.take()
    assert taken.journal[:2] == (caught, escaped)
    [added] = taken.journal[2:]
    assert (added.seq, added.kind, added.identity, added.attempt) == (2, EntryKind.SUPERSEDED, ("0", "late", 2), 3)
    await bench.commit(taken, entry(3))
    await bench.succeed(taken)


@clause
async def a_retry_supersedes_an_escaped_wait_as_well(bench: Bench) -> None:
    escaped = waited(0, child("run-b"))
    failure = Failure(type="ChildFailed", message="m", step=escaped.step, seq=0)
    await bench.commit(await bench.begin(), escaped, settle=Failed(failure=failure))
    await bench.store.command(Requeue(run_id="run-a"))
    _, added = await bench.store.journal("run-a")
    assert (added.kind, added.identity, added.attempt) == (EntryKind.SUPERSEDED, escaped.identity, 1)


@clause
async def a_retry_starts_afresh(bench: Bench) -> None:
    claim = await bench.begin()
    await bench.commit(claim, settle=Retried(failure=FAILURE, delay_s=0), running_s=5.0)
    claim = await bench.take()
    await bench.commit(claim, settle=Crashed(failure=FAILURE))
    claim = await bench.take()
    await bench.store.command(Pause(run_id="run-a"))
    await bench.commit(claim, settle=Failed(failure=FAILURE))
    await bench.store.command(Requeue(run_id="run-a"))
    run = (await bench.take()).run
    assert (run.attempt, run.deaths, run.suspect, run.running_s, run.paused) == (1, 0, False, 0.0, False)


@clause
async def a_cancelled_run_can_be_retried(bench: Bench) -> None:
    claim = await bench.begin()
    await bench.store.command(Cancel(run_id="run-a"))
    await bench.stop(claim)
    assert await bench.store.command(Requeue(run_id="run-a")) is Reply.DONE
    taken = await bench.take()
    assert not taken.run.cancelling
    assert (await bench.beat("w1", taken)).cancel == ()
    await bench.succeed(taken)


@clause
async def only_failed_and_cancelled_runs_can_be_retried(bench: Bench) -> None:
    await bench.submit("run-a")
    assert await bench.store.command(Requeue(run_id="run-a")) is Reply.REFUSED
    claim = await bench.take()
    assert await bench.store.command(Requeue(run_id="run-a")) is Reply.REFUSED
    await bench.succeed(claim)
    assert await bench.store.command(Requeue(run_id="run-a")) is Reply.REFUSED
    assert (await bench.run()).state is RunState.SUCCEEDED


@clause
async def retrying_twice_supersedes_a_failure_once(bench: Bench) -> None:
    failure = Failure(type="E", message="m", step="step", seq=0)
    claim = await bench.begin()
    await bench.commit(claim, entry(0, kind=EntryKind.FAILED), settle=Failed(failure=failure))
    await bench.store.command(Requeue(run_id="run-a"))
    await bench.store.command(Cancel(run_id="run-a"))
    assert await bench.store.command(Requeue(run_id="run-a")) is Reply.DONE
    kinds = [e.kind for e in await bench.store.journal("run-a")]
    assert kinds == [EntryKind.FAILED, EntryKind.SUPERSEDED]


@clause
async def a_fork_starts_with_the_first_entries_and_no_usage(bench: Bench) -> None:
    claim = await bench.begin(args=b'{"n":7}', tenant="acme", tags={"a": "b"}, priority=2, key="k")
    entries: tuple[Entry, ...] = tuple(entry(n, tokens=5, cost_nanos=6) for n in range(4))
    await bench.commit(claim, *entries)
    before = await bench.run()
    assert await bench.store.command(Fork(run_id="run-a", new_id="run-b", upto=2)) is Reply.DONE
    fork = await bench.run("run-b")
    for name in ("task", "queue", "app", "args", "args_hash", "tenant", "tags", "priority"):
        assert getattr(fork, name) == getattr(before, name), name
    assert (fork.state, fork.fork_of, fork.entries, fork.steps) == (RunState.QUEUED, "run-a", 2, 2)
    assert (fork.tokens, fork.cost_nanos, fork.attempt, fork.epoch) == (0, 0, 1, 0)
    taken = await bench.take()
    assert taken.journal == entries[:2]
    await bench.commit(taken, entry(2, "new way"), settle=Succeeded(result=b"2"))
    assert await bench.run() == before
    assert tuple(await bench.store.journal("run-a")) == entries


@clause
async def forking_to_an_id_that_exists_changes_nothing(bench: Bench) -> None:
    claim = await bench.begin()
    await bench.commit(claim, entry(0), entry(1))
    replies = [await bench.store.command(Fork(run_id="run-a", new_id="run-b", upto=upto)) for upto in (1, 1, 2)]
    assert replies[:2] == [Reply.DONE, Reply.UNCHANGED]
    assert len(await bench.store.journal("run-b")) == 1


@clause
async def a_fork_has_the_snapshots_that_its_journal_tells_of(bench: Bench) -> None:
    claim = await bench.begin()
    await bench.commit(claim, entry(0, kind=EntryKind.SAVED, branch="0"), snapshot=("0", b"early"))
    await bench.commit(claim, entry(1, kind=EntryKind.SAVED), snapshot=("", b"late"))
    await bench.succeed(claim)
    await bench.store.command(Fork(run_id="run-a", new_id="run-b", upto=1))
    await bench.store.command(Fork(run_id="run-a", new_id="run-c", upto=2))
    forks = {fork.run.id: fork.snapshots for fork in await bench.claim()}
    assert forks == {"run-b": {"0": b"early"}, "run-c": {"0": b"early", "": b"late"}}


@clause
async def a_fork_of_a_final_run_runs(bench: Bench) -> None:
    claim = await bench.begin(deadline=bench.clock.wall() + 5)
    await bench.commit(claim, entry(0), settle=Succeeded(result=b"1"))
    bench.clock.advance(60)
    await bench.store.command(Fork(run_id="run-a", new_id="run-b", upto=1))
    taken = await bench.take()
    assert (taken.run.id, taken.run.result, len(taken.journal)) == ("run-b", None, 1)


@clause
async def the_state_of_a_worker_is_the_operators(bench: Bench) -> None:
    assert (await bench.beat("w1")).state is WorkerState.ACTIVE
    command = SetWorker(worker_id="w1", state=WorkerState.DRAINING)
    assert [await bench.store.command(command) for _ in range(2)] == [Reply.DONE, Reply.UNCHANGED]
    assert (await bench.beat("w1", busy=1, state=WorkerState.ACTIVE)).state is WorkerState.DRAINING
    [worker] = (await bench.store.census()).workers
    assert (worker.state, worker.busy) == (WorkerState.DRAINING, 1)

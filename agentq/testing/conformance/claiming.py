"""Clauses about claims: what is handed out, in which order and to whom, and what is settled instead."""

# ruff: noqa: D103, PLR2004, S101 - a clause is named after what it proves, and asserts it with plain values

from __future__ import annotations

from agentq.message import (
    Cancel,
    ClaimRequest,
    Crashed,
    Failure,
    Pause,
    Released,
    Resume,
    Retried,
    RunState,
    Send,
    SetWorker,
    Suspended,
    Verdict,
    WorkerState,
)
from agentq.testing.conformance.bench import APP, LEASE_S, Bench, child, clause, entry, signal, timer

FAILURE = Failure(type="ValueError", message="no")
REQUEST = ClaimRequest(worker="w9", app=APP, queues=("queue",), tasks=("task",), limit=9, lease_s=LEASE_S)


async def _assert_too_late(bench: Bench) -> None:
    run = await bench.run()
    assert (run.state, run.owner) == (RunState.FAILED, None)
    assert run.failure is not None
    assert (run.failure.type, run.failure.permanent) == ("DeadlineExceeded", True)


@clause
async def claims_go_by_priority_then_by_due_time(bench: Bench) -> None:
    now = bench.clock.wall()
    await bench.submit("run-late", due_at=now - 10)
    await bench.submit("run-early", due_at=now - 20)
    await bench.submit("run-low", priority=-1, due_at=now - 99)
    await bench.submit("run-high", priority=1)
    assert [claim.run.id for claim in await bench.claim()] == ["run-high", "run-early", "run-late", "run-low"]


@clause
async def a_claim_of_one_gets_the_best(bench: Bench) -> None:
    await bench.begin("run-x", priority=1)
    bench.clock.advance(LEASE_S + 1)
    for name, priority in (("run-a", 0), ("run-b", 2), ("run-c", 1), ("run-d", 2)):
        await bench.submit(name, priority=priority)
    order = [(await bench.take(f"w{n}", limit=1)).run.id for n in range(5)]
    assert order == ["run-b", "run-d", "run-x", "run-c", "run-a"]


@clause
async def runs_of_one_priority_go_in_the_order_of_their_submission(bench: Bench) -> None:
    names = [f"run-{name}" for name in "zbxa"]
    for name in names:
        await bench.submit(name)
        bench.clock.advance(1)
    assert [claim.run.id for claim in await bench.claim(limit=3)] == names[:3]
    assert [claim.run.id for claim in await bench.claim()] == names[3:]


@clause
async def the_first_queue_is_emptied_first(bench: Bench) -> None:
    await bench.submit("run-a", queue="slow", priority=9)
    await bench.submit("run-b", "run-c", queue="fast")
    claims = await bench.claim(queues=("fast", "slow"), limit=2)
    assert {claim.run.id for claim in claims} == {"run-b", "run-c"}
    assert [claim.run.id for claim in await bench.claim(queues=("fast", "slow"))] == ["run-a"]


@clause
async def a_claim_takes_no_more_than_its_limit(bench: Bench) -> None:
    await bench.submit(*(f"run-{n}" for n in range(5)))
    assert await bench.claim(limit=0) == []
    assert len(await bench.claim(limit=2)) == 2
    assert len(await bench.claim(limit=9)) == 3


@clause
async def unknown_tasks_and_other_queues_stay(bench: Bench) -> None:
    await bench.submit("run-a", task="new")
    await bench.submit("run-b", queue="elsewhere")
    await bench.submit("run-c", app="another")
    await bench.submit("run-d")
    assert [claim.run.id for claim in await bench.claim()] == ["run-d"]
    assert (await bench.run("run-a")).state is RunState.QUEUED
    assert [claim.run.id for claim in await bench.claim(tasks=("new", "task"))] == ["run-a"]
    assert [claim.run.id for claim in await bench.claim(app="another")] == ["run-c"]


@clause
async def an_expired_run_of_an_unknown_task_stays_too(bench: Bench) -> None:
    await bench.begin()
    bench.clock.advance(LEASE_S + 1)
    assert await bench.claim("w2", tasks=("other",)) == []
    assert (await bench.take("w3")).run.id == "run-a"


@clause
async def a_claim_for_one_run_gets_it_and_its_descendants_only(bench: Bench) -> None:
    await bench.submit("run-a", "run-x")
    await bench.submit("run-b", root_id="run-a", parent_id="run-a")
    claims = await bench.claim(root="run-a")
    assert {claim.run.id for claim in claims} == {"run-a", "run-b"}
    assert await bench.claim(root="run-a") == []


@clause
async def a_claim_for_one_run_obeys_every_other_rule_too(bench: Bench) -> None:
    root = await bench.begin("root")
    await bench.submit("low", root_id="root")
    await bench.submit("high", root_id="root", priority=1)
    await bench.submit("unknown", root_id="root", task="other")
    assert (await bench.take(root="root", limit=1)).run.id == "high"
    await bench.commit(await bench.take(root="root"), settle=Crashed(failure=FAILURE))
    assert await bench.claim(root="root", suspects=False) == []
    assert (await bench.take(root="root")).run.id == "low"
    await bench.commit(root, entry(0))
    await bench.begin("stranger")
    bench.clock.advance(LEASE_S + 1)
    assert {claim.run.id for claim in await bench.claim("w2", root="root")} == {"root", "low", "high"}
    assert [claim.run.id for claim in await bench.claim("w2", root="stranger")] == ["stranger"]


@clause
async def a_delayed_run_is_claimable_from_its_time_on(bench: Bench) -> None:
    await bench.submit("run-a", due_at=bench.clock.wall() + 60)
    claims = await bench.store.claim(REQUEST)
    assert claims.claims == ()
    assert claims.next_due_s == 60
    bench.clock.advance(60)
    assert (await bench.take()).run.id == "run-a"


@clause
async def the_next_due_time_counts_timers_and_is_none_without_any(bench: Bench) -> None:
    assert (await bench.store.claim(REQUEST)).next_due_s is None
    claim = await bench.begin()
    await bench.suspend(claim, timer(bench.clock.wall() + 40), signal(due_at=bench.clock.wall() + 25))
    assert (await bench.store.claim(REQUEST)).next_due_s == 25
    await bench.store.command(Cancel(run_id="run-a"))
    assert (await bench.store.claim(REQUEST)).next_due_s is None


@clause
async def a_cordoned_or_draining_worker_gets_nothing(bench: Bench) -> None:
    await bench.submit("run-a")
    await bench.beat("w1")
    for state in (WorkerState.CORDONED, WorkerState.DRAINING):
        await bench.store.command(SetWorker(worker_id="w1", state=state))
        assert await bench.claim("w1") == []
    await bench.store.command(SetWorker(worker_id="w1", state=WorkerState.ACTIVE))
    assert len(await bench.claim("w1")) == 1


@clause
async def a_cordoned_worker_keeps_what_it_has(bench: Bench) -> None:
    await bench.beat("w1")
    claim = await bench.begin()
    await bench.store.command(SetWorker(worker_id="w1", state=WorkerState.CORDONED))
    assert (await bench.beat("w1", claim)).lost == ()
    await bench.commit(claim, entry(0))
    await bench.succeed(claim)


@clause
async def an_expired_run_with_the_cancel_flag_is_settled_without_being_handed_out(bench: Bench) -> None:
    zombie = await bench.begin()
    await bench.store.command(Cancel(run_id="run-a"))
    bench.clock.advance(LEASE_S + 1)
    assert await bench.claim("w2") == []
    run = await bench.run()
    assert (run.state, run.owner) == (RunState.CANCELLED, None)
    assert await bench.write(zombie, entry(0)) is Verdict.FENCED


@clause
async def the_cancel_flag_is_settled_whatever_else_holds_the_run(bench: Bench) -> None:
    await bench.begin("run-a")
    await bench.begin("run-b")
    await bench.store.command(Pause(run_id="run-a"))
    for name in ("run-a", "run-b"):
        await bench.store.command(Cancel(run_id=name))
    bench.clock.advance(LEASE_S + 1)
    assert await bench.claim("w2", tasks=("other",)) == []
    assert [(await bench.run(name)).state for name in ("run-a", "run-b")] == [RunState.CANCELLED] * 2


@clause
async def a_queued_run_past_its_deadline_fails_without_being_handed_out(bench: Bench) -> None:
    await bench.submit("run-a", deadline=bench.clock.wall() + 5)
    bench.clock.advance(6)
    assert await bench.claim() == []
    await _assert_too_late(bench)


@clause
async def a_delayed_run_past_its_deadline_fails_before_it_is_due(bench: Bench) -> None:
    await bench.submit("run-a", deadline=bench.clock.wall() + 5, due_at=bench.clock.wall() + 500)
    bench.clock.advance(6)
    assert await bench.claim() == []
    await _assert_too_late(bench)


@clause
async def a_waiting_run_past_its_deadline_fails(bench: Bench) -> None:
    claim = await bench.begin(deadline=bench.clock.wall() + 5)
    await bench.suspend(claim, signal())
    assert (await bench.store.claim(REQUEST)).next_due_s == 5
    bench.clock.advance(6)
    assert await bench.claim() == []
    await _assert_too_late(bench)
    assert await bench.store.waits("run-a") == []


@clause
async def an_expired_run_past_its_deadline_fails(bench: Bench) -> None:
    claim = await bench.begin(deadline=bench.clock.wall() + 5)
    bench.clock.advance(6)
    assert await bench.claim("w2") == []
    await bench.commit(claim, entry(0))
    bench.clock.advance(LEASE_S)
    assert await bench.claim("w2") == []
    await _assert_too_late(bench)


@clause
async def a_run_keeps_the_version_it_first_started_with(bench: Bench) -> None:
    await bench.submit("run-a")
    claim = await bench.take(version={"task": "1", "other": "9"})
    assert claim.run.version == "1"
    assert (await bench.taken_over(version={"task": "2"})).run.version == "1"
    assert (await bench.run()).version == "1"


@clause
async def a_run_keeps_the_time_it_first_started_at(bench: Bench) -> None:
    claim = await bench.begin()
    started = bench.clock.wall()
    assert claim.run.started_at == started
    assert (await bench.taken_over()).run.started_at == started


@clause
async def a_claim_hands_over_all_that_is_needed_to_resume(bench: Bench) -> None:
    claim = await bench.begin()
    entries = (entry(0), entry(1, "other", branch="0", value=b'"x"', tokens=3, args_hash="f00"))
    waits = (signal(ask="ok?"), timer(bench.clock.wall() + 9e6))
    await bench.commit(claim, *entries, waits=waits)
    taken = await bench.taken_over()
    assert taken.journal == entries
    assert {wait.step: wait for wait in taken.waits} == {wait.step: wait for wait in waits}
    assert taken.run.args == b'{"n":1}'
    assert taken.run.entries == 2


@clause
async def a_released_run_is_claimable_at_once(bench: Bench) -> None:
    await bench.commit(await bench.begin(), settle=Released())
    assert (await bench.run()).state is RunState.QUEUED
    assert (await bench.take("w2")).run.takeovers == 0


@clause
async def a_paused_run_whose_lease_expired_is_left_until_it_is_resumed(bench: Bench) -> None:
    await bench.begin()
    await bench.store.command(Pause(run_id="run-a"))
    bench.clock.advance(LEASE_S + 1)
    assert await bench.claim("w2") == []
    await bench.store.command(Resume(run_id="run-a"))
    assert (await bench.take("w2")).run.takeovers == 1


@clause
async def what_was_begun_goes_on_before_what_came_later(bench: Bench) -> None:
    first = await bench.begin("run-a")
    bench.clock.advance(1)
    await bench.submit("run-b")
    await bench.commit(first, settle=Released())
    first = await bench.take(limit=1)
    assert first.run.id == "run-a"
    await bench.suspend(first, timer(bench.clock.wall() + 5))
    bench.clock.advance(5)
    assert (await bench.take(limit=1)).run.id == "run-a"


@clause
async def a_retry_takes_its_turn_when_it_is_due(bench: Bench) -> None:
    await bench.commit(await bench.begin("run-a"), settle=Retried(failure=FAILURE, delay_s=10))
    bench.clock.advance(5)
    await bench.submit("run-b")
    bench.clock.advance(6)
    assert [claim.run.id for claim in await bench.claim()] == ["run-b", "run-a"]


@clause
async def a_signal_does_not_hurry_a_delayed_retry(bench: Bench) -> None:
    claim = await bench.begin()
    await bench.commit(claim, waits=(signal(),), settle=Retried(failure=FAILURE, delay_s=50))
    await bench.store.command(Send(run_id="run-a", name="go", signal_id="1", payload=b"1"))
    assert await bench.claim() == []
    bench.clock.advance(50)
    await bench.take()


@clause
async def a_takeover_counts_the_running_time_until_the_last_sign_of_life(bench: Bench) -> None:
    claim = await bench.begin()
    bench.clock.advance(10.0)
    await bench.beat("w1", claim)
    bench.clock.advance(LEASE_S + 1.0)
    (again,) = await bench.claim()
    assert abs(again.run.running_s - 10.0) < 0.01
    bench.clock.advance(4.0)
    await bench.commit(again, entry(0, ended_at=bench.clock.wall()))
    bench.clock.advance(LEASE_S)
    (third,) = await bench.claim()
    assert abs(third.run.running_s - 14.0) < 0.01
    await bench.write(third, settle=Released(), running_s=2.0)
    assert abs((await bench.run()).running_s - 16.0) < 0.01


@clause
async def what_a_deadline_takes_along_is_not_woken_by_the_same_claim(bench: Bench) -> None:
    for at, before in (("early", 3), ("late", 5)):
        now = bench.clock.wall()
        parent = await bench.begin(f"run-{at}", deadline=now + 4)
        kids = [bench.envelope(f"{at}-waits"), bench.envelope(f"{at}-delayed", due_at=now + before)]
        await bench.commit(parent, children=tuple(kids), waits=(child(f"{at}-waits"),))
        await bench.suspend(await bench.take(), timer(now + before))
        await bench.commit(parent, settle=Suspended())
        bench.clock.advance(6)
        assert await bench.claim("w2") == []
        for kid in kids:
            run = await bench.run(kid.id)
            assert (run.state, run.due_at) == (RunState.CANCELLED, None)
        assert await bench.claim("w2") == []

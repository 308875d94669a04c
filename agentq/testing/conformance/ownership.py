"""Clauses about ownership: at most one epoch of a run can write, and leases age on the steady clock alone."""

# ruff: noqa: D103, PLR2004, S101 - a clause is named after what it proves, and asserts it with plain values

from __future__ import annotations

import asyncio

from agentq.message import (
    Chunk,
    ClaimRef,
    EntryKind,
    Failed,
    Failure,
    Released,
    Requeue,
    Retried,
    RunState,
    Send,
    Succeeded,
    Suspended,
    Verdict,
    Write,
)
from agentq.testing.conformance.bench import LEASE_S, Bench, clause, entry, signal, stale

HALF_S = LEASE_S / 2 + 1
DAYS_S = 10 * 86_400.0


@clause
async def each_claim_has_the_next_epoch_and_a_fresh_token(bench: Bench) -> None:
    first = await bench.begin()
    second = await bench.taken_over()
    third = await bench.taken_over("w3")
    assert [c.ref.epoch for c in (first, second, third)] == [1, 2, 3]
    assert len({c.ref.token for c in (first, second, third)}) == 3
    assert all(c.run.epoch == c.ref.epoch for c in (first, second, third))


@clause
async def the_epoch_never_resets(bench: Bench) -> None:
    claim = await bench.begin()
    await bench.commit(claim, settle=Released())
    claim = await bench.take()
    await bench.commit(claim, settle=Retried(failure=Failure(type="E", message="m"), delay_s=0))
    claim = await bench.take()
    await bench.suspend(claim, signal())
    await bench.store.command(Send(run_id="run-a", name="go", signal_id="1", payload=b"1"))
    claim = await bench.take()
    await bench.commit(claim, settle=Failed(failure=Failure(type="E", message="m")))
    await bench.store.command(Requeue(run_id="run-a"))
    claim = await bench.take()
    assert claim.ref.epoch == 5


@clause
async def a_write_with_an_old_epoch_is_refused(bench: Bench) -> None:
    zombie = await bench.begin()
    owner = await bench.taken_over()
    assert await bench.write(zombie, entry(0)) is Verdict.FENCED
    await bench.commit(owner, entry(0))


@clause
async def a_write_with_an_old_epoch_is_refused_after_a_hand_back_too(bench: Bench) -> None:
    zombie = await bench.begin()
    await bench.commit(zombie, settle=Released())
    assert await bench.write(zombie, entry(0)) is Verdict.FENCED
    await bench.take("w2")
    assert await bench.write(zombie, entry(0), settle=Succeeded(result=b"1")) is Verdict.FENCED
    assert (await bench.run()).state is RunState.RUNNING


@clause
async def a_write_with_a_wrong_token_is_refused(bench: Bench) -> None:
    claim = await bench.begin()
    assert await bench.store.write(Write(ref=stale(claim), entries=(entry(0),))) is Verdict.FENCED
    assert await bench.store.journal("run-a") == []


@clause
async def a_refused_write_changes_nothing(bench: Bench) -> None:
    zombie = await bench.begin()
    await bench.taken_over()
    before = await bench.run()
    verdict = await bench.write(
        zombie,
        entry(0, kind=EntryKind.SAVED, tokens=5),
        waits=(signal(),),
        children=(bench.envelope("run-b"),),
        snapshot=("", b"{}"),
        chunks=(Chunk(topic="t", payload=b"1", epoch=1, n=0, at=0.0),),
        progress=(0.5, "half"),
        settle=Succeeded(result=b"1"),
        running_s=7.0,
    )
    assert verdict is Verdict.FENCED
    assert await bench.run() == before
    assert await bench.store.journal("run-a") == []
    assert await bench.store.waits("run-a") == []
    assert await bench.store.stream("run-a") == []
    assert not (await bench.submit("run-a"))[0].created
    assert (await bench.submit("run-b"))[0].created


@clause
async def a_zombie_between_live_writes_has_its_own_verdict_and_harms_no_neighbour(bench: Bench) -> None:
    zombie = await bench.begin("run-z")
    await bench.taken_over()
    await bench.submit(*(f"run-{n:02d}" for n in range(20)))
    live = await bench.claim()
    before, after = live[:10], live[10:]
    verdicts = await asyncio.gather(*(bench.write(claim, entry(0)) for claim in (*before, zombie, *after)))
    assert [verdict for verdict in verdicts if verdict is not Verdict.COMMITTED] == [Verdict.FENCED]
    assert verdicts[10] is Verdict.FENCED
    assert [len(await bench.store.journal(claim.run.id)) for claim in live] == [1] * 20


@clause
async def a_write_to_a_final_run_is_refused(bench: Bench) -> None:
    claim = await bench.begin()
    await bench.succeed(claim)
    assert await bench.write(claim, entry(0)) is Verdict.FENCED
    assert await bench.write(claim) is Verdict.FENCED
    assert await bench.store.journal("run-a") == []


@clause
async def a_write_to_a_run_that_is_not_there_is_refused(bench: Bench) -> None:
    ref = ClaimRef(run_id="nowhere", epoch=1, token=1)
    assert await bench.store.write(Write(ref=ref, entries=(entry(0),))) is Verdict.FENCED


@clause
async def an_empty_write_proves_ownership(bench: Bench) -> None:
    zombie = await bench.begin()
    assert await bench.write(zombie) is Verdict.COMMITTED
    owner = await bench.taken_over()
    assert await bench.write(zombie) is Verdict.FENCED
    assert await bench.write(owner) is Verdict.COMMITTED


@clause
async def an_expired_lease_that_nobody_took_still_owns(bench: Bench) -> None:
    claim = await bench.begin()
    bench.clock.advance(LEASE_S + 1)
    await bench.commit(claim, entry(0))
    await bench.succeed(claim)
    assert (await bench.run()).state is RunState.SUCCEEDED


@clause
async def a_heartbeat_renews_the_claims_it_lists_and_no_others(bench: Bench) -> None:
    await bench.submit("run-a", "run-b")
    kept, dropped = sorted(await bench.claim(), key=lambda claim: claim.run.id)
    bench.clock.advance(HALF_S)
    await bench.beat("w1", kept)
    bench.clock.advance(HALF_S)
    assert [claim.run.id for claim in await bench.claim("w2")] == [dropped.run.id]
    await bench.commit(kept, entry(0))


@clause
async def a_heartbeat_renews_an_expired_lease_that_nobody_took(bench: Bench) -> None:
    claim = await bench.begin()
    bench.clock.advance(LEASE_S + 1)
    assert (await bench.beat("w1", claim)).lost == ()
    assert await bench.claim("w2") == []


@clause
async def a_heartbeat_names_the_claims_that_are_lost(bench: Bench) -> None:
    await bench.submit("run-a", "run-b")
    taken, kept = sorted(await bench.claim(), key=lambda claim: claim.run.id)
    bench.clock.advance(HALF_S)
    await bench.beat("w1", kept)
    bench.clock.advance(HALF_S)
    owner = await bench.take("w2")
    assert (await bench.beat("w1", taken, kept)).lost == (taken.ref,)
    assert (await bench.beat("w2", owner)).lost == ()


@clause
async def a_heartbeat_with_a_stale_claim_renews_nothing(bench: Bench) -> None:
    zombie = await bench.begin()
    owner = await bench.taken_over()
    bench.clock.advance(HALF_S)
    await bench.beat("w1", zombie)
    answer = await bench.store.beat(bench.worker("w1"), [stale(owner)], LEASE_S)
    assert answer.lost == (stale(owner),)
    bench.clock.advance(HALF_S)
    assert (await bench.take("w3")).ref.epoch == owner.ref.epoch + 1


@clause
async def a_heartbeat_lists_settled_claims_as_lost(bench: Bench) -> None:
    claim = await bench.begin()
    await bench.succeed(claim)
    assert (await bench.beat("w1", claim)).lost == (claim.ref,)


@clause
async def stepping_the_wall_clock_expires_no_lease(bench: Bench) -> None:
    claim = await bench.begin()
    await bench.beat("w1", claim)
    for step_s in (DAYS_S, -2 * DAYS_S):
        bench.clock.step_wall(step_s)
        assert await bench.claim("w2") == []
        assert [worker.id for worker in (await bench.store.census()).workers] == ["w1"]
    bench.clock.advance(LEASE_S + 1)
    assert (await bench.take("w2")).ref.epoch == claim.ref.epoch + 1


@clause
async def the_runs_of_a_worker_that_leaves_are_claimable_at_once(bench: Bench) -> None:
    claim = await bench.begin()
    await bench.beat("w1", claim)
    await bench.store.leave("w1")
    assert (await bench.store.census()).workers == ()
    taken = await bench.take("w2")
    assert (taken.run.takeovers, taken.run.suspect) == (1, True)
    await bench.store.leave("w1")
    await bench.commit(taken, entry(0))


@clause
async def runs_of_others_stay_when_a_worker_leaves(bench: Bench) -> None:
    await bench.begin()
    await bench.store.leave("w2")
    assert await bench.claim("w3") == []


@clause
async def workers_that_claim_at_once_share_no_run(bench: Bench) -> None:
    await bench.submit(*(f"run-{n:02d}" for n in range(30)))
    handles = [bench.store, bench.other] * 5
    batches = await asyncio.gather(*(bench.claim(f"w{n}", limit=4, store=store) for n, store in enumerate(handles)))
    taken = [claim.run.id for batch in batches for claim in batch]
    assert len(taken) == len(set(taken)) == 30


@clause
async def running_has_a_lease_and_final_has_none(bench: Bench) -> None:
    claim = await bench.begin()
    run = await bench.run()
    assert (run.state, run.owner, run.lease_s) == (RunState.RUNNING, "w1", LEASE_S)
    bench.clock.advance(LEASE_S + 5)
    assert (await bench.run()).lease_s == -5
    await bench.succeed(claim)
    run = await bench.run()
    assert (run.owner, run.lease_s) == (None, None)


@clause
async def waiting_and_queued_have_no_lease(bench: Bench) -> None:
    claim = await bench.begin()
    await bench.suspend(claim, signal())
    run = await bench.run()
    assert (run.state, run.owner, run.lease_s) == (RunState.WAITING, None, None)
    await bench.store.command(Send(run_id="run-a", name="go", signal_id="1", payload=b"1"))
    run = await bench.run()
    assert (run.state, run.owner, run.lease_s) == (RunState.QUEUED, None, None)


@clause
async def another_handle_on_the_same_data_is_fenced_alike(bench: Bench) -> None:
    zombie = await bench.begin()
    bench.clock.advance(LEASE_S + 1)
    owner = await bench.take("w2", store=bench.other)
    assert await bench.write(zombie, entry(0)) is Verdict.FENCED
    write = Write(ref=owner.ref, entries=(entry(0),), settle=Suspended())
    assert await bench.other.write(write) is Verdict.COMMITTED
    assert len(await bench.store.journal("run-a")) == 1

"""Clauses about dead workers: takeovers, suspects, deaths, and what a hand-back is not."""

# ruff: noqa: D103, PLR2004, S101 - a clause is named after what it proves, and asserts it with plain values

from __future__ import annotations

from agentq.message import (
    Crashed,
    Failure,
    Fork,
    Released,
    Retried,
    RunState,
    Succeeded,
    Suspended,
    Write,
)
from agentq.testing.conformance.bench import LEASE_S, Bench, clause, entry, timer

FAILURE = Failure(type="ValueError", message="no")


@clause
async def a_takeover_without_growth_makes_the_run_suspect(bench: Bench) -> None:
    await bench.begin()
    run = (await bench.taken_over()).run
    assert (run.takeovers, run.suspect, run.deaths, run.attempt) == (1, True, 0, 1)
    assert (run.owner, run.state) == ("w2", RunState.RUNNING)


@clause
async def a_takeover_after_growth_does_not(bench: Bench) -> None:
    await bench.commit(await bench.begin(), entry(0))
    run = (await bench.taken_over()).run
    assert (run.takeovers, run.suspect, run.deaths) == (1, False, 0)


@clause
async def a_lease_that_ends_under_a_suspect_without_growth_counts_a_loss(bench: Bench) -> None:
    await bench.begin()
    taken = []
    for n in range(4):
        claim = await bench.taken_over(f"w{n}")
        taken.append(claim.run)
        for _ in range(2):  # the second is a repetition of the first
            await bench.store.write(Write(ref=claim.ref, begins=True))
    assert [(run.suspect, run.losses, run.deaths) for run in taken] == [(True, n, 0) for n in range(4)]


@clause
async def a_suspect_whose_code_had_not_begun_lost_nothing(bench: Bench) -> None:
    await bench.store.write(Write(ref=(await bench.begin()).ref, begins=True))
    taken = [(await bench.taken_over(f"w{n}")).run for n in range(4)]
    assert [(run.suspect, run.losses) for run in taken] == [(True, 0)] * 4


@clause
async def a_crash_is_a_death_and_no_loss_beside(bench: Bench) -> None:
    await bench.begin()
    await bench.store.write(Write(ref=(await bench.taken_over()).ref, begins=True))
    for deaths in range(1, 4):
        claim = await bench.taken_over() if deaths == 1 else await bench.take()
        await bench.store.write(Write(ref=claim.ref, begins=True))
        await bench.commit(claim, settle=Crashed(failure=FAILURE))
        run = await bench.run("run-a")
        assert (run.suspect, run.deaths, run.losses) == (True, deaths, 1)


@clause
async def growth_clears_suspicion_deaths_and_losses(bench: Bench) -> None:
    await bench.begin()
    await bench.store.write(Write(ref=(await bench.taken_over()).ref, begins=True))
    await bench.commit(await bench.taken_over("w3"), settle=Crashed(failure=FAILURE))
    claim = await bench.take("w3")
    assert (claim.run.deaths, claim.run.losses) == (1, 1)
    await bench.commit(claim, entry(0))
    run = (await bench.taken_over("w4")).run
    assert (run.suspect, run.deaths, run.losses, run.takeovers) == (False, 0, 0, 3)


@clause
async def growth_is_counted_from_the_last_claim(bench: Bench) -> None:
    claim = await bench.begin()
    await bench.commit(claim, *(entry(n) for n in range(3)))
    claim = await bench.taken_over()
    assert not claim.run.suspect
    await bench.commit(claim, entry(3))
    assert not (await bench.taken_over("w3")).run.suspect
    assert (await bench.taken_over("w4")).run.suspect


@clause
async def a_fork_grows_by_its_own_entries_only(bench: Bench) -> None:
    claim = await bench.begin()
    await bench.commit(claim, entry(0), entry(1), settle=Succeeded(result=b"1"))
    await bench.store.command(Fork(run_id="run-a", new_id="run-b", upto=2))
    await bench.take()
    assert (await bench.taken_over()).run.suspect


@clause
async def a_hand_back_never_makes_suspect_and_clears_it(bench: Bench) -> None:
    await bench.begin()
    await bench.taken_over()
    for settle in (Released(), Retried(failure=FAILURE, delay_s=0), Suspended()):
        claim = await bench.taken_over("w3")
        assert claim.run.suspect
        await bench.commit(claim, waits=(timer(bench.clock.wall() + 1),), settle=settle)
        bench.clock.advance(2)
        claim = await bench.take()
        assert (claim.run.suspect, claim.run.deaths, claim.run.losses) == (False, 0, 0), settle
        await bench.taken_over()


@clause
async def suspects_are_skipped_where_they_are_not_wanted(bench: Bench) -> None:
    await bench.begin()
    bench.clock.advance(LEASE_S + 1)
    await bench.submit("run-b")
    assert [claim.run.id for claim in await bench.claim("w2", suspects=False)] == ["run-b"]
    assert await bench.claim("w2", suspects=False) == []
    claim = await bench.take("w2")
    assert claim.run.suspect
    await bench.commit(claim, settle=Crashed(failure=FAILURE))
    assert await bench.claim("w2", suspects=False) == []
    assert (await bench.take("w2")).run.id == "run-a"


@clause
async def an_expired_run_that_grew_is_no_suspect(bench: Bench) -> None:
    await bench.commit(await bench.begin(), entry(0))
    bench.clock.advance(LEASE_S + 1)
    assert not (await bench.take("w2", suspects=False)).run.suspect


@clause
async def a_crash_without_growth_is_a_death_and_waits_its_delay(bench: Bench) -> None:
    claim = await bench.begin()
    await bench.commit(claim, settle=Crashed(failure=FAILURE, delay_s=10))
    assert await bench.claim() == []
    bench.clock.advance(10)
    run = (await bench.take()).run
    assert (run.deaths, run.suspect, run.attempt, run.takeovers) == (1, True, 1, 0)
    assert run.failure == FAILURE


@clause
async def a_crash_after_growth_is_no_death(bench: Bench) -> None:
    await bench.begin()
    claim = await bench.taken_over()
    await bench.commit(claim, entry(0), settle=Crashed(failure=FAILURE))
    run = (await bench.take()).run
    assert (run.deaths, run.losses) == (0, 0)


@clause
async def only_failures_burn_attempts(bench: Bench) -> None:
    await bench.begin()
    claim = await bench.taken_over()
    await bench.commit(claim, settle=Released())
    claim = await bench.take()
    await bench.commit(claim, settle=Crashed(failure=FAILURE))
    claim = await bench.take()
    await bench.commit(claim, waits=(timer(bench.clock.wall()),), settle=Suspended())
    claim = await bench.take()
    assert claim.run.attempt == 1
    await bench.commit(claim, settle=Retried(failure=FAILURE, delay_s=0))
    assert (await bench.take()).run.attempt == 2


@clause
async def a_claim_tells_a_takeover_from_a_hand_over(bench: Bench) -> None:
    assert not (await bench.begin()).taken_over
    claim = await bench.taken_over()
    assert claim.taken_over
    await bench.suspend(claim, timer(bench.clock.wall()))
    assert not (await bench.take()).taken_over

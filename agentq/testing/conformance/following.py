"""Clauses about how the next run of an ordering key follows when its holder is final, and where a retried one stands."""


# ruff: noqa: D103, PLR2004, S101 - a clause is named after what it proves, and asserts it with plain values

from __future__ import annotations

from typing import TYPE_CHECKING

from agentq.message import (
    Cancel,
    Failed,
    Reply,
    Requeue,
    RunState,
)
from agentq.testing.conformance.bench import LEASE_S, Bench, child, clause, signal
from agentq.testing.conformance.ordering import FAILURE, KEY, line, names, stats_of
from agentq.testing.conformance.ringing import rings

if TYPE_CHECKING:
    from agentq.message import Claim


@clause
async def the_next_of_a_key_follows_on_every_settlement_that_is_final(bench: Bench) -> None:
    await line(bench, "run-a", "run-b", "run-c", "run-d")
    await bench.succeed(await bench.take(), b'"' + b"x" * 100_000 + b'"')
    await bench.commit(await bench.take(), settle=Failed(failure=FAILURE))
    await bench.stop(await bench.take())
    assert (await bench.take()).run.id == "run-d"


@clause
async def the_next_of_a_key_follows_on_a_cancel(bench: Bench) -> None:
    await line(bench, "run-a", "run-b", "run-c", "run-d", "run-e")
    await bench.store.command(Cancel(run_id="run-a"))
    await bench.suspend(await bench.take(), signal())
    await bench.store.command(Cancel(run_id="run-b"))
    claim = await bench.take()
    await bench.store.command(Cancel(run_id="run-c"))
    assert await names(bench) == [], "the code of a running run has not ended yet"
    await bench.stop(claim)
    await bench.take()
    await bench.store.command(Cancel(run_id="run-d"))
    bench.clock.advance(LEASE_S + 1)
    await bench.claim("w2")
    assert {run_id: (await bench.run(run_id)).state for run_id in ("run-c", "run-d", "run-e")} == {
        "run-c": RunState.CANCELLED,
        "run-d": RunState.CANCELLED,
        "run-e": RunState.RUNNING,
    }


@clause
async def the_next_of_a_key_follows_on_a_deadline(bench: Bench) -> None:
    await line(bench, "run-a", deadline=bench.clock.wall() + 5)
    await line(bench, "run-b", deadline=bench.clock.wall() + 2 * LEASE_S)
    await line(bench, "run-c")
    bench.clock.advance(6)
    await bench.claim()
    assert (await bench.run("run-b")).state is RunState.RUNNING
    bench.clock.advance(2 * LEASE_S)
    await bench.claim("w2")
    assert ((await bench.run("run-b")).state, (await bench.run("run-c")).state) == (RunState.FAILED, RunState.RUNNING)


@clause
async def the_next_of_a_key_follows_on_the_end_of_a_family(bench: Bench) -> None:
    parent = await bench.begin("run-p")
    kids = [bench.envelope(run_id, ordering_key=KEY) for run_id in ("run-a", "run-b")]
    await bench.commit(parent, children=tuple(kids))
    await line(bench, "run-c")
    await bench.suspend(parent, child("run-a"))
    await bench.store.command(Cancel(run_id="run-p"))
    assert await names(bench) == ["run-c"]


@clause
async def children_stand_in_line_as_others_do(bench: Bench) -> None:
    parent = await bench.begin("run-p")
    await line(bench, "run-a")
    await bench.commit(parent, children=(bench.envelope("run-b", ordering_key=KEY),))
    await line(bench, "run-c")
    for name in ("run-a", "run-b", "run-c"):
        claim = await bench.take()
        assert claim.run.id == name
        await bench.succeed(claim)


@clause
async def a_run_behind_that_is_cancelled_leaves_the_line(bench: Bench) -> None:
    await line(bench, "run-a", "run-b", "run-c")
    claim = await bench.take()
    assert await bench.store.command(Cancel(run_id="run-b")) is Reply.DONE
    assert (await bench.run("run-b")).state is RunState.CANCELLED
    assert await names(bench) == []
    await bench.succeed(claim)
    assert await names(bench) == ["run-c"]


@clause
async def a_run_behind_fails_at_its_deadline_and_leaves_the_line(bench: Bench) -> None:
    claim = await _first(bench)
    await line(bench, "run-b", deadline=bench.clock.wall() + 5)
    await line(bench, "run-c")
    bench.clock.advance(6)
    assert ((await stats_of(bench)).runnable, (await stats_of(bench)).ordered) == (1, 1), "somebody has to come and settle it"
    assert await names(bench) == []
    assert (await bench.run("run-b")).state is RunState.FAILED
    await bench.succeed(claim)
    assert await names(bench) == ["run-c"]


async def _first(bench: Bench) -> Claim:
    await line(bench, "run-a")
    return await bench.take()


@clause
async def a_retried_run_goes_behind_the_holder_and_is_next_by_its_old_order(bench: Bench) -> None:
    await line(bench, "run-a", "run-b", "run-c")
    await bench.commit(await bench.take(), settle=Failed(failure=FAILURE))
    holder = await bench.take()
    assert await bench.store.command(Requeue(run_id="run-a")) is Reply.DONE
    assert await names(bench) == []
    assert (await stats_of(bench)).ordered == 2
    await bench.succeed(holder)
    retried = await bench.take()
    assert retried.run.id == "run-a"
    await bench.succeed(retried)
    assert await names(bench) == ["run-c"]


@clause
async def a_retried_run_comes_before_younger_ones_that_were_not_begun(bench: Bench) -> None:
    await line(bench, "run-a", "run-b", "run-c")
    await bench.commit(await bench.take(), settle=Failed(failure=FAILURE))
    await bench.store.command(Requeue(run_id="run-a"))
    for name in ("run-a", "run-b", "run-c"):
        claim = await bench.take()
        assert claim.run.id == name
        await bench.succeed(claim)


@clause
async def a_retried_run_comes_after_older_ones(bench: Bench) -> None:
    await line(bench, "run-a", "run-b", "run-c")
    await bench.store.command(Cancel(run_id="run-b"))
    await bench.store.command(Requeue(run_id="run-b"))
    for name in ("run-a", "run-b", "run-c"):
        claim = await bench.take()
        assert claim.run.id == name
        await bench.succeed(claim)


@clause
async def a_retried_run_whose_key_is_free_goes_at_once(bench: Bench) -> None:
    claim = await _first(bench)
    await bench.commit(claim, settle=Failed(failure=FAILURE))
    await bench.store.command(Requeue(run_id="run-a"))
    await line(bench, "run-b")
    assert await names(bench) == ["run-a"]


@clause
async def a_retried_run_that_was_begun_holds_its_key_against_older_ones(bench: Bench) -> None:
    await line(bench, "run-a", "run-b")
    for _ in range(2):
        await bench.commit(await bench.take(), settle=Failed(failure=FAILURE))
    await bench.store.command(Requeue(run_id="run-b"))
    await bench.store.command(Requeue(run_id="run-a"))
    for name in ("run-b", "run-a"):
        claim = await bench.take()
        assert claim.run.id == name
        await bench.succeed(claim)


@clause
async def the_end_of_a_holder_rings_for_work(bench: Bench) -> None:
    await line(bench, "run-a", "run-b", "run-c")
    claim = await bench.take()
    await rings(bench, "work", bench.succeed(claim))
    await rings(bench, "work", bench.store.command(Cancel(run_id="run-b")))

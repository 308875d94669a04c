"""Clauses about ordering keys: one run of a key at a time, in the order of submission."""

# ruff: noqa: D103, PLR2004, S101 - a clause is named after what it proves, and asserts it with plain values

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from agentq.message import (
    Cancel,
    Crashed,
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
)
from agentq.testing.conformance.bench import LEASE_S, Bench, child, clause, signal, timer
from agentq.testing.conformance.ringing import rings

if TYPE_CHECKING:
    from agentq.message import Claim, QueueStats

FAILURE = Failure(type="E", message="m")
KEY = "customer-7"


async def _line(bench: Bench, *run_ids: str, **fields: Any) -> None:
    """Submit runs of one key, one call each."""
    for run_id in run_ids:
        await bench.submit(run_id, ordering_key=KEY, **fields)
        bench.clock.advance(0.001)


async def _names(bench: Bench, worker: str = "w1", **fields: Any) -> list[str]:
    return [claim.run.id for claim in await bench.claim(worker, **fields)]


async def _stats(bench: Bench) -> QueueStats:
    [stats] = (await bench.store.census()).queues
    return stats


@clause
async def a_run_shows_its_ordering_key(bench: Bench) -> None:
    await _line(bench, "run-a")
    await bench.submit("run-b")
    assert ((await bench.run()).ordering_key, (await bench.run("run-b")).ordering_key) == (KEY, None)
    assert (await bench.claim())[0].run.ordering_key == KEY


@clause
async def runs_of_one_key_are_handed_out_one_at_a_time_in_order(bench: Bench) -> None:
    await bench.submit("run-c", "run-a", "run-b", ordering_key=KEY)
    await _line(bench, "run-d")
    for name in ("run-c", "run-a", "run-b", "run-d"):
        claim = await bench.take()
        assert claim.run.id == name
        assert await _names(bench, "w2") == []
        await bench.succeed(claim)
    assert await _names(bench) == []


@clause
async def what_has_no_key_or_another_waits_for_nothing(bench: Bench) -> None:
    await _line(bench, "run-a", "run-b")
    await bench.submit("run-c", ordering_key="customer-8")
    await bench.submit("run-d", "run-e")
    assert set(await _names(bench)) == {"run-a", "run-c", "run-d", "run-e"}


@clause
async def a_key_counts_within_one_queue_of_one_app(bench: Bench) -> None:
    await _line(bench, "run-a")
    await _line(bench, "run-b", queue="other")
    await _line(bench, "run-c", app="other")
    assert await _names(bench, queues=("queue", "other")) == ["run-a", "run-b"]
    assert await _names(bench, app="other") == ["run-c"]


@clause
async def the_tasks_of_a_queue_share_its_keys(bench: Bench) -> None:
    tasks = ("t1", "t2", "t3")
    await _line(bench, "run-a", task="t2")
    await _line(bench, "run-b", task="t3")
    await _line(bench, "run-c", task="t1")
    for name in ("run-a", "run-b", "run-c"):
        claim = await bench.take(tasks=tasks)
        assert claim.run.id == name
        await bench.succeed(claim)


@clause
async def the_next_waits_even_where_nobody_knows_the_task_of_the_first(bench: Bench) -> None:
    await _line(bench, "run-a", task="unknown")
    await _line(bench, "run-b")
    assert await _names(bench) == []


@clause
async def priority_overtakes_nobody_within_a_key(bench: Bench) -> None:
    await _line(bench, "run-a")
    await _line(bench, "run-b", priority=9)
    assert (await bench.take()).run.id == "run-a"


@clause
async def an_id_that_exists_takes_no_second_place(bench: Bench) -> None:
    await _line(bench, "run-a", "run-b", "run-a")
    assert (await _stats(bench)).ordered == 1
    await bench.succeed(await bench.take())
    await bench.succeed(await bench.take())
    assert await _names(bench) == []
    await _line(bench, "run-a", "run-c")
    assert await _names(bench) == ["run-c"]


@clause
async def the_key_stays_with_a_run_that_is_handed_back(bench: Bench) -> None:
    await _line(bench, "run-a", "run-b")
    for settle in (Retried(failure=FAILURE, delay_s=0), Released(), Crashed(failure=FAILURE)):
        claim = await bench.take()
        assert claim.run.id == "run-a"
        await bench.commit(claim, settle=settle)
    assert await _names(bench) == ["run-a"]


@clause
async def the_key_stays_with_a_run_that_waits_for_its_next_try(bench: Bench) -> None:
    await _line(bench, "run-a", "run-b")
    await bench.commit(await bench.take(), settle=Retried(failure=FAILURE, delay_s=60))
    assert await _names(bench) == []
    bench.clock.advance(61)
    assert await _names(bench) == ["run-a"]


@clause
async def the_key_stays_with_a_run_that_waits(bench: Bench) -> None:
    await _line(bench, "run-a", "run-b")
    await bench.suspend(await bench.take(), signal(), timer(bench.clock.wall() + 60))
    assert await _names(bench) == []
    bench.clock.advance(61)
    assert await _names(bench) == ["run-a"]


@clause
async def the_key_stays_with_a_run_whose_worker_died(bench: Bench) -> None:
    await _line(bench, "run-a", "run-b")
    await bench.take()
    assert (await bench.taken_over()).run.id == "run-a"


@clause
async def a_delayed_run_holds_back_those_behind_it(bench: Bench) -> None:
    await _line(bench, "run-a", due_at=bench.clock.wall() + 60)
    await _line(bench, "run-b")
    assert await _names(bench) == []
    bench.clock.advance(61)
    assert await _names(bench) == ["run-a"]


@clause
async def a_paused_run_holds_back_those_behind_it(bench: Bench) -> None:
    await _line(bench, "run-a", "run-b")
    await bench.store.command(Pause(run_id="run-a"))
    assert await _names(bench) == []
    await bench.store.command(Resume(run_id="run-a"))
    assert await _names(bench) == ["run-a"]


@clause
async def a_run_that_is_next_and_not_due_or_paused_holds_the_key_too(bench: Bench) -> None:
    await _line(bench, "run-a")
    await _line(bench, "run-b", due_at=bench.clock.wall() + 60)
    await _line(bench, "run-c", "run-d")
    await bench.store.command(Pause(run_id="run-c"))
    await bench.succeed(await bench.take())
    assert await _names(bench) == []
    bench.clock.advance(61)
    await bench.succeed(await bench.take())
    assert await _names(bench) == []
    await bench.store.command(Resume(run_id="run-c"))
    assert await _names(bench) == ["run-c"]


@clause
async def pausing_and_resuming_a_run_leaves_it_behind(bench: Bench) -> None:
    await _line(bench, "run-a", "run-b")
    await bench.store.command(Pause(run_id="run-b"))
    await bench.store.command(Resume(run_id="run-b"))
    assert await _names(bench) == ["run-a"]


@clause
async def a_delay_that_ends_leaves_a_run_behind(bench: Bench) -> None:
    await _line(bench, "run-a")
    claim = await bench.take()
    await _line(bench, "run-b", due_at=bench.clock.wall() + 5)
    assert await _names(bench) == []
    bench.clock.advance(6)
    assert await _names(bench) == []
    await bench.succeed(claim)
    assert await _names(bench) == ["run-b"]


@clause
async def the_next_of_a_key_follows_on_every_settlement_that_is_final(bench: Bench) -> None:
    await _line(bench, "run-a", "run-b", "run-c", "run-d")
    await bench.succeed(await bench.take(), b'"' + b"x" * 100_000 + b'"')
    await bench.commit(await bench.take(), settle=Failed(failure=FAILURE))
    await bench.stop(await bench.take())
    assert (await bench.take()).run.id == "run-d"


@clause
async def the_next_of_a_key_follows_on_a_cancel(bench: Bench) -> None:
    await _line(bench, "run-a", "run-b", "run-c", "run-d", "run-e")
    await bench.store.command(Cancel(run_id="run-a"))
    await bench.suspend(await bench.take(), signal())
    await bench.store.command(Cancel(run_id="run-b"))
    claim = await bench.take()
    await bench.store.command(Cancel(run_id="run-c"))
    assert await _names(bench) == [], "the code of a running run has not ended yet"
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
    await _line(bench, "run-a", deadline=bench.clock.wall() + 5)
    await _line(bench, "run-b", deadline=bench.clock.wall() + 2 * LEASE_S)
    await _line(bench, "run-c")
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
    await _line(bench, "run-c")
    await bench.suspend(parent, child("run-a"))
    await bench.store.command(Cancel(run_id="run-p"))
    assert await _names(bench) == ["run-c"]


@clause
async def children_stand_in_line_as_others_do(bench: Bench) -> None:
    parent = await bench.begin("run-p")
    await _line(bench, "run-a")
    await bench.commit(parent, children=(bench.envelope("run-b", ordering_key=KEY),))
    await _line(bench, "run-c")
    for name in ("run-a", "run-b", "run-c"):
        claim = await bench.take()
        assert claim.run.id == name
        await bench.succeed(claim)


@clause
async def a_run_behind_that_is_cancelled_leaves_the_line(bench: Bench) -> None:
    await _line(bench, "run-a", "run-b", "run-c")
    claim = await bench.take()
    assert await bench.store.command(Cancel(run_id="run-b")) is Reply.DONE
    assert (await bench.run("run-b")).state is RunState.CANCELLED
    assert await _names(bench) == []
    await bench.succeed(claim)
    assert await _names(bench) == ["run-c"]


@clause
async def a_run_behind_fails_at_its_deadline_and_leaves_the_line(bench: Bench) -> None:
    claim = await _first(bench)
    await _line(bench, "run-b", deadline=bench.clock.wall() + 5)
    await _line(bench, "run-c")
    bench.clock.advance(6)
    assert ((await _stats(bench)).runnable, (await _stats(bench)).ordered) == (1, 1), "somebody has to come and settle it"
    assert await _names(bench) == []
    assert (await bench.run("run-b")).state is RunState.FAILED
    await bench.succeed(claim)
    assert await _names(bench) == ["run-c"]


async def _first(bench: Bench) -> Claim:
    await _line(bench, "run-a")
    return await bench.take()


@clause
async def a_retried_run_goes_behind_the_holder_and_is_next_by_its_old_order(bench: Bench) -> None:
    await _line(bench, "run-a", "run-b", "run-c")
    await bench.commit(await bench.take(), settle=Failed(failure=FAILURE))
    holder = await bench.take()
    assert await bench.store.command(Requeue(run_id="run-a")) is Reply.DONE
    assert await _names(bench) == []
    assert (await _stats(bench)).ordered == 2
    await bench.succeed(holder)
    retried = await bench.take()
    assert retried.run.id == "run-a"
    await bench.succeed(retried)
    assert await _names(bench) == ["run-c"]


@clause
async def a_retried_run_comes_before_younger_ones_that_were_not_begun(bench: Bench) -> None:
    await _line(bench, "run-a", "run-b", "run-c")
    await bench.commit(await bench.take(), settle=Failed(failure=FAILURE))
    await bench.store.command(Requeue(run_id="run-a"))
    for name in ("run-a", "run-b", "run-c"):
        claim = await bench.take()
        assert claim.run.id == name
        await bench.succeed(claim)


@clause
async def a_retried_run_comes_after_older_ones(bench: Bench) -> None:
    await _line(bench, "run-a", "run-b", "run-c")
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
    await _line(bench, "run-b")
    assert await _names(bench) == ["run-a"]


@clause
async def a_retried_run_that_was_begun_holds_its_key_against_older_ones(bench: Bench) -> None:
    await _line(bench, "run-a", "run-b")
    for _ in range(2):
        await bench.commit(await bench.take(), settle=Failed(failure=FAILURE))
    await bench.store.command(Requeue(run_id="run-b"))
    await bench.store.command(Requeue(run_id="run-a"))
    for name in ("run-b", "run-a"):
        claim = await bench.take()
        assert claim.run.id == name
        await bench.succeed(claim)


@clause
async def a_fork_has_no_ordering_key(bench: Bench) -> None:
    await _line(bench, "run-a", "run-b")
    await bench.take()
    await bench.store.command(Fork(run_id="run-a", new_id="run-f", upto=0))
    await bench.store.command(Fork(run_id="run-b", new_id="run-g", upto=0))
    assert (await bench.run("run-f")).ordering_key is None
    assert set(await _names(bench)) == {"run-f", "run-g"}


@clause
async def runs_behind_are_counted_as_that_and_as_nothing_else(bench: Bench) -> None:
    await _line(bench, "run-a", "run-b", "run-c", "run-p")
    await _line(bench, "run-d", due_at=bench.clock.wall() + 60)
    await bench.store.command(Pause(run_id="run-p"))
    await bench.submit("run-o")
    stats = await _stats(bench)
    assert (stats.runnable, stats.ordered, stats.delayed, stats.paused, stats.running) == (2, 4, 0, 0, 0)
    await bench.succeed((await bench.claim(limit=1))[0])
    stats = await _stats(bench)
    assert (stats.runnable, stats.ordered, stats.delayed, stats.paused, stats.running) == (2, 3, 0, 0, 0)


@clause
async def the_oldest_age_counts_from_when_a_run_became_the_next(bench: Bench) -> None:
    await _line(bench, "run-a", "run-b")
    bench.clock.advance(50)
    await bench.succeed(await bench.take())
    bench.clock.advance(5)
    assert (await _stats(bench)).oldest_age_s == 5


@clause
async def the_end_of_a_holder_rings_for_work(bench: Bench) -> None:
    await _line(bench, "run-a", "run-b", "run-c")
    claim = await bench.take()
    await rings(bench, "work", bench.succeed(claim))
    await rings(bench, "work", bench.store.command(Cancel(run_id="run-b")))


@clause
async def a_long_line_is_served_in_order_whatever_leaves_it(bench: Bench) -> None:
    names = [f"run-{n:03d}" for n in range(120)]
    await bench.submit(*names, ordering_key=KEY)
    for name in names[1::3]:
        await bench.store.command(Cancel(run_id=name))
    left = [name for n, name in enumerate(names) if n % 3 != 1]
    for name in left[:20]:
        claim = await bench.take()
        assert claim.run.id == name
        await bench.succeed(claim)
    assert (await _stats(bench)).ordered == len(left) - 21

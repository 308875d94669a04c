"""Clauses about ordering keys: one run of a key at a time, in the order of submission."""

# ruff: noqa: D103, PLR2004, S101 - a clause is named after what it proves, and asserts it with plain values

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from agentq.message import (
    Cancel,
    ClaimRequest,
    Crashed,
    Failure,
    Fork,
    Pause,
    Released,
    Resume,
    Retried,
)
from agentq.testing.conformance.bench import APP, LEASE_S, Bench, clause, signal, timer

if TYPE_CHECKING:
    from agentq.message import QueueStats

FAILURE = Failure(type="E", message="m")
KEY = "customer-7"
REQUEST = ClaimRequest(worker="w9", app=APP, queues=("queue",), tasks=("task",), limit=9, lease_s=LEASE_S)


async def line(bench: Bench, *run_ids: str, **fields: Any) -> None:
    """Submit runs of one key, one call each."""
    for run_id in run_ids:
        await bench.submit(run_id, ordering_key=KEY, **fields)
        bench.clock.advance(0.001)


async def names(bench: Bench, worker: str = "w1", **fields: Any) -> list[str]:
    return [claim.run.id for claim in await bench.claim(worker, **fields)]


async def stats_of(bench: Bench) -> QueueStats:
    [stats] = (await bench.store.census()).queues
    return stats


@clause
async def a_run_shows_its_ordering_key(bench: Bench) -> None:
    await line(bench, "run-a")
    await bench.submit("run-b")
    assert ((await bench.run()).ordering_key, (await bench.run("run-b")).ordering_key) == (KEY, None)
    assert (await bench.claim())[0].run.ordering_key == KEY


@clause
async def runs_of_one_key_are_handed_out_one_at_a_time_in_order(bench: Bench) -> None:
    await bench.submit("run-c", "run-a", "run-b", ordering_key=KEY)
    await line(bench, "run-d")
    for name in ("run-c", "run-a", "run-b", "run-d"):
        claim = await bench.take()
        assert claim.run.id == name
        assert await names(bench, "w2") == []
        await bench.succeed(claim)
    assert await names(bench) == []


@clause
async def what_has_no_key_or_another_waits_for_nothing(bench: Bench) -> None:
    await line(bench, "run-a", "run-b")
    await bench.submit("run-c", ordering_key="customer-8")
    await bench.submit("run-d", "run-e")
    assert set(await names(bench)) == {"run-a", "run-c", "run-d", "run-e"}


@clause
async def a_key_counts_within_one_queue_of_one_app(bench: Bench) -> None:
    await line(bench, "run-a")
    await line(bench, "run-b", queue="other")
    await line(bench, "run-c", app="other")
    assert await names(bench, queues=("queue", "other")) == ["run-a", "run-b"]
    assert await names(bench, app="other") == ["run-c"]


@clause
async def the_tasks_of_a_queue_share_its_keys(bench: Bench) -> None:
    tasks = ("t1", "t2", "t3")
    await line(bench, "run-a", task="t2")
    await line(bench, "run-b", task="t3")
    await line(bench, "run-c", task="t1")
    for name in ("run-a", "run-b", "run-c"):
        claim = await bench.take(tasks=tasks)
        assert claim.run.id == name
        await bench.succeed(claim)


@clause
async def the_next_waits_even_where_nobody_knows_the_task_of_the_first(bench: Bench) -> None:
    await line(bench, "run-a", task="unknown")
    await line(bench, "run-b")
    assert await names(bench) == []


@clause
async def priority_overtakes_nobody_within_a_key(bench: Bench) -> None:
    await line(bench, "run-a")
    await line(bench, "run-b", priority=9)
    assert (await bench.take()).run.id == "run-a"


@clause
async def an_id_that_exists_takes_no_second_place(bench: Bench) -> None:
    await line(bench, "run-a", "run-b", "run-a")
    assert (await stats_of(bench)).ordered == 1
    await bench.succeed(await bench.take())
    await bench.succeed(await bench.take())
    assert await names(bench) == []
    await line(bench, "run-a", "run-c")
    assert await names(bench) == ["run-c"]


@clause
async def the_key_stays_with_a_run_that_is_handed_back(bench: Bench) -> None:
    await line(bench, "run-a", "run-b")
    for settle in (Retried(failure=FAILURE, delay_s=0), Released(), Crashed(failure=FAILURE)):
        claim = await bench.take()
        assert claim.run.id == "run-a"
        await bench.commit(claim, settle=settle)
    assert await names(bench) == ["run-a"]


@clause
async def the_key_stays_with_a_run_that_waits_for_its_next_try(bench: Bench) -> None:
    await line(bench, "run-a", "run-b")
    await bench.commit(await bench.take(), settle=Retried(failure=FAILURE, delay_s=60))
    assert await names(bench) == []
    bench.clock.advance(61)
    assert await names(bench) == ["run-a"]


@clause
async def the_key_stays_with_a_run_that_waits(bench: Bench) -> None:
    await line(bench, "run-a", "run-b")
    await bench.suspend(await bench.take(), signal(), timer(bench.clock.wall() + 60))
    assert await names(bench) == []
    bench.clock.advance(61)
    assert await names(bench) == ["run-a"]


@clause
async def the_key_stays_with_a_run_whose_worker_died(bench: Bench) -> None:
    await line(bench, "run-a", "run-b")
    await bench.take()
    assert (await bench.taken_over()).run.id == "run-a"


@clause
async def a_delayed_run_holds_back_those_behind_it(bench: Bench) -> None:
    await line(bench, "run-a", due_at=bench.clock.wall() + 60)
    await line(bench, "run-b")
    assert await names(bench) == []
    bench.clock.advance(61)
    assert await names(bench) == ["run-a"]


@clause
async def a_paused_run_holds_back_those_behind_it(bench: Bench) -> None:
    await line(bench, "run-a", "run-b")
    await bench.store.command(Pause(run_id="run-a"))
    assert await names(bench) == []
    await bench.store.command(Resume(run_id="run-a"))
    assert await names(bench) == ["run-a"]


@clause
async def a_run_that_is_next_and_not_due_or_paused_holds_the_key_too(bench: Bench) -> None:
    await line(bench, "run-a")
    await line(bench, "run-b", due_at=bench.clock.wall() + 60)
    await line(bench, "run-c", "run-d")
    await bench.store.command(Pause(run_id="run-c"))
    await bench.succeed(await bench.take())
    assert await names(bench) == []
    bench.clock.advance(61)
    await bench.succeed(await bench.take())
    assert await names(bench) == []
    await bench.store.command(Resume(run_id="run-c"))
    assert await names(bench) == ["run-c"]


@clause
async def pausing_and_resuming_a_run_leaves_it_behind(bench: Bench) -> None:
    await line(bench, "run-a", "run-b")
    await bench.store.command(Pause(run_id="run-b"))
    await bench.store.command(Resume(run_id="run-b"))
    assert await names(bench) == ["run-a"]


@clause
async def a_delay_that_ends_leaves_a_run_behind(bench: Bench) -> None:
    await line(bench, "run-a")
    claim = await bench.take()
    await line(bench, "run-b", due_at=bench.clock.wall() + 5)
    for order in (Pause, Resume):
        await bench.store.command(order(run_id="run-b"))
        assert (await bench.store.claim(REQUEST)).next_due_s is None, "nobody needs to wake for a run behind"
    bench.clock.advance(6)
    assert await names(bench) == []
    await bench.succeed(claim)
    assert await names(bench) == ["run-b"]


@clause
async def a_fork_has_no_ordering_key(bench: Bench) -> None:
    await line(bench, "run-a", "run-b")
    await bench.take()
    await bench.store.command(Fork(run_id="run-a", new_id="run-f", upto=0))
    await bench.store.command(Fork(run_id="run-b", new_id="run-g", upto=0))
    assert (await bench.run("run-f")).ordering_key is None
    assert set(await names(bench)) == {"run-f", "run-g"}


@clause
async def runs_behind_are_counted_as_that_and_as_nothing_else(bench: Bench) -> None:
    await line(bench, "run-a", "run-b", "run-c", "run-p")
    await line(bench, "run-d", due_at=bench.clock.wall() + 60)
    await bench.store.command(Pause(run_id="run-p"))
    await bench.submit("run-o")
    stats = await stats_of(bench)
    assert (stats.runnable, stats.ordered, stats.delayed, stats.paused, stats.running) == (2, 4, 0, 0, 0)
    await bench.succeed((await bench.claim(limit=1))[0])
    stats = await stats_of(bench)
    assert (stats.runnable, stats.ordered, stats.delayed, stats.paused, stats.running) == (2, 3, 0, 0, 0)


@clause
async def the_oldest_age_counts_from_when_a_run_became_the_next(bench: Bench) -> None:
    await line(bench, "run-a", "run-b")
    bench.clock.advance(50)
    await bench.succeed(await bench.take())
    bench.clock.advance(5)
    assert (await stats_of(bench)).oldest_age_s == 5


@clause
async def a_long_line_is_served_in_order_whatever_leaves_it(bench: Bench) -> None:
    ids = [f"run-{n:03d}" for n in range(120)]
    await bench.submit(*ids, ordering_key=KEY)
    for name in ids[1::3]:
        await bench.store.command(Cancel(run_id=name))
    left = [name for n, name in enumerate(ids) if n % 3 != 1]
    for name in left[:20]:
        claim = await bench.take()
        assert claim.run.id == name
        await bench.succeed(claim)
    assert (await stats_of(bench)).ordered == len(left) - 21

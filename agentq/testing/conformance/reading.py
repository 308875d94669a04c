"""Clauses about what readers see, and about what is swept away."""

# ruff: noqa: D103, PLR2004, S101 - a clause is named after what it proves, and asserts it with plain values

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from agentq.errors import NotFound
from agentq.message import (
    Cancel,
    Entry,
    Fork,
    Pause,
    RunQuery,
    RunState,
    SetWorker,
    Succeeded,
    Suspended,
    Verdict,
    Worker,
    WorkerState,
)
from agentq.stores.base import TOMBSTONE_S
from agentq.testing.conformance.bench import LEASE_S, Bench, child, clause, entry, signal, timer, waited
from agentq.testing.conformance.journal import LARGE

if TYPE_CHECKING:
    from agentq.message import Beat, QueueStats

HOUR_S = 3600.0


async def _ids(bench: Bench, **query: object) -> list[str]:
    return [run.id for run in await bench.store.runs(RunQuery(**query))]  # type: ignore[arg-type]


async def _queue(bench: Bench) -> QueueStats:
    [stats] = (await bench.store.census()).queues
    return stats


@clause
async def runs_are_listed_newest_first_and_no_more_than_asked(bench: Bench) -> None:
    for name in ("run-b", "run-a", "run-c"):
        await bench.submit(name)
        bench.clock.advance(1)
    assert await _ids(bench) == ["run-c", "run-a", "run-b"]
    assert await _ids(bench, limit=2) == ["run-c", "run-a"]


@clause
async def runs_are_found_by_every_filter(bench: Bench) -> None:
    await bench.submit("run-a", queue="q1", task="t1", tenant="acme")
    await bench.submit("run-b", queue="q2", task="t2", parent_id="run-a")
    await bench.take("w1", queues=("q1",), tasks=("t1",))
    for query in ({"queue": "q1"}, {"task": "t1"}, {"tenant": "acme"}, {"owner": "w1"}, {"states": (RunState.RUNNING,)}):
        assert await _ids(bench, **query) == ["run-a"], query
    assert await _ids(bench, parent_id="run-a") == ["run-b"]
    assert await _ids(bench, queue="q1", task="t2") == []
    assert len(await _ids(bench, states=(RunState.RUNNING, RunState.QUEUED))) == 2


@clause
async def runs_are_found_by_id_and_by_unique_prefix(bench: Bench) -> None:
    await bench.submit("0123456789", "0123zzzzzz", "abcdefghij")
    assert await _ids(bench, ids=("abcd",)) == ["abcdefghij"]
    assert await _ids(bench, ids=("01234",)) == ["0123456789"]
    assert set(await _ids(bench, ids=("0123456789", "abcdefghij"))) == {"0123456789", "abcdefghij"}
    assert await _ids(bench, ids=("abc",)) == []
    assert await _ids(bench, ids=("a%cd_",)) == []
    assert await _ids(bench, ids=("nowhere",)) == []


@clause
async def a_full_id_is_not_a_prefix_of_others(bench: Bench) -> None:
    await bench.submit("run-a", "run-a-2")
    assert await _ids(bench, ids=("run-a",)) == ["run-a"]


@clause
async def a_census_counts_each_run_once(bench: Bench) -> None:
    await bench.suspend(await bench.begin("run-w"), signal())
    await bench.begin("run-r")
    await bench.succeed(await bench.begin("run-f"))
    await bench.submit("run-p", "run-o", "run-1", "run-2")
    await bench.submit("run-d", "run-e", "run-g", due_at=bench.clock.wall() + 60)
    for name in ("run-p", "run-o"):
        await bench.store.command(Pause(run_id=name))
    stats = await _queue(bench)
    assert (stats.queue, stats.runnable, stats.delayed, stats.running) == ("queue", 2, 3, 1)
    assert (stats.waiting, stats.paused, stats.parked) == (1, 2, 0)


@clause
async def runnable_is_what_a_claim_would_return(bench: Bench) -> None:
    await bench.begin("run-r")
    await bench.submit("run-d", due_at=bench.clock.wall() + LEASE_S)
    await bench.submit("run-q")
    assert (await _queue(bench)).runnable == 1
    bench.clock.advance(LEASE_S + 1)
    assert (await _queue(bench)).runnable == 3
    assert len(await bench.claim("w2")) == 3
    assert (await _queue(bench)).runnable == 0


@clause
async def what_is_runnable_is_counted_as_nothing_else(bench: Bench) -> None:
    now = bench.clock.wall()
    await bench.suspend(await bench.begin("run-w"), timer(now + 5))
    await bench.begin("run-r")
    await bench.submit("run-d", due_at=now + 5)
    await bench.submit("run-l", deadline=now + 5)
    bench.clock.advance(LEASE_S + 1)
    stats = await _queue(bench)
    assert (stats.runnable, stats.running, stats.waiting, stats.delayed, stats.paused) == (4, 0, 0, 0, 0)


@clause
async def what_only_a_claim_can_settle_keeps_a_pool_awake(bench: Bench) -> None:
    await bench.begin("run-c")
    await bench.store.command(Cancel(run_id="run-c"))
    await bench.suspend(await bench.begin("run-w", deadline=bench.clock.wall() + 5), signal())
    bench.clock.advance(LEASE_S + 1)
    assert (await _queue(bench)).runnable == 2
    assert await bench.claim() == []
    assert sum(stats.runnable for stats in (await bench.store.census()).queues) == 0


@clause
async def a_paused_run_keeps_no_pool_awake(bench: Bench) -> None:
    now = bench.clock.wall()
    await bench.suspend(await bench.begin("run-w"), timer(now + 10))
    await bench.begin("run-r")
    await bench.submit("run-d", due_at=now + 10)
    await bench.submit("run-q")
    for name in ("run-w", "run-r", "run-d", "run-q"):
        await bench.store.command(Pause(run_id=name))
    bench.clock.advance(LEASE_S + 1)
    assert (await _queue(bench)).runnable == 0
    assert await bench.claim() == []
    assert (await _queue(bench)).runnable == 0


@clause
async def the_oldest_age_counts_from_when_a_run_became_runnable(bench: Bench) -> None:
    await bench.submit("run-d", due_at=bench.clock.wall() + 10)
    bench.clock.advance(25)
    assert (await _queue(bench)).oldest_age_s == 15
    await bench.submit("run-q")
    bench.clock.advance(5)
    await bench.submit("run-r")
    assert (await _queue(bench)).oldest_age_s == 20
    assert (await bench.take(limit=1)).run.id == "run-d"
    assert (await _queue(bench)).oldest_age_s == 5


@clause
async def the_oldest_age_counts_from_the_end_of_a_lease_or_a_timer(bench: Bench) -> None:
    await bench.begin("run-r", queue="q1")
    await bench.suspend(await bench.begin("run-w", queue="q2"), timer(bench.clock.wall() + LEASE_S))
    await bench.submit("run-k", queue="q3")
    bench.clock.advance(LEASE_S + 7)
    await bench.commit(await bench.take(queues=("q3",)), waits=(timer(0),), settle=Suspended())
    bench.clock.advance(1)
    ages = {stats.queue: round(stats.oldest_age_s, 3) for stats in (await bench.store.census()).queues}
    assert ages["q1"] == 8
    assert ages["q3"] == 1
    assert ages["q2"] <= 8


@clause
async def workers_are_lost_after_a_lease_and_listed_until_they_miss_three(bench: Bench) -> None:
    given = Worker(
        id="w1", pool="p", app="app", version="1.2", host="h", pod="pod-1", pid=7, slots=8, busy=1, queues=("a", "b"),
        tasks=("t",), runs={"run-a": 1.5}, started_at=5.0,
    )  # fmt: skip
    await bench.store.beat(given, [], LEASE_S)
    [worker] = (await bench.store.census()).workers
    for name in (
        "id",
        "pool",
        "app",
        "version",
        "host",
        "pod",
        "pid",
        "slots",
        "busy",
        "queues",
        "tasks",
        "runs",
        "started_at",
    ):
        assert getattr(worker, name) == getattr(given, name), name
    assert worker.seen_at == bench.clock.wall()
    bench.clock.advance(LEASE_S - 1)
    assert [worker.state for worker in (await bench.store.census()).workers] == [WorkerState.ACTIVE]
    bench.clock.advance(2)
    assert [worker.state for worker in (await bench.store.census()).workers] == [WorkerState.LOST]
    await bench.beat("w1")
    assert [worker.state for worker in (await bench.store.census()).workers] == [WorkerState.ACTIVE]
    bench.clock.advance(3 * LEASE_S - 1)
    await bench.beat("w2")
    assert len((await bench.store.census()).workers) == 2
    bench.clock.advance(2)
    assert [worker.id for worker in (await bench.store.census()).workers] == ["w2"]
    await bench.store.leave("w2")
    assert (await bench.store.census()).workers == ()


@clause
async def a_sweep_removes_what_is_final_for_long_enough_with_all_of_it(bench: Bench) -> None:
    claim = await bench.begin("run-old")
    await bench.commit(claim, entry(0, value=LARGE), settle=Succeeded(result=b"1"))
    [kept] = await bench.store.journal("run-old")
    bench.clock.advance(HOUR_S)
    await bench.succeed(await bench.begin("run-new"))
    await bench.submit("run-open")
    assert await bench.store.sweep(retention_s=HOUR_S - 1) == 1
    assert set(await _ids(bench)) == {"run-new", "run-open"}
    assert await bench.store.journal("run-old") == []
    await _assert_blob_gone(bench, kept)
    assert await bench.write(claim, entry(1)) is Verdict.FENCED


async def _assert_blob_gone(bench: Bench, kept: Entry) -> None:
    if kept.blob is None:
        return
    try:
        await bench.store.blob(kept.blob)
    except NotFound:
        return
    raise AssertionError("a blob that nothing refers to must go")


@clause
async def a_sweep_keeps_blobs_that_others_refer_to(bench: Bench) -> None:
    claim = await bench.begin("run-old", args=LARGE)
    await bench.commit(claim, entry(0, value=LARGE + b" "), settle=Succeeded(result=b"1"))
    await bench.store.command(Fork(run_id="run-old", new_id="run-fork", upto=1))
    bench.clock.advance(HOUR_S)
    assert await bench.store.sweep(retention_s=1) == 1
    assert (await bench.run("run-fork")).args == LARGE
    [kept] = await bench.store.journal("run-fork")
    assert (await bench.store.blob(kept.blob) if kept.blob else kept.value) == LARGE + b" "


@clause
async def a_sweep_keeps_children_of_unfinished_parents(bench: Bench) -> None:
    parent = await bench.begin("run-p")
    await bench.commit(parent, children=(bench.envelope("run-c", parent_id="run-p"),))
    await bench.succeed(await bench.take())
    bench.clock.advance(HOUR_S)
    assert await bench.store.sweep(retention_s=1) == 0
    await bench.succeed(parent)
    bench.clock.advance(HOUR_S)
    assert await bench.store.sweep(retention_s=1) == 2


@clause
async def a_sweep_keeps_what_another_run_waits_for(bench: Bench) -> None:
    await bench.succeed(await bench.begin("run-old"))
    claim = await bench.begin("run-w")
    await bench.commit(claim, waits=(child("run-old"),))
    bench.clock.advance(HOUR_S)
    assert await bench.store.sweep(retention_s=1) == 0
    await bench.commit(claim, waited(0, child("run-old")))
    assert await bench.store.sweep(retention_s=1) == 1


@clause
async def a_sweep_stops_at_its_limit(bench: Bench) -> None:
    for n in range(5):
        await bench.succeed(await bench.begin(f"run-{n}"))
    bench.clock.advance(10)
    assert [await bench.store.sweep(retention_s=1, limit=2) for _ in range(4)] == [2, 2, 1, 0]


@clause
async def a_sweep_forgets_workers_not_seen_for_an_hour(bench: Bench) -> None:
    await bench.beat("w1")
    await bench.store.command(SetWorker(worker_id="w1", state=WorkerState.CORDONED))
    bench.clock.advance(HOUR_S - 60)
    await bench.store.sweep(retention_s=1)
    assert (await bench.beat("w1")).state is WorkerState.CORDONED
    bench.clock.advance(HOUR_S + 60)
    await bench.store.sweep(retention_s=1)
    assert (await bench.beat("w1")).state is WorkerState.ACTIVE


@clause
async def a_swept_id_can_be_used_again(bench: Bench) -> None:
    await bench.commit(await bench.begin(), entry(0), settle=Succeeded(result=b"1"))
    bench.clock.advance(TOMBSTONE_S)
    await bench.store.sweep(retention_s=1)
    claim = await bench.begin()
    assert (claim.journal, claim.waits, claim.run.entries) == ((), (), 0)
    await bench.commit(claim, entry(0))


@clause
async def verbs_may_be_awaited_from_any_event_loop(bench: Bench) -> None:
    claim = await bench.begin()
    bench.clock.advance(LEASE_S + 1)

    def heartbeat_thread() -> Beat:
        async def beat() -> Beat:
            await bench.submit("run-b")
            return await bench.store.beat(bench.worker(), [claim.ref], LEASE_S)

        return asyncio.run(beat())

    watching = asyncio.create_task(bench.store.watch("work", await bench.store.watch("work", 0, 0), 30))
    await asyncio.sleep(0)
    assert (await asyncio.to_thread(heartbeat_thread)).lost == ()
    await watching
    assert [claim.run.id for claim in await bench.claim("w2")] == ["run-b"]


@clause
async def a_store_says_where_it_is(bench: Bench) -> None:
    assert bench.store.where
    assert bench.store.shared in {True, False}

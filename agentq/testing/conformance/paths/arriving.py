"""Clauses about arrivals: what was enqueued becomes one row, whole, however often it is delivered."""

# ruff: noqa: D103, PLR2004, S101 - a clause is named after what it proves, and asserts it with plain values

from __future__ import annotations

import asyncio
from datetime import timedelta

import msgspec

from agentq.clock import SystemClock
from agentq.message import RunState
from agentq.testing.conformance.paths.bench import PathBench, a_broker, clause, ordering


@clause()
async def what_was_enqueued_becomes_one_row(bench: PathBench) -> None:
    handle = await bench.greet.enqueue("Ada")
    [run] = await bench.bring(1)
    assert (run.id, run.task, run.queue, run.app, run.state) == (handle.id, "greet", bench.queue, bench.app.name, "queued")
    assert msgspec.json.decode(run.args) == {"name": "Ada"}
    [claim] = await bench.claim()
    assert claim.run.id == run.id


@clause()
async def many_that_are_enqueued_together_each_become_a_row(bench: PathBench) -> None:
    handles = await bench.app.enqueue_many([bench.greet.bind(f"n{number}") for number in range(60)])
    rows = await bench.bring(60)
    assert {run.id for run in rows} == {handle.id for handle in handles}


@clause()
async def every_field_arrives(bench: PathBench) -> None:
    now = SystemClock().wall()
    given = bench.envelope(
        bench.greet.options(key="k", tenant="Müller & Söhne", priority=3, tags={"a": "ä"}, max_attempts=7).bind("<&>\u2028 😀"),
        traceparent="00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
        deadline=now + 5000.5,
        timeout_s=60.0,
    )
    await bench.submit(given)
    [run] = await bench.bring(1)
    for name in (
        "id", "app", "task", "queue", "args", "args_hash", "key", "tenant", "priority", "tags", "max_attempts", "traceparent",
        "deadline", "timeout_s",
    ):  # fmt: skip
        assert getattr(run, name) == getattr(given, name), name
    assert abs(run.submitted_at - given.submitted_at) < 60


@clause()
async def what_is_submitted_twice_is_one_row(bench: PathBench) -> None:
    given = bench.envelope(bench.greet.bind("Ada"))
    await bench.submit(given)
    await bench.submit(given)
    await bench.bring(1)
    assert len(await bench.claim()) == 1
    await bench.submit(given)
    await bench.bring(1)
    assert await bench.claim() == []


@clause(a_broker)
async def a_crash_before_the_acknowledgement_makes_a_duplicate_that_is_dropped(bench: PathBench) -> None:
    await bench.expire_soon()
    await bench.app.enqueue_many([bench.greet.bind(f"n{number}") for number in range(5)])
    deaf = bench.deaf()

    async def admitted() -> bool:
        return len(await bench.rows()) == 5 and deaf.acknowledged >= 5

    async with bench.intake(deaf.as_broker()):
        await bench.until("all are admitted, and their acknowledgement is lost", admitted)
    before = await bench.rows()
    claims = await bench.claim()
    after = await bench.bring(5)
    assert [run.id for run in after] == [run.id for run in before]
    assert {run.state for run in after} == {RunState.RUNNING}
    assert len(claims) == 5


@clause(a_broker)
async def what_comes_while_the_store_is_away_is_there_when_it_is_back(bench: PathBench) -> None:
    away = bench.away()

    async def refused() -> bool:
        return away.asked > 1

    async with bench.intake(store=away.as_store()):
        handles = await bench.app.enqueue_many([bench.greet.bind(f"n{number}") for number in range(5)])
        await bench.until("the store was asked in vain, again and again", refused)
        assert await bench.rows() == []
        away.away = False
        await bench.until("the broker is empty", bench.empty)
    assert {run.id for run in await bench.bring(5)} == {handle.id for handle in handles}


@clause(a_broker)
async def what_was_received_in_vain_comes_to_the_next_at_once(bench: PathBench) -> None:
    away = bench.away()

    async def refused() -> bool:
        return away.asked > 0

    await bench.app.enqueue_many([bench.greet.bind(f"n{number}") for number in range(5)])
    async with bench.intake(store=away.as_store()):
        await bench.until("the store was asked in vain", refused)
    await bench.bring(5)


@clause(a_broker)
async def two_intakes_bring_each_message_once(bench: PathBench) -> None:
    async with bench.intake(), bench.intake():
        handles = await bench.app.enqueue_many([bench.greet.bind(f"n{number}") for number in range(40)])
        await bench.until("the broker is empty", bench.empty)
    assert {run.id for run in await bench.bring(40)} == {handle.id for handle in handles}


@clause()
async def a_run_that_is_final_is_not_started_by_a_late_delivery(bench: PathBench) -> None:
    given = bench.envelope(bench.greet.bind("Ada"))
    await bench.submit(given)
    await bench.bring(1)
    [claim] = await bench.claim()
    await bench.finish(claim)
    await bench.submit(given)
    [run] = await bench.bring(1)
    assert run.state is RunState.SUCCEEDED
    assert await bench.claim() == []


@clause()
async def large_arguments_arrive(bench: PathBench) -> None:
    name = "x" * 2_500_000
    await bench.greet.enqueue(name)
    [run] = await bench.bring(1)
    assert msgspec.json.decode(run.args) == {"name": name}


@clause()
async def a_delay_is_kept(bench: PathBench) -> None:
    loop = asyncio.get_running_loop()
    began = loop.time()
    await bench.greet.options(delay=timedelta(seconds=2)).enqueue("later")
    await bench.greet.enqueue("now")

    async def claimed() -> bool:
        for claim in await bench.claim():
            came[msgspec.json.decode(claim.run.args)["name"]] = loop.time() - began
        return len(came) == 2

    came: dict[str, float] = {}
    async with bench.intake():
        await bench.until("both are claimed", claimed)
    assert came["now"] <= came["later"]
    assert came["later"] >= 1.9, came


@clause()
async def a_delay_of_days_is_kept_by_the_store(bench: PathBench) -> None:
    await bench.greet.options(delay=timedelta(days=3)).enqueue("later")
    [run] = await bench.bring(1)
    assert run.due_at is not None
    assert run.due_at > SystemClock().wall() + 2 * 86400
    assert await bench.claim() == []


@clause(ordering)
async def runs_of_one_ordering_key_start_in_order_one_at_a_time(bench: PathBench) -> None:
    for number in range(5):
        await bench.greet.options(ordering_key="k").enqueue(f"n{number}")
    await bench.app.enqueue_many([bench.greet.options(ordering_key="k").bind(f"n{number}") for number in range(5, 10)])
    await bench.bring(10)
    for number in range(10):
        [claim] = await bench.claim()
        assert msgspec.json.decode(claim.run.args) == {"name": f"n{number}"}
        assert await bench.claim() == []
        await bench.finish(claim)


@clause()
async def without_an_ordering_key_nothing_waits_for_anything(bench: PathBench) -> None:
    await bench.app.enqueue_many([bench.greet.options(tenant="acme").bind(f"n{number}") for number in range(12)])
    await bench.bring(12)
    assert len(await bench.claim()) == 12

"""Clauses about submissions: once, in order, with all that was given."""

# ruff: noqa: D103, S101 - a clause is named after what it proves, and asserts it with plain values

from __future__ import annotations

import asyncio

from agentq.message import RunQuery, RunState
from agentq.testing.conformance.bench import Bench, clause


@clause
async def a_submission_is_a_queued_run_with_all_its_fields(bench: Bench) -> None:
    now = bench.clock.wall()
    given = bench.envelope(
        "run-a", key="k", tenant="acme", priority=3, due_at=now + 5, deadline=now + 99, max_attempts=7, timeout_s=60.0,
        tags={"a": "b"}, traceparent="00-1-2-03", root_id="run-0", args=b'{"topic":"\xc3\xa9"}', args_hash="h9",
    )  # fmt: skip
    await bench.store.submit([given])
    run = await bench.run()
    for name in (
        "id", "app", "task", "queue", "args", "args_hash", "submitted_at", "key", "tenant", "priority", "due_at", "deadline",
        "max_attempts", "timeout_s", "tags", "traceparent", "root_id",
    ):  # fmt: skip
        assert getattr(run, name) == getattr(given, name), name
    assert (run.state, run.epoch, run.attempt, run.owner, run.lease_s) == (RunState.QUEUED, 0, 1, None, None)


@clause
async def submitting_an_id_again_leaves_the_run_and_answers_its_arguments(bench: Bench) -> None:
    await bench.submit("run-a")
    [again] = await bench.submit("run-a", args=b'{"n":2}', args_hash="h2", task="other")
    assert (again.id, again.created, again.args, again.args_hash) == ("run-a", False, b'{"n":1}', "h1")
    assert (await bench.run()).task == "task"


@clause
async def submitting_a_final_run_again_does_not_start_it_again(bench: Bench) -> None:
    await bench.succeed(await bench.begin())
    [again] = await bench.submit("run-a")
    assert (again.created, again.state) == (False, RunState.SUCCEEDED)
    assert await bench.claim() == []


@clause
async def submissions_are_answered_in_order_also_when_some_exist(bench: Bench) -> None:
    await bench.submit("run-b")
    answers = await bench.submit("run-c", "run-b", "run-a", "run-c")
    assert [(answer.id, answer.created) for answer in answers] == [
        ("run-c", True), ("run-b", False), ("run-a", True), ("run-c", False),
    ]  # fmt: skip


@clause
async def five_thousand_submissions_go_in_one_piece(bench: Bench) -> None:
    answers = await bench.submit(*(f"run-{n:05d}" for n in range(5000)))
    assert all(answer.created for answer in answers)
    assert len(await bench.store.runs(RunQuery(limit=6000))) == len(answers)


@clause
async def of_many_who_submit_the_same_id_at_once_one_creates_it(bench: Bench) -> None:
    handles = [bench.store, bench.other] * 10
    answers = await asyncio.gather(
        *(store.submit([bench.envelope("run-a", args_hash=str(n))]) for n, store in enumerate(handles))
    )
    created = [answer for [answer] in answers if answer.created]
    assert len(created) == 1
    stands = (await bench.run()).args_hash
    assert all(answer.args_hash == stands for [answer] in answers if not answer.created)


@clause
async def submitting_nothing_is_fine(bench: Bench) -> None:
    assert await bench.store.submit([]) == []

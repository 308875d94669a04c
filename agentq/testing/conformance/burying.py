"""Clauses about tombstones: an id stays known after its run was swept, for as long as a broker may deliver it again."""

# ruff: noqa: D103, PLR2004, S101 - a clause is named after what it proves, and asserts it with plain values

from __future__ import annotations

from agentq.message import Admission, Cancel, Failed, Failure, Fork, Pause, Reply, Requeue, RunQuery, RunState, Send
from agentq.stores.base import TOMBSTONE_S
from agentq.testing.conformance.bench import Bench, child, clause, entry

DAY_S = 86_400.0


async def _bury(bench: Bench, run_id: str = "run-a") -> None:
    """A run that succeeded and was swept soon after."""
    await bench.succeed(await bench.begin(run_id))
    bench.clock.advance(DAY_S)
    assert await bench.store.sweep(retention_s=DAY_S / 2) == 1
    assert await bench.store.runs(RunQuery(ids=(run_id,))) == []


@clause
async def a_swept_id_is_known_while_its_tombstone_stands(bench: Bench) -> None:
    await _bury(bench)
    [again] = await bench.submit("run-a", args_hash="h2")
    assert (again.id, again.created, again.args) == ("run-a", False, None)
    assert (again.args_hash, again.state) == ("h1", RunState.SUCCEEDED)
    [late] = await bench.store.admit(Admission(envelopes=(bench.envelope("run-a"),)))
    assert late == again
    assert await bench.store.runs(RunQuery()) == []
    assert await bench.claim() == []


@clause
async def a_tombstone_tells_how_the_run_ended(bench: Bench) -> None:
    await bench.commit(await bench.begin("run-f"), settle=Failed(failure=Failure(type="E", message="m")))
    await bench.submit("run-c")
    await bench.store.command(Cancel(run_id="run-c"))
    bench.clock.advance(DAY_S)
    assert await bench.store.sweep(retention_s=1) == 2
    answers = await bench.submit("run-c", "run-f")
    assert [answer.state for answer in answers] == [RunState.CANCELLED, RunState.FAILED]


@clause
async def answers_keep_their_order_where_some_have_a_tombstone(bench: Bench) -> None:
    await _bury(bench, "run-b")
    await bench.submit("run-d")
    answers = await bench.submit("run-a", "run-b", "run-c", "run-d", "run-a")
    assert [(answer.id, answer.created) for answer in answers] == [
        ("run-a", True), ("run-b", False), ("run-c", True), ("run-d", False), ("run-a", False),
    ]  # fmt: skip
    assert {claim.run.id for claim in await bench.claim()} == {"run-a", "run-c", "run-d"}


@clause
async def commands_for_a_swept_run_find_nothing(bench: Bench) -> None:
    await _bury(bench)
    for command in (
        Cancel(run_id="run-a"), Pause(run_id="run-a", early=True), Requeue(run_id="run-a"),
        Send(run_id="run-a", name="go", signal_id="1", payload=b"1", early=True), Fork(run_id="run-a", new_id="run-b", upto=0),
    ):  # fmt: skip
        assert await bench.store.command(command) is Reply.NOT_FOUND


@clause
async def a_tombstone_falls_when_its_time_is_over(bench: Bench) -> None:
    await _bury(bench)
    bench.clock.advance(TOMBSTONE_S - DAY_S - 1)
    await bench.store.sweep(retention_s=DAY_S)
    assert not (await bench.submit("run-a"))[0].created
    bench.clock.advance(2)
    await bench.store.sweep(retention_s=DAY_S)
    assert (await bench.submit("run-a"))[0].created
    await bench.take()


@clause
async def what_was_final_for_long_leaves_no_tombstone(bench: Bench) -> None:
    await bench.commit(await bench.begin(), entry(0))
    await bench.store.command(Cancel(run_id="run-a"))
    bench.clock.advance(60)
    await bench.claim()
    bench.clock.advance(TOMBSTONE_S)
    assert await bench.store.sweep(retention_s=TOMBSTONE_S) == 1
    claim = await bench.begin()
    assert (claim.journal, claim.waits, claim.run.entries) == ((), (), 0)


@clause
async def a_child_leaves_no_tombstone_and_heeds_none(bench: Bench) -> None:
    """A parent waits for its child: it must come to be, whatever was swept."""
    await _bury(bench, "run-x")
    parent = await bench.begin("run-p")
    await bench.commit(parent, children=(bench.envelope("run-c"), bench.envelope("run-x")), waits=(child("run-x"),))
    kids = await bench.claim()
    assert {claim.run.id for claim in kids} == {"run-c", "run-x"}
    [answer] = await bench.submit("run-x")
    assert (answer.created, answer.args, answer.state) == (False, b'{"n":1}', RunState.RUNNING)
    for claim in (*kids, parent):
        await bench.succeed(claim)
    bench.clock.advance(10)
    assert await bench.store.sweep(retention_s=1) == 3
    answers = await bench.submit("run-c", "run-p", "run-x")
    assert [answer.created for answer in answers] == [True, False, False]

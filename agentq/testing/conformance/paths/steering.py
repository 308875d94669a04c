"""Clauses about verbs that come before the run has a row: they hold as soon as it has one."""

# ruff: noqa: D103, S101 - a clause is named after what it proves, and asserts it with plain values

from __future__ import annotations

from agentq.message import RunState, Write
from agentq.signal import Signal
from agentq.testing.conformance.bench import signal
from agentq.testing.conformance.paths.bench import PathBench, a_broker, clause

GO = Signal("go", int)


@clause(a_broker)
async def a_run_in_the_broker_is_submitted(bench: PathBench) -> None:
    handle = await bench.greet.enqueue("Ada")
    assert (await handle.status()).state is RunState.SUBMITTED
    await bench.bring(1)
    assert (await handle.status()).state is RunState.QUEUED


@clause()
async def what_is_cancelled_before_it_has_a_row_never_starts(bench: PathBench) -> None:
    handle = await bench.greet.enqueue("Ada")
    await handle.cancel()
    [run] = await bench.bring(1)
    assert run.state is RunState.CANCELLED
    assert await bench.claim() == []


@clause()
async def what_is_paused_before_it_has_a_row_waits_for_resume(bench: PathBench) -> None:
    handle = await bench.greet.enqueue("Ada")
    await handle.pause()
    [run] = await bench.bring(1)
    assert run.paused
    assert await bench.claim() == []
    await handle.resume()
    assert len(await bench.claim()) == 1


@clause()
async def signals_before_the_row_are_in_the_mailbox_in_order(bench: PathBench) -> None:
    handle = await bench.greet.enqueue("Ada")
    for number in (1, 2):
        await handle.signal(GO, number, id=f"s{number}")
    await handle.signal(GO, 2, id="s2")
    await bench.bring(1)
    [claim] = await bench.claim()
    await bench.store.write(Write(ref=claim.ref, waits=(signal("go"),)))
    arrivals = await bench.store.inbox([claim.run.id])
    assert [arrival.payload for arrival in arrivals] == [b"1", b"2"]

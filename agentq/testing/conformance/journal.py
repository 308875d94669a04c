"""Clauses about what a run writes: journal, snapshots, stream, progress, usage, outcome."""

# ruff: noqa: D103, PLR2004, S101 - a clause is named after what it proves, and asserts it with plain values

from __future__ import annotations

import asyncio
import hashlib

from agentq.errors import NotFound, StoreError
from agentq.message import (
    Cancel,
    Chunk,
    Claim,
    Crashed,
    Entry,
    EntryKind,
    Failed,
    Failure,
    Fork,
    Released,
    Retried,
    RunQuery,
    RunState,
    Settlement,
    Succeeded,
    Suspended,
    Verdict,
    Write,
)
from agentq.testing.conformance.bench import Bench, clause, entry, signal, timer, waited

FAILURE = Failure(
    type="httpx.ConnectError", message="é: no", traceback="tb", permanent=True, retry_after_s=1.5, step="s", seq=4
)
LARGE = b'"' + b"x" * (200 * 1024) + b'"'


async def refused(bench: Bench, claim: Claim, *entries: Entry, settle: Settlement | None = None) -> None:
    """The write must raise `StoreError` and change nothing."""
    before = (await bench.run(claim.run.id), await bench.store.journal(claim.run.id))
    try:
        verdict = await bench.write(claim, *entries, waits=(signal(),), children=(bench.envelope("run-new"),), settle=settle)
    except StoreError:
        pass
    else:
        raise AssertionError(f"expected StoreError, got {verdict}")
    assert (await bench.run(claim.run.id), await bench.store.journal(claim.run.id)) == before
    assert await bench.store.waits(claim.run.id) == []
    assert await bench.store.runs(RunQuery(ids=("run-new",))) == []


@clause
async def entries_come_back_as_they_were_written(bench: Bench) -> None:
    claim = await bench.begin()
    fields = {"epoch": 1, "args_hash": "ab", "value": b'{"\xc3\xa9":1}', "started_at": 1.5, "ended_at": 2.25}
    entries = tuple(
        entry(n, f"step {n}", kind=kind, branch=f"0/{n}", attempt=n + 1, tokens=n, cost_nanos=n * 10**12, **fields)
        for n, kind in enumerate(EntryKind)
    )
    await bench.commit(claim, *entries[:3])
    await bench.commit(claim, *entries[3:])
    assert tuple(await bench.store.journal("run-a")) == entries
    assert (await bench.taken_over()).journal == entries


@clause
async def a_journal_has_no_gaps(bench: Bench) -> None:
    claim = await bench.begin()
    await refused(bench, claim, entry(1))
    await bench.commit(claim, entry(0))
    await refused(bench, claim, entry(1), entry(3), settle=Succeeded(result=b"1"))


@clause
async def a_journal_is_never_rewritten(bench: Bench) -> None:
    claim = await bench.begin()
    await bench.commit(claim, entry(0), entry(1))
    await refused(bench, claim, entry(1, value=b"2", occurrence=7))
    await refused(bench, claim, entry(0, "else"))


@clause
async def the_same_step_never_commits_twice(bench: Bench) -> None:
    claim = await bench.begin()
    await bench.commit(claim, entry(0, occurrence=0))
    await refused(bench, claim, entry(1, occurrence=0))
    await refused(bench, claim, entry(1, occurrence=1), entry(2, occurrence=1))
    taken = await bench.taken_over()
    await refused(bench, taken, entry(1, occurrence=0, epoch=2))


@clause
async def another_kind_try_branch_or_occurrence_is_another_entry(bench: Bench) -> None:
    claim = await bench.begin()
    await bench.commit(
        claim,
        entry(0, occurrence=0, kind=EntryKind.STARTED),
        entry(1, occurrence=0, kind=EntryKind.TRIED),
        entry(2, occurrence=0, kind=EntryKind.TRIED, attempt=2),
        entry(3, occurrence=0, attempt=3),
        entry(4, occurrence=0, attempt=3, branch="0"),
        entry(5, occurrence=1, attempt=3),
    )
    assert (await bench.run()).entries == 6


@clause
async def a_bad_write_harms_no_neighbour(bench: Bench) -> None:
    await bench.submit(*(f"run-{n:02d}" for n in range(11)))
    claims = await bench.claim()
    results = await asyncio.gather(
        *(bench.write(claim, entry(5 if n == 5 else 0)) for n, claim in enumerate(claims)), return_exceptions=True
    )
    assert isinstance(results.pop(5), StoreError)
    assert results == [Verdict.COMMITTED] * 10


@clause
async def the_same_write_again_commits_nothing_twice(bench: Bench) -> None:
    claim = await bench.begin()
    write = Write(
        ref=claim.ref,
        entries=(entry(0, kind=EntryKind.SAVED, tokens=7, cost_nanos=9), entry(1)),
        waits=(signal(),),
        children=(bench.envelope("run-b", parent_id="run-a"),),
        snapshot=("", b"{}"),
        chunks=(Chunk(topic="t", payload=b"1", epoch=1, n=0, at=0.0),),
        progress=(0.5, ""),
    )
    assert await bench.store.write(write) is Verdict.COMMITTED
    before = await bench.run()
    assert await bench.store.write(write) is Verdict.COMMITTED
    assert await bench.run() == before
    assert (before.tokens, before.cost_nanos, before.entries) == (7, 9, 2)
    assert len(await bench.store.stream("run-a")) == 1
    assert len(await bench.store.waits("run-a")) == 1


@clause
async def an_older_write_again_commits_nothing_twice(bench: Bench) -> None:
    claim = await bench.begin()
    late = Write(ref=claim.ref, entries=(entry(0, kind=EntryKind.SAVED, value=b"1"),), waits=(timer(9e9),), snapshot=("", b"1"))
    await bench.store.write(late)
    await bench.commit(claim, entry(1, kind=EntryKind.SAVED, value=b"2"), snapshot=("", b"2"))
    await bench.commit(claim, waited(2, timer(9e9)))
    assert await bench.store.write(late) is Verdict.COMMITTED
    assert await bench.store.waits("run-a") == []
    taken = await bench.taken_over()
    assert taken.snapshots == {"": b"2"}
    assert taken.run.entries == 3


@clause
async def the_same_settling_write_again_is_committed_and_adds_nothing(bench: Bench) -> None:
    settlements: tuple[Settlement, ...] = (
        Succeeded(result=b"1"), Failed(failure=FAILURE), Retried(failure=FAILURE, delay_s=5), Released(), Suspended(),
        Crashed(failure=FAILURE, delay_s=5),
    )  # fmt: skip
    for n, settle in enumerate(settlements):
        claim = await bench.begin(f"run-{n}", queue=f"q{n}")
        write = Write(ref=claim.ref, entries=(entry(0, tokens=3),), waits=(timer(9e9),), settle=settle, running_s=2.0)
        assert await bench.store.write(write) is Verdict.COMMITTED
        before = await bench.run(f"run-{n}")
        assert await bench.store.write(write) is Verdict.COMMITTED, settle
        assert await bench.run(f"run-{n}") == before
        assert (before.tokens, before.running_s, before.entries) == (3, 2.0, 1)


@clause
async def the_same_settling_write_without_entries_again_is_committed(bench: Bench) -> None:
    claim = await bench.begin()
    write = Write(ref=claim.ref, settle=Succeeded(result=b"1"))
    verdicts = [await bench.store.write(write) for _ in range(3)]
    assert verdicts == [Verdict.COMMITTED] * 3


@clause
async def another_settlement_of_a_settled_run_is_refused(bench: Bench) -> None:
    claim = await bench.begin()
    await bench.succeed(claim)
    assert await bench.write(claim, settle=Failed(failure=FAILURE)) is Verdict.FENCED
    run = await bench.run()
    assert (run.state, run.result, run.failure) == (RunState.SUCCEEDED, b"1", None)


@clause
async def another_write_with_the_same_settlement_is_refused(bench: Bench) -> None:
    claim = await bench.begin()
    await bench.commit(claim, entry(0), settle=Released())
    assert await bench.write(claim, entry(1), settle=Released()) is Verdict.FENCED
    assert len(await bench.store.journal("run-a")) == 1


@clause
async def the_same_write_again_is_committed_also_when_a_cancel_came_between(bench: Bench) -> None:
    claim = await bench.begin()
    write = Write(ref=claim.ref, entries=(entry(0),), children=(bench.envelope("run-b", parent_id="run-a"),))
    assert await bench.store.write(write) is Verdict.COMMITTED
    await bench.store.command(Cancel(run_id="run-a"))
    assert await bench.store.write(write) is Verdict.COMMITTED
    assert len(await bench.store.journal("run-a")) == 1


@clause
async def tokens_and_cost_of_all_entries_are_summed(bench: Bench) -> None:
    claim = await bench.begin()
    await bench.commit(claim, entry(0, tokens=5, cost_nanos=10**15), entry(1, tokens=7))
    await bench.commit(claim, entry(2, kind=EntryKind.TRIED, tokens=1, cost_nanos=1), settle=Succeeded(result=b"1"))
    run = await bench.run()
    assert (run.tokens, run.cost_nanos) == (13, 10**15 + 1)


@clause
async def done_steps_are_counted_and_the_last_is_named(bench: Bench) -> None:
    claim = await bench.begin()
    await bench.commit(claim, entry(0, "first", kind=EntryKind.TRIED), entry(1, "first"), entry(2, "second"))
    run = await bench.run()
    assert (run.steps, run.entries, run.last_step) == (2, 3, "second")


@clause
async def a_large_value_comes_back_whole(bench: Bench) -> None:
    claim = await bench.begin()
    write = Write(ref=claim.ref, entries=(entry(0, value=LARGE), entry(1, value=LARGE), entry(2)))
    assert await bench.store.write(write) is Verdict.COMMITTED
    assert await bench.store.write(write) is Verdict.COMMITTED
    for kept in (await bench.store.journal("run-a"), (await bench.taken_over()).journal):
        for large in kept[:2]:
            if large.value is None:
                assert large.blob == hashlib.sha256(LARGE).hexdigest()
            assert (await bench.store.blob(large.blob) if large.blob else large.value) == LARGE
        assert kept[2].value == b"1"


@clause
async def a_fork_shares_large_values(bench: Bench) -> None:
    claim = await bench.begin()
    await bench.commit(claim, entry(0, value=LARGE))
    await bench.succeed(claim)
    await bench.store.command(Fork(run_id="run-a", new_id="run-b", upto=1))
    [original], [copy] = await bench.store.journal("run-a"), await bench.store.journal("run-b")
    assert original == copy


@clause
async def a_blob_that_is_not_there_is_not_found(bench: Bench) -> None:
    try:
        await bench.store.blob("0" * 64)
    except NotFound:
        return
    raise AssertionError("blob() of an unknown address must raise NotFound")


@clause
async def a_large_result_comes_back_whole(bench: Bench) -> None:
    await bench.succeed(await bench.begin(args=LARGE), LARGE)
    run = await bench.run()
    assert (run.result, run.args) == (LARGE, LARGE)


@clause
async def a_journal_is_read_from_any_place_on(bench: Bench) -> None:
    claim = await bench.begin()
    await bench.commit(claim, *(entry(n) for n in range(5)))
    assert [e.seq for e in await bench.store.journal("run-a", 2)] == [3, 4]
    assert await bench.store.journal("run-a", 4) == []
    assert await bench.store.journal("nowhere") == []


@clause
async def only_the_last_snapshot_of_a_branch_is_kept(bench: Bench) -> None:
    claim = await bench.begin()
    await bench.commit(claim, entry(0, kind=EntryKind.SAVED), snapshot=("", b'{"n":1}'))
    await bench.commit(claim, entry(1, kind=EntryKind.SAVED, branch="0"), snapshot=("0", LARGE))
    await bench.commit(claim, entry(2, kind=EntryKind.SAVED), snapshot=("", b'{"n":2}'))
    assert (await bench.taken_over()).snapshots == {"": b'{"n":2}', "0": LARGE}


@clause
async def the_stream_is_ordered_and_a_repeated_chunk_adds_nothing(bench: Bench) -> None:
    claim = await bench.begin()
    chunks = tuple(Chunk(topic="token", payload=b"%d" % n, epoch=1, n=n, at=1.0, branch="0") for n in range(4))
    await bench.commit(claim, chunks=chunks[:3])
    await bench.commit(claim, chunks=chunks[1:])
    read = await bench.store.stream("run-a")
    assert [(c.topic, c.payload, c.epoch, c.n, c.at, c.branch) for c in read] == [
        ("token", b"%d" % n, 1, n, 1.0, "0") for n in range(4)
    ]
    assert all(chunk.offset > 0 for chunk in read)
    assert [chunk.n for chunk in await bench.store.stream("run-a", read[1].offset, 1)] == [2]
    assert await bench.store.stream("run-a", read[-1].offset) == []


@clause
async def the_stream_keeps_every_epoch(bench: Bench) -> None:
    zombie = await bench.begin()
    await bench.commit(zombie, chunks=(Chunk(topic="t", payload=b"1", epoch=1, n=0, at=1.0),))
    owner = await bench.taken_over()
    await bench.write(zombie, chunks=(Chunk(topic="t", payload=b"2", epoch=1, n=1, at=1.0),))
    await bench.commit(owner, chunks=(Chunk(topic="t", payload=b"3", epoch=2, n=0, at=1.0),))
    assert [(chunk.epoch, chunk.payload) for chunk in await bench.store.stream("run-a")] == [(1, b"1"), (2, b"3")]


@clause
async def the_last_progress_stands(bench: Bench) -> None:
    claim = await bench.begin()
    await bench.commit(claim, progress=(0.25, "reading"))
    await bench.commit(claim, entry(0))
    assert ((await bench.run()).progress, (await bench.run()).progress_note) == (0.25, "reading")
    await bench.commit(claim, progress=(0.75, ""))
    assert ((await bench.run()).progress, (await bench.run()).progress_note) == (0.75, "")


@clause
async def running_time_adds_up_over_the_settlements(bench: Bench) -> None:
    await bench.commit(await bench.begin(), settle=Released(), running_s=1.5)
    await bench.commit(await bench.take(), waits=(timer(0),), settle=Suspended(), running_s=2.0)
    await bench.commit(await bench.take(), settle=Succeeded(result=b"1"), running_s=0.25)
    assert (await bench.run()).running_s == 3.75


@clause
async def an_outcome_is_kept_with_its_time(bench: Bench) -> None:
    await bench.submit("run-a", "run-b")
    first, second = await bench.claim()
    bench.clock.advance(3)
    await bench.commit(first, entry(0), settle=Succeeded(result=b'"r"'))
    await bench.commit(second, settle=Failed(failure=FAILURE))
    done, failed = await bench.run(first.run.id), await bench.run(second.run.id)
    assert (done.state, done.result, done.failure, done.entries) == (RunState.SUCCEEDED, b'"r"', None, 1)
    assert (failed.state, failed.result, failed.failure) == (RunState.FAILED, None, FAILURE)
    assert done.finished_at == failed.finished_at == bench.clock.wall()


@clause
async def a_retry_waits_its_delay_and_keeps_the_reason(bench: Bench) -> None:
    claim = await bench.begin()
    await bench.commit(claim, entry(0), settle=Retried(failure=FAILURE, delay_s=8))
    run = await bench.run()
    assert (run.state, run.attempt, run.failure, run.due_at) == (RunState.QUEUED, 2, FAILURE, bench.clock.wall() + 8)
    assert await bench.claim() == []
    bench.clock.advance(8)
    taken = await bench.take()
    assert (taken.run.attempt, taken.run.failure, len(taken.journal)) == (2, FAILURE, 1)
    await bench.succeed(taken)
    assert (await bench.run()).failure is None


@clause
async def fifty_writers_at_once_leave_fifty_whole_journals(bench: Bench) -> None:
    await bench.submit(*(f"run-{n:02d}" for n in range(50)))
    claims = await bench.claim()

    async def work(claim: Claim, n: int) -> None:
        store = bench.other if n % 2 else bench.store
        for seq in range(10):
            write = Write(ref=claim.ref, entries=(entry(seq, tokens=1),), settle=Succeeded(result=b"1") if seq == 9 else None)
            assert await store.write(write) is Verdict.COMMITTED

    await asyncio.gather(*(work(claim, n) for n, claim in enumerate(claims)))
    for claim in claims:
        assert [e.seq for e in await bench.store.journal(claim.run.id)] == list(range(10))
        run = await bench.run(claim.run.id)
        assert (run.state, run.tokens, run.steps) == (RunState.SUCCEEDED, 10, 10)

"""Runs in processes of their own: what dies there dies alone, and what was recorded stays."""

import asyncio
import os
import signal
import sys
import time
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from agentq import RunCancelled, RunFailed
from agentq.message import Cancel, ClaimRequest, RunState
from agentq.message import Worker as Row
from agentq.producer import envelope
from agentq.settings import WorkerSettings
from agentq.testing.wait import wait_until
from agentq.worker import Worker, isolate
from agentq.worker.ends import End
from tests.helpers import isolated_app
from tests.helpers.isolated_app import write
from tests.helpers.lab import told, working

aq = isolated_app.aq
QUICK = WorkerSettings(concurrency=2, heartbeat_s=0.05, fence_s=20, lease_s=30, poll_s=0.05, drain_s=5, grace_s=0.3)


@pytest.fixture(autouse=True)
def _no_delay_after_a_crash(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(isolate, "CRASH_DELAY_S", 0.0)


@pytest.fixture
async def opened(tmp_path: Path) -> AsyncIterator[str]:
    async with aq.using(store=f"sqlite:{tmp_path}/a.db"):
        yield str(tmp_path / "notes")


def words(path: str) -> list[str]:
    """What the children noted."""
    return Path(path).read_text().split() if Path(path).exists() else []


def alive(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return False
    return state != "Z"


async def test_an_isolated_run_has_a_process_of_its_own_and_others_do_not(opened: str) -> None:
    async with working(aq, QUICK):
        assert await (await isolated_app.whoami.enqueue()).result(timeout=20) != os.getpid()
        assert await (await isolated_app.plain.enqueue()).result(timeout=20) == os.getpid()
        with pytest.raises(RunFailed, match="LookupError: in the child"):
            await (await isolated_app.fails.enqueue()).result(timeout=20)


@pytest.mark.parametrize("broker", ["sqs://us-east-1?endpoint=http://127.0.0.1:9", None])
async def test_a_child_submits_through_the_broker_of_its_worker(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, broker: str | None
) -> None:
    monkeypatch.setenv("AGENTQ_BROKER", "sqs://eu-west-1?endpoint=http://127.0.0.1:9")
    async with aq.using(store=f"sqlite:{tmp_path}/a.db", broker=broker), working(aq, QUICK):
        where = None if aq.broker is None else aq.broker.where
        sent = envelope(isolated_app.submits_through.bind(), app=aq.name, now=time.time())
        await aq.store.submit([sent])
        assert await aq.handle(sent.id).result(timeout=20) == where


async def test_a_child_that_is_killed_costs_its_run_nothing_that_was_recorded_and_its_neighbours_nothing(opened: str) -> None:
    async with told() as events, working(aq, QUICK):
        handle = await isolated_app.dies_once.enqueue(opened)
        neighbour = await isolated_app.plain.enqueue()
        first, second = await handle.result(timeout=20)
        assert first != second
        assert words(opened) == ["first", "second"]
        assert await neighbour.result(timeout=20) == os.getpid()
        status = await handle.status()
        assert (status.attempt, status.takeovers) == (1, 0)
        (crash,) = [fields for event, fields in events if event == "run.crashed"]
        assert "SIGKILL" in crash["reason"]


async def test_a_run_that_only_kills_its_process_is_poison_and_told_so(opened: str) -> None:
    async with told() as events, working(aq, QUICK):
        handle = await isolated_app.always_dies.enqueue(opened)
        with pytest.raises(RunFailed) as poisoned:
            await handle.result(timeout=30)
        assert poisoned.value.failure.type == "Poisoned"
        assert "3 times" in poisoned.value.failure.message
        assert words(opened) == ["died"] * 3
        assert "run.poisoned" in [event for event, _ in events]


async def test_a_wait_ends_the_child_and_the_run_goes_on_in_another(opened: str) -> None:
    async with working(aq, QUICK) as worker:
        handle = await isolated_app.waits.enqueue(opened)

        async def waiting() -> bool:
            return (await handle.status()).state is RunState.WAITING

        await wait_until("it waits", waiting)
        await wait_until("the slot is free", lambda: worker.status()["busy"] == 0)
        await handle.signal(isolated_app.GO, "now")
        assert await handle.result(timeout=20) == ["now", False]


async def test_a_child_that_blocks_past_its_timeout_is_killed_and_its_run_has_timed_out(opened: str) -> None:
    async with working(aq, QUICK):
        with pytest.raises(RunFailed, match="RunTimeout"):
            await (await isolated_app.blocks.enqueue()).result(timeout=20)


async def test_a_cancel_reaches_the_child(opened: str) -> None:
    async with working(aq, QUICK):
        handle = await isolated_app.hangs.enqueue(opened)
        await wait_until("the child is in its code", lambda: words(opened))
        await aq.store.command(Cancel(run_id=handle.id))
        with pytest.raises(RunCancelled):
            await handle.result(timeout=20)
        await wait_until("the child is gone", lambda: not alive(int(words(opened)[0])))


async def test_a_drain_reaches_the_child_and_its_run_goes_on_elsewhere(opened: str) -> None:
    worker = Worker(aq, QUICK)
    job = asyncio.create_task(worker.run())
    handle = await isolated_app.drained.enqueue(opened)
    await wait_until("the child works", lambda: len(words(opened)) > 3)
    worker.drain("test")
    assert (await job).ends == {End.RELEASED: 1}
    status = await handle.status()
    assert (status.state, status.attempt) == (RunState.QUEUED, 1)
    write(opened + ".go", "go")
    async with working(aq, QUICK):
        await handle.result(timeout=20)
    assert words(opened).count("one") == 1


async def test_a_run_whose_worker_died_without_progress_is_tried_alone_in_a_process_of_its_own(opened: str) -> None:
    handle = await isolated_app.plain.enqueue()
    await aq.store.beat(Row(id="dead", app="isolated"), [], 30)
    request = ClaimRequest(worker="dead", app="isolated", queues=("default",), tasks=("plain",), limit=1, lease_s=0.01)
    assert len((await aq.store.claim(request)).claims) == 1
    async with told() as events, working(aq, QUICK):
        assert await handle.result(timeout=20) != os.getpid()
        (taken,) = [fields for event, fields in events if event == "run.taken_over"]
        assert taken["suspect"]
        status = await handle.status()
        assert (status.takeovers, status.attempt) == (1, 1)


async def test_a_child_dies_with_its_parent(tmp_path: Path) -> None:
    store, notes = f"sqlite:{tmp_path}/a.db", str(tmp_path / "notes")
    async with aq.using(store=store):
        await isolated_app.hangs.enqueue(notes)
        parent = await asyncio.create_subprocess_exec(sys.executable, "-m", "tests.helpers.isolated_app", store)
        try:
            await wait_until("the child is in its code", lambda: words(notes))
            child = int(words(notes)[0])
            assert child != parent.pid
        finally:
            parent.send_signal(signal.SIGKILL)
            await parent.wait()
        await wait_until("the child is gone", lambda: not alive(child))


async def test_without_a_store_that_others_can_open_an_isolated_task_runs_here() -> None:
    async with aq.using(store="memory:"), working(aq, QUICK):
        assert await (await isolated_app.whoami.enqueue()).result(timeout=20) == os.getpid()


async def test_a_child_that_has_settled_and_takes_its_time_to_end_is_not_taken_for_lost(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(isolate, "LOST_S", 30.0)
    slow = isolated_app.slow
    async with slow.using(store=f"sqlite:{tmp_path}/a.db"):
        worker = Worker(slow, QUICK)
        job = asyncio.create_task(worker.run())
        handle = await isolated_app.ends.enqueue()
        assert await handle.result(timeout=20) == "ended"
        (slot,) = worker._pool.slots.values()  # type: ignore[union-attr]
        await wait_until("a heartbeat says that the claim is gone", lambda: slot.held.lost)
        write(str(tmp_path / "close"), "now")
        await wait_until("the child has ended", lambda: worker.status()["busy"] == 0)
        worker.drain()
        assert (await job).ends == {End.SUCCEEDED: 1}

"""Several processes on one file: dead workers, wake-ups, durability, fair turns."""

from __future__ import annotations

import asyncio
import os
import signal
import stat
import subprocess
import sys
from contextlib import contextmanager
from pathlib import Path

import msgspec
import pytest

from agentq.message import ClaimRequest, Envelope, RunQuery, RunState
from agentq.stores.sqlite import SQLiteStore
from agentq.testing.wait import wait_until

SCRIPT = Path(__file__).with_name("sqlite_worker.py")
ROOT = Path(__file__).parents[2]
REQUEST = ClaimRequest(worker="here", app="app", queues=("queue",), tasks=("task",), limit=100, lease_s=30)


def envelopes(count: int, prefix: str = "run") -> list[Envelope]:
    return [
        Envelope(
            id=f"{prefix}-{n}", app="app", task="task", queue="queue", args=b"{}", args_hash="h", submitted_at=1_800_000_000.0
        )
        for n in range(count)
    ]  # fmt: skip


@pytest.fixture
async def store(tmp_path):
    async with SQLiteStore(tmp_path / "agentq.db") as opened:
        yield opened


@contextmanager
def process(what: str, store: SQLiteStore):
    env = os.environ | {"PYTHONPATH": str(ROOT)}
    started = subprocess.Popen([sys.executable, SCRIPT, what, store.where], stdout=subprocess.PIPE, text=True, env=env)
    try:
        yield started
    finally:
        started.kill()
        started.wait()
        started.stdout.close()


def bells(store: SQLiteStore) -> list[Path]:
    return list(Path(f"{store.where}-live").glob("*.bell"))


def lockfiles(store: SQLiteStore) -> list[Path]:
    return list(Path(f"{store.where}-live").glob("*.lock"))


async def line(started: subprocess.Popen[str], begins: str) -> list[str]:
    """The words of the next line that begins so."""
    while True:
        words = (await asyncio.to_thread(started.stdout.readline)).split()
        assert words, f"the process ended before it said {begins!r}"
        if words[0] == begins:
            return words


async def test_runs_of_a_killed_process_are_claimable_at_once(store):
    await store.submit(envelopes(3))
    with process("hold", store) as worker:
        assert await line(worker, "holds") == ["holds", "run-0", "run-1", "run-2"]
        assert (await store.claim(REQUEST)).claims == ()
        worker.kill()
        worker.wait()
    await wait_until("the dead worker's runs were taken over", lambda: _claims(store, 3))
    [run, *_] = await store.runs(RunQuery(states=(RunState.RUNNING,)))
    assert (run.owner, run.takeovers, run.suspect, run.epoch) == ("here", 1, True, 2)
    assert (await store.census()).workers == ()
    assert len(lockfiles(store)) == 1  # this store's own, for "here"


async def _claims(store, count):
    return len((await store.claim(REQUEST)).claims) == count


async def test_the_first_claim_of_a_new_process_finds_the_dead(store, tmp_path):
    await store.submit(envelopes(1))
    with process("hold", store) as worker:
        await line(worker, "holds")
    async with SQLiteStore(tmp_path / "agentq.db") as fresh:
        assert len((await fresh.claim(REQUEST)).claims) == 1


async def test_a_killed_worker_is_out_of_the_census_at_once(store):
    with process("hold", store) as worker:
        await line(worker, "holds")
        assert len((await store.census()).workers) == 1
        worker.kill()
        worker.wait()
        assert (await store.census()).workers == ()


async def test_files_of_workers_that_died_long_ago_are_removed(store, tmp_path):
    with process("hold", store) as worker:
        await line(worker, "holds")
    [path] = lockfiles(store)
    async with SQLiteStore(tmp_path / "agentq.db"):
        assert lockfiles(store) == [path]
    os.utime(path, (0, 0))
    async with SQLiteStore(tmp_path / "agentq.db"):
        assert lockfiles(store) == []


async def test_a_stopped_process_is_not_dead(store, tmp_path):
    await store.submit(envelopes(1))
    with process("hold", store) as worker:
        await line(worker, "holds")
        worker.send_signal(signal.SIGSTOP)
        async with SQLiteStore(tmp_path / "agentq.db") as fresh:
            assert (await fresh.claim(REQUEST)).claims == ()


async def test_a_forked_child_does_not_keep_its_dead_parent_alive(store, tmp_path):
    await store.submit(envelopes(1))
    with process("fork", store) as worker:
        child = int((await line(worker, "child"))[1])
        worker.kill()
        worker.wait()
        try:
            async with SQLiteStore(tmp_path / "agentq.db") as fresh:
                assert len((await fresh.claim(REQUEST)).claims) == 1
        finally:
            os.kill(child, signal.SIGKILL)


async def test_two_stores_of_one_process_tell_the_living_from_the_dead(store, tmp_path):
    await store.submit(envelopes(1))
    other = msgspec.structs.replace(REQUEST, worker="there")
    async with SQLiteStore(tmp_path / "agentq.db") as first:
        assert len((await first.claim(REQUEST)).claims) == 1
        async with SQLiteStore(tmp_path / "agentq.db") as second:
            assert (await second.claim(other)).claims == ()
    async with SQLiteStore(tmp_path / "agentq.db") as second:
        assert len((await second.claim(other)).claims) == 1


async def test_whatever_was_acknowledged_is_there_after_a_kill(store):
    await store.submit(envelopes(1))
    with process("write", store) as worker:
        await line(worker, "200")
        worker.kill()
        rest = worker.stdout.read().split()
    acknowledged = max([200, *map(int, rest[:-1])])  # the last line may be torn
    journal = await store.journal("run-0")
    assert [entry.seq for entry in journal] == list(range(len(journal)))
    assert len(journal) > acknowledged


async def test_many_processes_share_the_work_and_kills_lose_nothing(store):
    total = 300
    with process("drain", store) as a, process("drain", store) as b, process("drain", store) as c:
        await line(b, "open")
        await store.submit(envelopes(total))
        await line(c, "open")
        a.kill()
        await store.submit(envelopes(total, "later"))
        await wait_until("all runs are done", lambda: _done(store, 2 * total), timeout_s=30)
    for run in await store.runs(RunQuery(limit=2 * total)):
        assert run.entries == 1 + (run.takeovers if run.entries > 1 else 0)
        assert run.epoch == 1 + run.takeovers


async def _done(store, count):
    return len(await store.runs(RunQuery(states=(RunState.SUCCEEDED,), limit=count))) == count


async def test_a_submission_rings_in_another_process(store):
    with process("watch", store) as watcher:
        await line(watcher, "ready")
        await store.submit(envelopes(1))
        await line(watcher, "rung")


async def test_a_killed_process_leaves_no_bell_behind(store):
    with process("watch", store) as watcher:
        await line(watcher, "ready")
        assert len(bells(store)) == 2
    await store.submit(envelopes(1))
    await wait_until("its socket is gone", lambda: len(bells(store)) == 1)


async def test_a_step_elsewhere_is_news_here(store):
    await store.submit(envelopes(1))
    seen = await store.watch("news", 0, 0)
    with process("write", store) as worker:
        await line(worker, "0")
        assert await store.watch("news", seen, 30) != seen


async def test_processes_that_make_a_file_together_agree(tmp_path):
    target = SQLiteStore(tmp_path / "new.db")
    with process("open", target) as a, process("open", target) as b, process("open", target) as c:
        for started in (a, b, c):
            await line(started, "open")
            assert await asyncio.to_thread(started.wait) == 0


async def test_only_the_owner_can_read_the_files(store, tmp_path):
    await store.submit(envelopes(1))
    live = tmp_path / "agentq.db-live"
    modes = {path.name: stat.S_IMODE(path.stat().st_mode) for path in tmp_path.iterdir()}
    assert modes == {"agentq.db": 0o600, "agentq.db-wal": 0o600, "agentq.db-shm": 0o600, "agentq.db-live": 0o700}
    assert {stat.S_IMODE(path.stat().st_mode) & 0o077 for path in live.glob("*.lock")} <= {0}

"""Several processes on one schema: they share the work, wake each other, and make the tables once."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest

from agentq.message import RunQuery, RunState, Succeeded, Verdict, Write
from agentq.stores.postgres import PostgresStore
from agentq.testing.wait import wait_until
from tests.helpers.postgres import fresh_schema
from tests.helpers.runs import entry, envelope, request

SCRIPT = Path(__file__).with_name("postgres_worker.py")
ROOT = Path(__file__).parents[2]
FOR_EVER_S = 60.0


@pytest.fixture
async def url(postgres_url):
    async with fresh_schema(postgres_url) as own:
        yield own


@contextmanager
def process(what: str, url: str):
    env = os.environ | {"PYTHONPATH": str(ROOT)}
    started = subprocess.Popen([sys.executable, SCRIPT, what, url], stdout=subprocess.PIPE, text=True, env=env)
    try:
        yield started
    finally:
        started.kill()
        started.wait()
        started.stdout.close()


async def line(started: subprocess.Popen[str], begins: str) -> list[str]:
    """The words of the next line, which begins so."""
    words = (await asyncio.to_thread(started.stdout.readline)).split()
    assert words[:1] == [begins], f"expected {begins!r}, got {words}"
    return words


async def test_two_processes_share_the_work_and_are_woken(url):
    async with PostgresStore(url) as store:
        with process("drain", url) as one, process("drain", url) as two:
            await line(one, "ready")
            await line(two, "ready")
            await store.submit([envelope(f"run-{n}") for n in range(200)])

            async def finished():
                return len(await store.runs(RunQuery(states=(RunState.SUCCEEDED,), limit=999))) == 200

            await wait_until("both processes have emptied the queue", finished, timeout_s=30, every_s=0.05)
        for n in range(200):
            assert len(await store.journal(f"run-{n}")) == 1


async def test_a_reader_hears_of_what_another_process_did(url):
    async with PostgresStore(url) as store:
        with process("drain", url) as worker:
            await line(worker, "ready")
            seen = await store.watch("news", -1, 0)
            await store.submit([envelope("run-a")])
            while (await store.runs(RunQuery(ids=("run-a",))))[0].state is not RunState.SUCCEEDED:
                tick = await store.watch("news", seen, FOR_EVER_S)
                assert tick != seen, "nothing was heard"
                seen = tick


async def test_without_notify_polls_find_out(url):
    async with PostgresStore(f"{url}&notify=off") as store:
        with process("drain", f"{url}&notify=off") as worker:
            await line(worker, "ready")
            seen = await store.watch("work", -1, 0)
            await store.submit([envelope("run-a")])
            await line(worker, "done")
            while (await store.runs(RunQuery(ids=("run-a",))))[0].state is not RunState.SUCCEEDED:
                seen = await store.watch("work", seen, FOR_EVER_S)


async def test_the_runs_of_a_dead_process_are_taken_over_and_its_ghost_is_fenced(url):
    async with PostgresStore(url) as store:
        await store.submit([envelope("run-a"), envelope("run-b")])
        zombie, _ = (await store.claim(request("dead", lease_s=0.2))).claims

        async def taken():
            return (await store.claim(request("w"))).claims

        claims = []

        async def both():
            claims.extend(await taken())
            return len(claims) == 2

        await wait_until("the leases have run out", both)
        assert all(claim.taken_over and claim.run.takeovers == 1 and claim.run.suspect for claim in claims)
        assert await store.write(Write(ref=zombie.ref, entries=(entry(0),))) is Verdict.FENCED
        for claim in claims:
            assert await store.write(Write(ref=claim.ref, settle=Succeeded(result=b"1"))) is Verdict.COMMITTED


async def test_many_processes_that_come_at_once_make_the_tables_once(url):
    with ExitStack() as stack:
        makers = [stack.enter_context(process("make", url)) for _ in range(4)]
        for maker in makers:
            await line(maker, "made")
            assert await asyncio.to_thread(maker.wait, 30) == 0


async def test_many_handles_of_one_process_that_come_at_once_make_the_tables_once(url):
    async def use(n: int) -> None:
        async with PostgresStore(url) as store:
            await store.submit([envelope(f"run-{n}")])

    await asyncio.gather(*map(use, range(10)))
    async with PostgresStore(url) as store:
        assert len(await store.runs(RunQuery())) == 10

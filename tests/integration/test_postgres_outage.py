"""The server goes away and comes back: errors are clear meanwhile, and nothing has to be opened again."""

from __future__ import annotations

import asyncio
import contextlib
import signal

import pytest

from agentq.errors import StoreUnavailable
from agentq.message import RunQuery, Succeeded, Verdict, Write
from agentq.stores.postgres import PostgresStore, pool
from agentq.testing.wait import wait_until
from tests.helpers.postgres_server import own
from tests.helpers.runs import entry, envelope, request


@pytest.fixture
def server():
    with own() as started:
        yield started


async def test_a_server_that_was_stopped_and_started_is_found_again(server):
    async with PostgresStore(server.url) as store:
        await store.submit([envelope("run-a")])
        [claim] = (await store.claim(request())).claims
        await asyncio.to_thread(server.stop)
        write = Write(ref=claim.ref, entries=(entry(0),))
        for call in (
            lambda: store.write(write),
            lambda: store.submit([envelope("run-b")]),
            lambda: store.claim(request()),
            store.census,
        ):
            with pytest.raises(StoreUnavailable, match="postgresql://"):
                await call()
        await asyncio.to_thread(server.start)
        assert await store.write(write) is Verdict.COMMITTED
        seen = await store.watch("work", -1, 0)
        async with PostgresStore(server.url) as other:
            await other.submit([envelope("run-b")])
        assert await store.watch("work", seen, 30) > seen
        assert len(await store.runs(RunQuery())) == 2


async def test_a_server_that_hangs_is_unavailable_and_its_late_answer_no_surprise(server, monkeypatch):
    monkeypatch.setattr(pool, "ANSWER_S", 0.5)
    async with PostgresStore(server.url) as store:
        await store.submit([envelope("run-a")])
        [claim] = (await store.claim(request())).claims
        assert await store.write(Write(ref=claim.ref, entries=(entry(0),))) is Verdict.COMMITTED  # on a connection of its own
        write = Write(ref=claim.ref, entries=(entry(1),), settle=Succeeded(result=b"1"))
        server.signal(signal.SIGSTOP)
        try:
            with pytest.raises(StoreUnavailable, match="no answer"):
                await store.write(write)
        finally:
            server.signal(signal.SIGCONT)

        async def committed() -> bool:
            with contextlib.suppress(StoreUnavailable):
                return await store.write(write) is Verdict.COMMITTED
            return False

        await wait_until("the server answers again", committed)
        assert len(await store.journal("run-a")) == 2

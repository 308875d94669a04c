"""The server goes away and comes back: errors are clear meanwhile, and nothing has to be opened again."""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
import signal
import tempfile
import warnings
from pathlib import Path

import pytest

from agentq.errors import StoreUnavailable
from agentq.message import RunQuery, Succeeded, Verdict, Write
from agentq.stores.postgres import PostgresStore, pool
from agentq.testing.wait import wait_until
from tests.helpers.postgres import REMEDY
from tests.helpers.runs import entry, envelope, request
from tests.helpers.servers import unreachable


class Server:
    """A server that this test may stop."""

    def __init__(self, folder: Path) -> None:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            try:
                import pgserver  # noqa: PLC0415 - tests of other stores need none
            except ImportError as error:
                unreachable("PostgreSQL", f"{error}; {REMEDY}")
        self.pgserver = pgserver
        self.data = folder / "data"
        self.url = f"postgresql://postgres@/postgres?host={self.data}"
        self.start()

    def start(self) -> None:
        self.server = self.pgserver.get_server(self.data, cleanup_mode="stop")

    def stop(self) -> None:
        self.server.cleanup()

    def signal(self, number: int) -> None:
        """To the postmaster and every process of it."""
        pid = self.server.get_pid()
        for task in Path(f"/proc/{pid}/task").glob("*/children"):
            for child in task.read_text().split():
                with contextlib.suppress(ProcessLookupError):
                    os.kill(int(child), number)
        os.kill(pid, number)


@pytest.fixture
def server():
    folder = Path(tempfile.mkdtemp(prefix="agentq-pg-"))
    folder.chmod(0o755)
    try:
        started = Server(folder)
        try:
            yield started
        finally:
            started.stop()
    finally:
        shutil.rmtree(folder, ignore_errors=True)


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

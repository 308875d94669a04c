"""A worker that is started before its store is there: it waits, says so, and begins when the store answers."""

import asyncio
import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from agentq import AgentQ
from agentq.cli.standby import Standby
from agentq.cli.working import opened
from agentq.settings import WorkerSettings
from agentq.telemetry import add_sink, remove_sink
from agentq.testing.wait import wait_until, wait_until_sync
from tests.helpers import postgres
from tests.helpers.http import get
from tests.helpers.postgres import fresh_schema
from tests.helpers.processes import free_port

ROOT = Path(__file__).parents[2]
CODE = """
from agentq import AgentQ, Context

aq = AgentQ("late")

@aq.task
async def agent(ctx: Context) -> str:
    return "done"
"""


@pytest.fixture
def start(tmp_path):
    """Start the command line in a folder with a module; it is ended with the test."""
    (tmp_path / "late.py").write_text(CODE)
    environ = {**os.environ, "PYTHONPATH": str(ROOT), "AGENTQ_HEARTBEAT": "300ms"}
    started = []

    def new(*words):
        log = (tmp_path / f"log{len(started)}.txt").open("w+b")
        process = subprocess.Popen(
            [sys.executable, "-m", "agentq", *words], cwd=tmp_path, env=environ, stdout=log, stderr=subprocess.STDOUT
        )
        process.log = log
        started.append(process)
        return process

    yield new
    for process in started:
        if process.poll() is None:
            process.kill()
        process.wait()
        process.log.close()


def events(process):
    process.log.seek(0)
    lines = [json.loads(line) for line in process.log.read().splitlines() if line.startswith(b"{")]
    return [line["event"] for line in lines if "event" in line]


async def test_a_worker_begins_when_its_store_is_there(start, tmp_path):
    port = free_port()
    folder = tmp_path / "volume"
    health = ("--health-port", str(port), "--health-host", "127.0.0.1")
    worker = start("worker", "late:aq", "--store", str(folder / "agentq.db"), "--log", "json", *health)
    await wait_until("it misses the store", lambda: "store.unavailable" in events(worker), timeout_s=30)
    assert await get(port, "/healthz") == (200, "waiting for the store\n")
    status, text = await get(port, "/readyz")
    assert status == 503
    assert "make the folder first" in text
    folder.mkdir()
    await wait_until("it begins", lambda: "worker.ready" in events(worker), timeout_s=30)
    assert [event for event in events(worker) if event.startswith("store.")] == ["store.unavailable", "store.recovered"]
    assert (await get(port, "/readyz"))[0] == 200
    worker.terminate()
    assert await asyncio.to_thread(worker.wait, 30) == 0


@pytest.mark.parametrize("which", [signal.SIGTERM, signal.SIGINT])
def test_a_worker_that_waits_for_its_store_ends_in_order(start, which):
    nobody = f"postgresql://u:hush@127.0.0.1:{free_port()}/x"
    worker = start("worker", "late:aq", "--store", nobody, "--log", "json")
    wait_until_sync("it misses the store", lambda: "store.unavailable" in events(worker), timeout_s=30)
    worker.send_signal(which)
    assert worker.wait(30) == 0
    assert events(worker)[-1] == "worker.stopped"
    worker.log.seek(0)
    assert b"hush" not in worker.log.read()


def test_processes_that_wait_for_their_store_are_alive_and_end_in_order(start):
    port = free_port()
    nobody = f"postgresql://u:hush@127.0.0.1:{free_port()}/x"
    health = ("--health-port", str(port), "--health-host", "127.0.0.1")
    parent = start("worker", "late:aq", "--store", nobody, "--log", "json", "--processes", "2", *health)
    wait_until_sync("both miss the store", lambda: events(parent).count("store.unavailable") == 2, timeout_s=30)
    assert asyncio.run(get(port, "/healthz")) == (200, "2 processes\n")
    assert asyncio.run(get(port, "/readyz"))[0] == 503
    children = Path(f"/proc/{parent.pid}/task/{parent.pid}/children").read_text().split()
    assert len(children) == 2
    assert all(b"hush" not in Path(f"/proc/{child}/cmdline").read_bytes() for child in children)
    parent.terminate()
    assert parent.wait(30) == 0


def test_a_job_whose_store_does_not_answer_is_to_be_tried_again(start):
    assert start("job", "late:aq", "--store", f"postgresql://127.0.0.1:{free_port()}/x").wait(60) == 75


@pytest.mark.skipif(bool(postgres.GIVEN), reason="a server of one's own may not listen on a Unix socket")
async def test_a_postgresql_that_comes_up_later_is_found(postgres_url):
    seen = []

    def sink(event, fields):
        seen.append(event)

    add_sink(sink)
    port = free_port()
    try:
        async with fresh_schema(postgres_url) as url, contextlib.AsyncExitStack() as stack:
            there, _, rest = url.partition("?host=")
            data, _, more = rest.partition("&")
            late = there.replace("@/", f"@127.0.0.1:{port}/") + f"?{more}"
            app = AgentQ("late")
            standby = Standby(app, WorkerSettings(), where="postgresql://late")
            opening = asyncio.create_task(standby.open(stack, lambda: opened(app, late)))
            await wait_until("it misses the server", lambda: "store.unavailable" in seen)
            async with _door(port, f"{data}/.s.PGSQL.5432"):
                assert await asyncio.wait_for(opening, 30)
                assert (await app.store.census()).queues == ()
                await stack.aclose()
            assert seen[-1] == "store.recovered"
    finally:
        remove_sink(sink)


@contextlib.asynccontextmanager
async def _door(port, path):
    """Let whoever comes to ``port`` through to the server's Unix socket."""
    passing = set()

    async def let_through(reader, writer):
        passing.add(asyncio.current_task())
        there, back = await asyncio.open_unix_connection(path)
        pumps = asyncio.gather(_pump(reader, back), _pump(there, writer))
        try:
            await pumps
        except OSError:
            pumps.cancel()
        finally:
            for one in (writer, back):
                one.close()

    server = await asyncio.start_server(let_through, "127.0.0.1", port, family=socket.AF_INET)
    try:
        yield
    finally:
        server.close()
        await asyncio.wait(passing, timeout=5)


async def _pump(reader, writer):
    while data := await reader.read(65536):
        writer.write(data)
        await writer.drain()
    writer.close()

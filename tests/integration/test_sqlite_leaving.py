"""Several processes on one SQLite file do not harm each other when they come and go."""

import sqlite3
import subprocess
import sys
import time
from pathlib import Path

from agentq.message import Envelope, new_run_id
from agentq.stores import open_store

ROOT = Path(__file__).parents[2]
COME_AND_GO = """
import asyncio, sys
from agentq.message import RunQuery
from agentq.stores import open_store

async def visit():
    async with open_store(sys.argv[1]) as store:
        await store.runs(RunQuery())

asyncio.run(visit())
"""


def envelope() -> Envelope:
    return Envelope(id=new_run_id(), app="a", task="t", queue="q", args=b"{}", args_hash="0", submitted_at=time.time())


def visit(url: str) -> None:
    subprocess.run([sys.executable, "-c", COME_AND_GO, url], cwd=ROOT, check=True, timeout=30)


async def test_a_process_that_leaves_does_not_take_the_log_of_the_others_with_it(tmp_path: Path):
    # SQLite removes the write-ahead log with the last connection. A process that opened and closed the file beside SQLite
    # has dropped its locks on it (POSIX locks belong to the process, not to the descriptor) and no longer counts as one.
    path, log = tmp_path / "a.db", tmp_path / "a.db-wal"
    visit(f"sqlite://{path}")  # the file is there already, as it is for every worker but the first
    async with open_store(f"sqlite://{path}") as store:
        await store.submit([envelope()])
        before = log.stat().st_ino
        visit(f"sqlite://{path}")
        assert log.exists()
        assert log.stat().st_ino == before
        await store.submit([envelope()])
        visit(f"sqlite://{path}")
    connection = sqlite3.connect(path)
    assert connection.execute("pragma integrity_check").fetchone() == ("ok",)
    assert connection.execute("select count(*) from run").fetchone() == (2,)
    connection.close()

"""The ceiling for steps: a bare group commit, one writer thread that takes whatever waits, fences it and commits once."""

from __future__ import annotations

import asyncio
import queue
import sqlite3
import threading
from pathlib import Path

FENCED_INSERT = "insert into step (run, seq, value) select ?, ?, ? where exists (select 1 from run where id = ? and epoch = 1)"


class GroupCommit:
    """Writes rows for any number of coroutines of one loop; each awaits its own commit."""

    def __init__(self, folder: Path, runs: int) -> None:
        """Create the tables and ``runs`` owned runs."""
        self._path = folder / "raw.db"
        self._waiting: queue.SimpleQueue[tuple[int, int, str, asyncio.Future[None]] | None] = queue.SimpleQueue()
        self._loop = asyncio.get_running_loop()
        with sqlite3.connect(self._path) as connection:
            connection.execute("pragma journal_mode=wal")
            connection.execute("create table run (id integer primary key, epoch integer)")
            connection.execute("create table step (run integer, seq integer, value text, primary key (run, seq)) without rowid")
            connection.executemany("insert into run values (?, 1)", [(run,) for run in range(runs)])
        connection.close()
        self._thread = threading.Thread(target=self._write, name="raw-writer")
        self._thread.start()

    async def step(self, run: int, seq: int, value: str) -> None:
        """Return when the row is on disk."""
        done: asyncio.Future[None] = self._loop.create_future()
        self._waiting.put((run, seq, value, done))
        await done

    def close(self) -> None:
        """Stop the writer."""
        self._waiting.put(None)
        self._thread.join()

    def _write(self) -> None:
        connection = sqlite3.connect(self._path, isolation_level=None)
        connection.execute("pragma synchronous=full")
        while (first := self._waiting.get()) is not None:
            batch = [first]
            while not self._waiting.empty():
                if (item := self._waiting.get()) is None:
                    self._waiting.put(None)
                    break
                batch.append(item)
            connection.execute("begin immediate")
            connection.executemany(FENCED_INSERT, [(run, seq, value, run) for run, seq, value, _ in batch])
            connection.execute("commit")
            self._loop.call_soon_threadsafe(_wake, [done for *_, done in batch])
        connection.close()


def _wake(futures: list[asyncio.Future[None]]) -> None:
    for future in futures:
        future.set_result(None)

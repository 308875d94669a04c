"""huey on SQLite with one worker thread, its fastest. ``python -m tests.bench.peer_huey FOLDER`` is a worker process."""

from __future__ import annotations

import sys
import time
from pathlib import Path

from huey import SqliteHuey

huey = SqliteHuey("bench", filename="", create_tables=False)
bodies: list[float] = []
"""When each no-op body of this process ran (perf_counter)."""


def set_up(folder: Path) -> SqliteHuey:
    """Keep the queue in ``folder``."""
    huey.storage.filename = str(folder / "huey.db")
    huey.storage.initialize_schema()
    return huey


@huey.task()
def noop(payload: str) -> str:
    bodies.append(time.perf_counter())
    return "ok"


@huey.task()
def stamp(sent: float) -> float:
    return time.monotonic() - sent


if __name__ == "__main__":
    from tests.bench import peer_huey  # under this name, not as __main__, the tasks are those that the producer names

    consumer = peer_huey.set_up(Path(sys.argv[1])).create_consumer(workers=1, worker_type="thread", periodic=False)
    print("ready", flush=True)
    consumer.run()

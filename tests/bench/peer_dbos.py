"""dbos on SQLite, as its documentation starts it. ``python -m tests.bench.peer_dbos FOLDER`` is a worker process."""

from __future__ import annotations

import sys
import threading
import time
from pathlib import Path

from dbos import DBOS, DBOSConfig

QUEUE = "bench"
samples: list[float] = []
"""Seconds around each awaited step of this process."""
bodies: list[float] = []
"""When each no-op body of this process ran (perf_counter)."""


@DBOS.step()
async def append(value: str) -> str:
    return value


@DBOS.workflow()
async def steps(count: int, value: str) -> int:
    for _ in range(count):
        begin = time.perf_counter()
        await append(value)
        samples.append(time.perf_counter() - begin)
    return count


@DBOS.workflow()
async def noop(payload: str) -> str:
    bodies.append(time.perf_counter())
    return "ok"


@DBOS.workflow()
async def stamp(sent: float) -> float:
    return time.monotonic() - sent


def launch(folder: Path, *, listen: bool) -> None:
    """Start dbos in this process; with ``listen`` it also takes workflows from the queue."""
    config: DBOSConfig = {
        "name": "bench",
        "system_database_url": f"sqlite:///{folder}/dbos.sqlite",
        "log_level": "ERROR",
        "application_version": "1",
        "executor_id": "worker" if listen else "producer",
        "run_admin_server": False,
    }  # type: ignore[typeddict-unknown-key]
    DBOS(config=config)
    DBOS.listen_queues([QUEUE] if listen else ["none"])
    DBOS.launch()
    DBOS.register_queue(QUEUE)


if __name__ == "__main__":
    launch(Path(sys.argv[1]), listen=True)
    print("ready", flush=True)
    threading.Event().wait()

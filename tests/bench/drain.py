"""How many no-op runs one worker process gets through in a second, results stored."""

from __future__ import annotations

import asyncio
import os
import threading
import time
from pathlib import Path

from agentq.testing.wait import wait_until, wait_until_sync
from tests.bench.contest import Measurement, Numbers, Target

RUNS = 5000
PAYLOAD = "x" * 200
SLOTS = 100
LIMIT_S = 120.0


def _rate(bodies: list[float]) -> float:
    return (len(bodies) - 1) / (bodies[-1] - bodies[0])


def agentq(_: Path) -> Numbers:
    """Enqueue first, then let one worker of 100 slots drain."""
    from tests.bench.ours import aq, bodies, noop, working

    async def measure() -> Numbers:
        async with aq:
            handles = await aq.enqueue_many([noop.bind(PAYLOAD) for _ in range(RUNS)])
            begin = time.perf_counter()
            async with working(SLOTS):
                await wait_until("every run has begun", lambda: len(bodies) >= RUNS, timeout_s=LIMIT_S)
            # The worker has drained: every result is stored, also those of the last slots.
            stored = time.perf_counter() - begin
            for handle in (handles[0], handles[RUNS // 2], handles[-1]):
                if await handle.result(timeout=5) != "ok":
                    raise RuntimeError("a result is missing")
        return {"runs_per_s": _rate(bodies), "with_start_and_stop_per_s": RUNS / stored}

    return asyncio.run(measure())


def huey(folder: Path) -> Numbers:
    """One thread, results stored (its default)."""
    from tests.bench.peer_huey import bodies, noop, set_up

    app = set_up(folder)
    for _ in range(RUNS):
        noop(PAYLOAD)
    consumer = app.create_consumer(workers=1, worker_type="thread", periodic=False)
    consumer._set_signal_handlers = lambda: None
    consumer.start()
    wait_until_sync("every task has begun", lambda: len(bodies) >= RUNS, timeout_s=LIMIT_S, every_s=0.05)
    consumer.stop(graceful=True)
    return {"runs_per_s": _rate(bodies)}


def dbos(folder: Path) -> Numbers:
    """Its default queue, without a limit on concurrency; results stored."""
    from dbos import DBOS

    from tests.bench import peer_dbos

    peer_dbos.launch(folder, listen=False)
    for _ in range(RUNS):
        DBOS.enqueue_workflow(peer_dbos.QUEUE, peer_dbos.noop, PAYLOAD)
    DBOS.destroy()
    peer_dbos.launch(folder, listen=True)
    wait_until_sync("every workflow has begun", lambda: len(peer_dbos.bodies) >= RUNS, timeout_s=LIMIT_S, every_s=0.05)
    numbers = {"runs_per_s": _rate(peer_dbos.bodies)}
    threading.Timer(1.0, os._exit, (0,)).start()  # destroying it waits for its pollers
    return numbers


MEASUREMENT = Measurement(
    name="drain",
    shape=f"{RUNS} no-op runs with 200 B of arguments, enqueued before; first to last body; 100 slots (huey: one thread)",
    contenders={"agentq": agentq, "huey": huey, "dbos": dbos},
    targets=(Target(number="runs_per_s", label="no-op runs drained by one process", bound=6000, unit="/s", at_least=True),),
)

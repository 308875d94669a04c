"""How many runs a producer submits in a second."""

from __future__ import annotations

import asyncio
import time
from pathlib import Path

from tests.bench.contest import Measurement, Numbers, Target

RUNS = 20_000
HUEY_RUNS = 5_000
DBOS_RUNS = 500
PAYLOAD = "x" * 200


def agentq(_: Path) -> Numbers:
    """One call of ``enqueue_many``; binding the arguments counts."""
    from tests.bench.ours import aq, noop

    async def measure() -> float:
        async with aq:
            await noop.enqueue("warm")
            begin = time.perf_counter()
            await aq.enqueue_many([noop.bind(PAYLOAD) for _ in range(RUNS)])
            return time.perf_counter() - begin

    return {"runs_per_s": RUNS / asyncio.run(measure())}


def huey(folder: Path) -> Numbers:
    """It has no batch: one call after another."""
    from tests.bench.peer_huey import noop, set_up

    set_up(folder)
    noop("warm")
    begin = time.perf_counter()
    for _ in range(HUEY_RUNS):
        noop(PAYLOAD)
    return {"runs_per_s": HUEY_RUNS / (time.perf_counter() - begin)}


def dbos(folder: Path) -> Numbers:
    """It has no batch: one call after another."""
    from dbos import DBOS

    from tests.bench import peer_dbos

    peer_dbos.launch(folder, listen=False)
    DBOS.enqueue_workflow(peer_dbos.QUEUE, peer_dbos.noop, "warm")
    begin = time.perf_counter()
    for _ in range(DBOS_RUNS):
        DBOS.enqueue_workflow(peer_dbos.QUEUE, peer_dbos.noop, PAYLOAD)
    numbers = {"runs_per_s": DBOS_RUNS / (time.perf_counter() - begin)}
    DBOS.destroy()
    return numbers


MEASUREMENT = Measurement(
    name="enqueue-many",
    shape=f"{RUNS} runs with 200 B of arguments in one call (no batch: huey {HUEY_RUNS} and dbos {DBOS_RUNS} one by one)",
    contenders={"agentq": agentq, "huey": huey, "dbos": dbos},
    targets=(Target(number="runs_per_s", label="enqueue_many", bound=20_000, unit="/s", at_least=True),),
)

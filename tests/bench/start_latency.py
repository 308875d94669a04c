"""From the enqueue call to the task's first line, in an idle worker of another process."""

from __future__ import annotations

import asyncio
import time
from pathlib import Path

from tests.bench import processes
from tests.bench.contest import Measurement, Numbers, Target, quantile

COUNT = 200
GAP_S = 0.02
RESULT_S = 30.0


def _numbers(latencies: list[float]) -> Numbers:
    milliseconds = [1000 * latency for latency in latencies]
    return {"p50_ms": quantile(milliseconds, 0.5), "p99_ms": quantile(milliseconds, 0.99), "max_ms": max(milliseconds)}


def agentq(folder: Path) -> Numbers:
    """Embedded store, defaults."""
    from tests.bench.ours import aq, stamp

    async def measure() -> list[float]:
        async with aq:
            with processes.worker("agentq", folder):
                handles = []
                for _ in range(COUNT):
                    handles.append(await stamp.enqueue(time.monotonic()))
                    await asyncio.sleep(GAP_S)
                return [await handle.result(timeout=RESULT_S) for handle in handles]

    return _numbers(asyncio.run(measure()))


def huey(folder: Path) -> Numbers:
    """Polls; its default delay is 0.1 s, backing off to 10 s."""
    from tests.bench.peer_huey import set_up, stamp

    set_up(folder)
    with processes.worker("huey", folder):
        results = []
        for _ in range(COUNT):
            results.append(stamp(time.monotonic()))
            time.sleep(GAP_S)
        return _numbers([result.get(blocking=True, timeout=RESULT_S) for result in results])


def dbos(folder: Path) -> Numbers:
    """Polls; its default interval is 1 s."""
    from dbos import DBOS

    from tests.bench import peer_dbos

    peer_dbos.launch(folder, listen=False)
    with processes.worker("dbos", folder):
        handles = []
        for _ in range(COUNT):
            handles.append(DBOS.enqueue_workflow(peer_dbos.QUEUE, peer_dbos.stamp, time.monotonic()))
            time.sleep(GAP_S)
        latencies: list[float] = [handle.get_result() for handle in handles]  # type: ignore[misc]
    DBOS.destroy()
    return _numbers(latencies)


MEASUREMENT = Measurement(
    name="start-latency",
    shape=f"{COUNT} runs {1000 * GAP_S:.0f} ms apart, enqueue call to first line, idle worker in another process",
    contenders={"agentq": agentq, "huey": huey, "dbos": dbos},
    targets=(
        Target(number="p50_ms", label="enqueue to first line, p50", bound=5, unit="ms"),
        Target(number="p99_ms", label="enqueue to first line, p99", bound=20, unit="ms"),
    ),
)

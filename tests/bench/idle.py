"""What a worker costs that has nothing to do."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

from tests.bench import processes
from tests.bench.contest import Measurement, Numbers, Target

WATCHED_S = 8.0


def of(contender: str) -> Callable[[Path], Numbers]:
    """Resident memory and CPU of the process tree, once it is idle."""

    def measure(folder: Path) -> Numbers:
        with processes.worker(contender, folder) as pid:
            time.sleep(1)
            used, begin = processes.cpu_precise_s(pid), time.monotonic()
            time.sleep(WATCHED_S)
            share = (processes.cpu_precise_s(pid) - used) / (time.monotonic() - begin)
            return {"rss_mb": processes.rss_mb(pid), "cpu_percent": 100 * share}

    return measure


MEASUREMENT = Measurement(
    name="idle",
    shape=f"one worker process on its defaults without runs, watched for {WATCHED_S:g} s",
    contenders={"agentq": of("agentq"), "huey": of("huey"), "dbos": of("dbos")},
    targets=(
        Target(number="rss_mb", label="idle worker, memory", bound=55, unit="MB"),
        Target(number="cpu_percent", label="idle worker, CPU", bound=1, unit="% of a core"),
    ),
)

"""What ``import agentq`` costs a process in time and memory."""

from __future__ import annotations

import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

from tests.bench.contest import ROOT, Measurement, Numbers, Target

RUNS = 7
TELL_RSS = "; print(next(line.split()[1] for line in open('/proc/self/status') if line.startswith('VmRSS:')))"


def of(statement: str) -> Callable[[Path], Numbers]:
    """Wall time of a whole interpreter that runs ``statement``, and its resident memory after it; caches warm."""

    def measure(_: Path) -> Numbers:
        times, memory = [], []
        for _repetition in range(RUNS):
            begin = time.perf_counter()
            subprocess.run([sys.executable, "-c", statement], check=True, cwd=ROOT)
            times.append(1000 * (time.perf_counter() - begin))
        done = subprocess.run(
            [sys.executable, "-c", statement + TELL_RSS], check=True, cwd=ROOT, capture_output=True, text=True
        )
        memory.append(int(done.stdout) * 1024 / 1e6)
        return {"ms": statistics.median(times), "rss_mb": statistics.median(memory)}

    return measure


MEASUREMENT = Measurement(
    name="import",
    shape=f"python -c 'import …', the interpreter's own start included, caches warm, median of {RUNS}",
    contenders={
        "agentq": of("import agentq"),
        "huey": of("from huey import SqliteHuey"),
        "dbos": of("import dbos"),
        "bare python": of("pass"),
    },
    targets=(
        Target(number="ms", label="import agentq, time", bound=150, unit="ms"),
        Target(number="rss_mb", label="import agentq, memory", bound=35, unit="MB"),
    ),
)

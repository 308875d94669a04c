"""Worker processes beside the measuring one: start, wait until idle, look at, end."""

from __future__ import annotations

import os
import select
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from agentq.testing.wait import wait_until_sync
from tests.bench.contest import ROOT

START_S = 30.0
TICK = os.sysconf("SC_CLK_TCK")


@contextmanager
def worker(contender: str, folder: Path, *, slots: int = 8) -> Iterator[int]:
    """A worker of ``contender`` in a process of its own, idle when the block begins; yields its pid."""
    log = (folder / f"{contender}-worker.log").open("wb")
    process = subprocess.Popen(_command(contender, folder, slots), cwd=ROOT, stdout=subprocess.PIPE, stderr=log)
    try:
        _wait_until_idle(process)
        yield process.pid
    finally:
        process.terminate()
        try:
            process.wait(10)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        if process.stdout:
            process.stdout.close()
        log.close()


def _command(contender: str, folder: Path, slots: int) -> list[str]:
    if contender == "agentq":
        return [sys.executable, "-m", "agentq", "worker", "tests.bench.ours:aq", "--concurrency", str(slots)]
    return [sys.executable, "-m", f"tests.bench.peer_{contender}", str(folder)]


def _wait_until_idle(process: subprocess.Popen[bytes]) -> None:
    """It has burnt no CPU for 0.3 s, at least 1 s after it was started: peers that print when they are ready go on starting."""
    begin = time.monotonic()
    seen = (time.monotonic(), cpu_s(process.pid))

    def idle() -> bool:
        nonlocal seen
        if process.poll() is not None:
            raise RuntimeError(f"the worker ended with {process.returncode}")
        _drain(process)
        now, used = time.monotonic(), cpu_s(process.pid)
        if used - seen[1] > 0.015:
            seen = (now, used)
        return now - begin > 1 and now - seen[0] > 0.3

    wait_until_sync("the worker is idle", idle, timeout_s=START_S, every_s=0.02)


def _drain(process: subprocess.Popen[bytes]) -> None:
    if process.stdout and select.select([process.stdout], [], [], 0)[0]:
        os.read(process.stdout.fileno(), 65536)


def tree(pid: int) -> list[int]:
    """``pid`` and all its descendants."""
    pids = [pid]
    for task in Path(f"/proc/{pid}/task").glob("*/children"):
        try:
            children = [int(child) for child in task.read_text().split()]
        except OSError:
            continue
        for child in children:
            pids += tree(child)
    return pids


def cpu_s(pid: int) -> float:
    """User and system seconds of the process tree so far."""
    total = 0.0
    for each in tree(pid):
        try:
            fields = Path(f"/proc/{each}/stat").read_text().rpartition(")")[2].split()
        except OSError:
            continue
        total += (int(fields[11]) + int(fields[12])) / TICK
    return total


def cpu_precise_s(pid: int) -> float:
    """The same from the scheduler's nanoseconds, summed over threads; finer than a clock tick."""
    total = 0
    for each in tree(pid):
        for path in Path(f"/proc/{each}/task").glob("*/schedstat"):
            try:
                total += int(path.read_text().split()[0])
            except OSError:
                continue
    return total / 1e9


def rss_mb(pid: int) -> float:
    """Resident memory of the process tree, MB (10^6 bytes)."""
    total = 0
    for each in tree(pid):
        for line in Path(f"/proc/{each}/status").read_text().splitlines():
            if line.startswith("VmRSS:"):
                total += int(line.split()[1]) * 1024
    return total / 1e6

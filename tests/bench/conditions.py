"""The machine that the figures hold for, with the ceilings that its disk sets."""

from __future__ import annotations

import importlib.metadata
import os
import platform
import sqlite3
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

ROUNDS = 400
ROW = "x" * 200


def conditions() -> dict[str, str]:
    """CPU, versions, and what one durable write costs here."""
    return {
        "CPU": f"{os.cpu_count()} x {_cpu()}",
        "memory": f"{os.sysconf('SC_PAGE_SIZE') * os.sysconf('SC_PHYS_PAGES') / 2**30:.0f} GiB",
        "system": f"{platform.system()} {platform.release()}",
        "load before": " ".join(f"{load:.1f}" for load in os.getloadavg()),
        "Python": platform.python_version(),
        "SQLite": sqlite3.sqlite_version,
        **{name: _version(name) for name in ("agentq", "msgspec", "dbos", "huey")},
        "fdatasync after a 4 KiB append": f"{_fdatasync_s() * 1e6:.0f} µs (median of {ROUNDS})",
        "raw SQLite commit, WAL, FULL, one row": f"{_commit_s() * 1e6:.0f} µs (median of {ROUNDS})",
    }


def _cpu() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    return next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), platform.machine())


def _version(package: str) -> str:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return "not installed"


def _folder() -> tempfile.TemporaryDirectory[str]:
    return tempfile.TemporaryDirectory(prefix="bench-", dir=os.environ.get("BENCH_FOLDER"))


def _fdatasync_s() -> float:
    with _folder() as folder, (Path(folder) / "file").open("wb", buffering=0) as file:

        def sync() -> None:
            file.write(b"x" * 4096)
            os.fdatasync(file.fileno())

        return statistics.median(_timed(sync) for _ in range(ROUNDS))


def _commit_s() -> float:
    with _folder() as folder:
        connection = sqlite3.connect(Path(folder) / "raw.db", isolation_level=None)
        connection.execute("pragma journal_mode=wal")
        connection.execute("pragma synchronous=full")
        connection.execute("create table row (id integer primary key, value text)")

        def commit() -> None:
            connection.execute("begin immediate")
            connection.execute("insert into row (value) values (?)", (ROW,))
            connection.execute("commit")

        median = statistics.median(_timed(commit) for _ in range(ROUNDS))
        connection.close()
        return median


def _timed(act: Callable[[], None]) -> float:
    begin = time.perf_counter()
    act()
    return time.perf_counter() - begin

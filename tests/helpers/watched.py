"""Real worker processes, looked at from outside while their servers are taken away: events, probes, processor, memory."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from agentq.testing.wait import wait_until_sync
from tests.helpers.processes import free_port

ROOT = Path(__file__).parents[2]
_TICKS = os.sysconf("SC_CLK_TCK")


@dataclass(slots=True)
class Watched:
    """One ``agentq worker``, its log as events, and what a kubelet would see of it."""

    process: subprocess.Popen[bytes]
    log: Path
    port: int
    probes: Counter[tuple[str, int]] = field(default_factory=Counter)

    def events(self, *names: str) -> list[dict[str, Any]]:
        """What it told so far, in order; those of the given names, or all."""
        found = []
        for line in self.log.read_text(errors="replace").splitlines():
            with contextlib.suppress(ValueError):
                event = json.loads(line)
                if not names or event["event"] in names:
                    found.append(event)
        return found

    def odd_lines(self) -> list[str]:
        """What it wrote that is no event: warnings of libraries, tracebacks."""
        return [line for line in self.log.read_text(errors="replace").splitlines() if line and not line.startswith("{")]

    def probe(self, path: str) -> int:
        """The status of one probe, which is counted; 0 is no answer."""
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{self.port}{path}", timeout=2) as answer:
                status = int(answer.status)
        except urllib.error.HTTPError as error:
            status = error.code
        except OSError:
            status = 0
        self.probes[path, status] += 1
        return status

    @property
    def ready(self) -> bool:
        """Whether it says so."""
        return self.probe("/readyz") == 200

    @property
    def cpu_s(self) -> float:
        """Seconds of processor that it used so far."""
        words = Path(f"/proc/{self.process.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(words[11]) + int(words[12])) / _TICKS

    @property
    def memory_mb(self) -> float:
        """Resident."""
        return int(Path(f"/proc/{self.process.pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 1e6

    def drain(self, patience_s: float) -> tuple[int | None, float]:
        """SIGTERM: the exit code and how long it took; a code of None is that it had to be killed."""
        begin = time.monotonic()
        self.process.send_signal(signal.SIGTERM)
        try:
            code: int | None = self.process.wait(patience_s)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
            code = None
        return code, time.monotonic() - begin


def environment(settings: Mapping[str, str]) -> dict[str, str]:
    """This process's own without agentq's settings, and with ``settings``."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("AGENTQ_")}
    return {**kept, "PYTHONUNBUFFERED": "1", **settings}


@contextlib.contextmanager
def worker(
    target: str, settings: Mapping[str, str], folder: Path, *options: str, before: Sequence[str] = (), wait: bool = True
) -> Iterator[Watched]:
    """A worker process until the block ends; ``before`` are words of the command in front of Python's."""
    port = free_port()
    log = folder / f"worker-{port}.log"
    command = [*before, sys.executable, "-m", "agentq", "worker", target, "--log", "json", "--health-port", str(port), *options]
    with log.open("ab") as out:
        process = subprocess.Popen(command, cwd=ROOT, env=environment(settings), stdout=out, stderr=out)
    watched = Watched(process, log, port)
    try:
        if wait:
            wait_until_sync(
                "the worker is ready", lambda: watched.ready or process.poll() is not None, timeout_s=60, every_s=0.1
            )
            watched.probes.clear()
        yield watched
    finally:
        if process.poll() is None:
            process.kill()
        process.wait()

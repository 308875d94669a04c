"""Several worker processes under one parent: started, restarted when they die, told to stop, looked after as one."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

from agentq.cli.problem import note
from agentq.cli.working import health_port
from agentq.telemetry import emit

if TYPE_CHECKING:
    from agentq.settings import WorkerSettings

_LOOK_S: Final = 0.2
_STABLE_S: Final = 10.0
"""A process that lived longer is restarted at once when it dies; one that did not, later and later."""
_MAX_DELAY_S: Final = 30.0
_STARTING_S: Final = 30.0
"""A process that does not answer its probe yet counts as alive for so long."""
_PROBE_S: Final = 2.0


@dataclass(slots=True)
class Child:
    """One worker process and its history."""

    number: int
    process: subprocess.Popen[bytes] | None = None
    port: int | None = None
    born: float = 0.0
    failures: int = 0
    start_at: float = 0.0
    over: bool = False
    """It ended by itself and in order; it is not started again."""


@dataclass(slots=True)
class Family:
    """The parent's view of its processes. Its health checks run in the health server's threads."""

    command: list[str]
    environ: Mapping[str, str]
    probed: bool
    children: list[Child] = field(default_factory=list)
    stopping: bool = False

    def start(self, child: Child) -> None:
        """Start one process, with a health port of its own on the loopback if the parent serves health."""
        extra: list[str] = []
        if self.probed:
            child.port = _free_port()
            extra = ["--health-host", "127.0.0.1", "--health-port", str(child.port)]
        # A group of its own: Ctrl-C reaches the children through us alone. The pipe tells them when we are gone.
        child.process = subprocess.Popen(  # noqa: S603 - ourselves
            [*self.command, *extra], env=dict(self.environ), stdin=subprocess.PIPE, process_group=0
        )
        child.born = time.monotonic()

    def tell(self, which: signal.Signals) -> None:
        """Pass a signal on to every process that lives."""
        self.stopping = True
        for child in self.children:
            if child.process is not None and child.process.poll() is None:
                child.process.send_signal(which)

    def look(self) -> bool:
        """Reap who has ended, start who is due; False when nobody is left."""
        now = time.monotonic()
        for child in self.children:
            if child.process is not None and (code := child.process.poll()) is not None:
                self._ended(child, code, now)
            if child.process is None and not child.over and not self.stopping and now >= child.start_at:
                self.start(child)
        return any(child.process is not None or not (child.over or self.stopping) for child in self.children)

    def _ended(self, child: Child, code: int, now: float) -> None:
        process, child.process, child.port = child.process, None, None
        if process is not None and process.stdin is not None:
            process.stdin.close()
        if code == 0 or self.stopping:
            child.over = True
            return
        child.failures = 0 if now - child.born > _STABLE_S else child.failures + 1
        delay = min(_MAX_DELAY_S, 0.5 * 2**child.failures) if child.failures else 0.0
        child.start_at = now + delay
        emit(
            "worker.exited",
            process=child.number,
            pid=process.pid if process else None,
            code=code if code > 0 else None,
            signal=_signal_name(-code) if code < 0 else None,
            delay_s=delay,
            reason="killed" if code == -signal.SIGKILL else "died",
        )

    def alive(self) -> tuple[bool, str]:
        """Whether each process answers its own probe; one that just started is given time."""
        bad = []
        for child in self.children:
            code, text = self._ask(child, "/healthz")
            young = time.monotonic() - child.born < _STARTING_S
            if code != 200 and not (code == 0 and (young or child.process is None)):  # noqa: PLR2004 - HTTP
                bad.append(f"process {child.number}: {text.strip()}")
        return not bad, "; ".join(bad) or f"{len(self.children)} processes"

    def ready(self) -> tuple[bool, str]:
        """Whether every process is ready and nobody is told to stop."""
        if self.stopping:
            return False, "draining"
        late = [child.number for child in self.children if self._ask(child, "/readyz")[0] != 200]  # noqa: PLR2004 - HTTP
        return not late, f"not ready: {late}" if late else "ready"

    def status(self) -> dict[str, Any]:
        """Return every process's own status."""
        shown = []
        for child in self.children:
            code, text = self._ask(child, "/status")
            pid = child.process.pid if child.process else None
            shown.append({"process": child.number, "pid": pid, **(json.loads(text) if code == 200 else {"error": text})})  # noqa: PLR2004
        sums = {name: sum(int(one.get(name, 0)) for one in shown) for name in ("slots", "busy")}
        return {**sums, "draining": self.stopping, "processes": shown}

    def metrics(self) -> tuple[bytes, str]:
        """Return the metrics of all processes, told apart by the label ``process``."""
        from agentq.telemetry.merge import merged  # noqa: PLC0415 - only a scrape needs it

        texts = {str(child.number): self._ask(child, "/metrics") for child in self.children}
        return merged({number: text for number, (code, text) in texts.items() if code == 200})  # noqa: PLR2004 - HTTP

    def _ask(self, child: Child, path: str) -> tuple[int, str]:
        """Return the status and text of a process's own health server; 0 if it does not answer."""
        if child.port is None:
            return 0, "not running"
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{child.port}{path}", timeout=_PROBE_S) as answer:
                return answer.status, answer.read().decode()
        except urllib.error.HTTPError as error:
            return error.code, error.read().decode()
        except OSError as error:
            return 0, f"no answer ({error})"


def supervise(target: str, limits: WorkerSettings, urls: Mapping[str, str], *, words: list[str]) -> int:
    """Keep ``limits.processes`` workers of ``target`` running until they are told to stop; returns the exit code.

    ``urls`` go into their environment: everybody on the machine can read a command line, and a URL may hold a password.
    """
    command = [sys.executable, "-m", "agentq", "worker", target, *words]
    environ = {**os.environ, **urls, "AGENTQ_PROCESSES": "1", "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    environ.pop("AGENTQ_HEALTH_PORT", None)
    family = Family([*command, "--processes", "1", "--with-parent"], environ, probed=limits.health_port is not None)
    family.children = [Child(number) for number in range(limits.processes)]
    told: list[signal.Signals] = []
    bell = threading.Event()

    def on(number: int, _frame: object) -> None:
        told.append(signal.Signals(number))
        bell.set()

    if sys.stderr.isatty():
        note(f"{limits.processes} processes with {limits.concurrency} slots each · Ctrl-C drains, twice stops at once")
    with _handling(on), _health(family, limits):
        passed = 0
        while family.look() or len(told) > passed:
            while passed < len(told):
                family.tell(told[passed])
                passed += 1
            bell.wait(_LOOK_S)
            bell.clear()
    return 128 + told[0] if len(told) > 1 else 0


@contextmanager
def _handling(on: Any) -> Iterator[None]:
    before = {which: signal.signal(which, on) for which in (signal.SIGTERM, signal.SIGINT)}
    try:
        yield
    finally:
        for which, handler in before.items():
            signal.signal(which, handler)


@contextmanager
def _health(family: Family, limits: WorkerSettings) -> Iterator[None]:
    if limits.health_port is None:
        yield
        return
    from agentq.worker.health import HealthServer  # noqa: PLC0415 - only with a port

    with health_port(limits):
        server = HealthServer(
            alive=family.alive,
            ready=family.ready,
            status=family.status,
            metrics=family.metrics,
            host=limits.health_host,
            port=limits.health_port,
        )
    with server:
        yield


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _signal_name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return str(number)

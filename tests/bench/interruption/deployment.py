"""A worker kept up as Kubernetes keeps a pod up: rolled out with a period of grace, replaced when it is killed or ends."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

from tests.bench.contest import ROOT

END_S = 10.0


class Deployment:
    """One replica of ``command``. Each pod is a process group of its own; ``log`` takes what all of them say."""

    def __init__(self, command: Sequence[str], environment: Mapping[str, str], *, grace_s: float, log: Path) -> None:
        self.ended: dict[int, float] = {}
        """When each pod's last process ended, by process group."""
        self.restarts = 0
        """Times that a pod ended without being told to."""
        self._command, self._environment, self._log = list(command), dict(environment), log
        self._grace_s = grace_s
        self._pod: subprocess.Popen[bytes] | None = None
        self._leaving: list[tuple[subprocess.Popen[bytes], float]] = []

    def start(self) -> None:
        """Start a pod; it is the current one."""
        with self._log.open("ab") as log:
            self._pod = subprocess.Popen(
                self._command,
                cwd=ROOT,
                env=self._environment,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )

    def roll_out(self) -> None:
        """Start another pod, and tell the current one to go: SIGTERM to its first process, SIGKILL to all after the grace."""
        if self._pod:
            self._pod.terminate()
            self._leaving.append((self._pod, time.monotonic() + self._grace_s))
        self.start()

    def crash(self) -> None:
        """Kill the current pod, all of it at once, and start another."""
        if self._pod:
            self._bury(self._pod)
        self.start()

    def look(self) -> None:
        """Do what is due: kill whose grace is over, replace what ended by itself."""
        for pod, deadline in list(self._leaving):
            if pod.poll() is not None or time.monotonic() >= deadline:
                self._bury(pod)
                self._leaving.remove((pod, deadline))
        if self._pod and self._pod.poll() is not None:
            self._bury(self._pod)
            self.restarts += 1
            self.start()

    def stop(self, *, end_s: float = END_S) -> None:
        """Let all pods end, and kill those that do not."""
        pods = [pod for pod, _ in self._leaving] + ([self._pod] if self._pod else [])
        for pod in pods:
            pod.terminate()
        deadline = time.monotonic() + end_s
        for pod in pods:
            with contextlib.suppress(subprocess.TimeoutExpired):
                pod.wait(max(0.0, deadline - time.monotonic()))
            self._bury(pod)
        self._pod = None
        self._leaving.clear()

    def _bury(self, pod: subprocess.Popen[bytes]) -> None:
        """A container ends with its first process: nothing of it is left."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(pod.pid, signal.SIGKILL)
        pod.wait()
        self.ended[pod.pid] = time.time()

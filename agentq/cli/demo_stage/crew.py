"""The demo's worker processes: started, killed, drained, replaced, and never left behind."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path

APP = "agentq.cli.demo_agent.agent:aq"
_END_S = 10.0
"""How long a worker may take to end before it is killed."""


class Fate(StrEnum):
    """What became of a worker."""

    WORKING = "working"
    KILLED = "killed"
    DRAINING = "draining"
    DRAINED = "drained"
    DIED = "died"
    """Ended though nobody asked for it: the demo has failed."""


@dataclass(slots=True)
class Member:
    """One worker process."""

    number: int
    process: subprocess.Popen[bytes]
    log: Path
    fate: Fate = Fate.WORKING

    @property
    def pid(self) -> int:
        """Process id."""
        return self.process.pid

    @property
    def name(self) -> str:
        """How the screen calls it."""
        return f"worker {self.number}"

    @property
    def alive(self) -> bool:
        """Whether the process runs."""
        return self.process.poll() is None


@dataclass(slots=True)
class Crew:
    """All worker processes of one demo."""

    folder: Path
    slots: int
    environ: dict[str, str]
    members: list[Member] = field(default_factory=list)

    def start(self) -> Member:
        """Start ``agentq worker``; it logs to a file of its own and drains when this process is gone, however it went."""
        number = len(self.members) + 1
        log = self.folder / f"worker-{number}.log"
        command = [sys.executable, "-m", "agentq", "worker", APP, "--concurrency", str(self.slots), "--with-parent"]
        with log.open("wb") as output:
            process = subprocess.Popen(  # noqa: S603 - our own interpreter and our own module
                command, cwd=self.folder, env=self.environ, stdin=subprocess.PIPE, stdout=output, stderr=output
            )
        member = Member(number, process, log)
        self.members.append(member)
        return member

    def kill(self, member: Member) -> None:
        """SIGKILL: the process gets no chance to write anything any more."""
        member.fate = Fate.KILLED
        member.process.send_signal(signal.SIGKILL)

    def drain(self, member: Member) -> None:
        """SIGTERM: what Kubernetes sends to a pod that it scales in."""
        member.fate = Fate.DRAINING
        member.process.send_signal(signal.SIGTERM)

    def look(self) -> list[Member]:
        """Collect those whose process has ended since the last look, with their fates settled."""
        ended = []
        for member in self.members:
            if member.alive or member.fate in {Fate.DRAINED, Fate.DIED}:
                continue
            if member.fate is Fate.DRAINING:
                member.fate = Fate.DRAINED if member.process.returncode == 0 else Fate.DIED
                ended.append(member)
            elif member.fate is Fate.WORKING:
                member.fate = Fate.DIED
                ended.append(member)
        return ended

    def by_pid(self, pid: int) -> Member | None:
        """The member of that process id."""
        return next((member for member in self.members if member.pid == pid), None)

    def stop(self) -> None:
        """End all: SIGTERM, and SIGKILL for whoever does not end in time. Returns when none is left."""
        for member in self.members:
            if member.alive:
                member.process.terminate()
        for member in self.members:
            try:
                member.process.wait(_END_S)
            except subprocess.TimeoutExpired:
                member.process.kill()
                member.process.wait()
            if member.process.stdin:
                member.process.stdin.close()


def environment(store: str, effects: Path, think_s: float) -> dict[str, str]:
    """The environment of the demo's workers: this process's own, less its AGENTQ settings, plus the demo's."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("AGENTQ_")}
    model = {"AGENTQ_DEMO_MODEL": os.environ["AGENTQ_DEMO_MODEL"]} if os.environ.get("AGENTQ_DEMO_MODEL") else {}
    return {
        **kept,
        **model,
        "AGENTQ_STORE": store,
        "AGENTQ_HEARTBEAT": "500ms",  # so that the screen is fresh; the default is 5 s
        "AGENTQ_FENCE": "8s",
        "AGENTQ_LEASE": "10s",
        "AGENTQ_DEMO_EFFECTS": str(effects),
        "AGENTQ_DEMO_THINK_S": str(think_s),
    }

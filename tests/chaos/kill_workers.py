"""SIGKILLs real worker processes at random while they work, starts them again, and tallies every run and step.

``python tests/chaos/kill_workers.py --runs 2000 --steps 10 --slots 8 --workers 2 --kill-every 1``

Through a broker into PostgreSQL, both servers the storm's own, and each stopped twice for ten seconds:
``python tests/chaos/kill_workers.py --broker sqs --step-ms 60 --lease 3 --outages 2`` (or ``--broker kafka``).
"""

from __future__ import annotations

import argparse
import asyncio
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from pathlib import Path

ROOT = Path(__file__).parents[2]
if __name__ == "__main__":
    sys.path.insert(0, str(ROOT))

from agentq.brokers import open_broker
from agentq.errors import StoreUnavailable
from agentq.message import FINAL, RunQuery
from agentq.stores import open_store
from agentq.stores.base import Store
from tests.chaos import outages, tally, tasks


@dataclass(frozen=True, slots=True, kw_only=True)
class Storm:
    """What is done to whom."""

    runs: int = 2000
    steps: int = 10
    slots: int = 8
    workers: int = 2
    kill_every_s: float = 1.0
    """Mean; the true pause is uniform between half and one and a half of it."""
    step_ms: float = 20.0
    limit_s: float = 600.0
    seed: int | None = None
    store: str | None = None
    """Url of an empty store; None is a SQLite file in the storm's folder."""
    broker: str | None = None
    """Url of a broker with nothing in it; None is none."""
    servers: tuple[outages.Server, ...] = ()
    """Taken away while the storm blows, each ``outages`` times for ``down_s`` seconds."""
    outages: int = 2
    down_s: float = 10.0
    lease_s: float = 30.0
    """Without the file locks of one machine a dead worker is noticed only so late."""


@dataclass(slots=True)
class Crew:
    """The worker processes; always as many as the storm asks for."""

    storm: Storm
    folder: Path
    processes: list[subprocess.Popen[bytes]] = field(default_factory=list)
    kills: int = 0
    odd_exits: list[str] = field(default_factory=list)

    @property
    def environment(self) -> dict[str, str]:
        """What workers and producer share."""
        return {
            **{name: value for name, value in os.environ.items() if not name.startswith("AGENTQ_")},
            "AGENTQ_STORE": self.storm.store or f"sqlite:///{self.folder}/chaos.db",
            **({"AGENTQ_BROKER": self.storm.broker} if self.storm.broker else {}),
            "AGENTQ_LEASE": f"{self.storm.lease_s}",
            "AGENTQ_FENCE": f"{self.storm.lease_s * 2 / 3}",
            "AGENTQ_HEARTBEAT": f"{self.storm.lease_s / 6}",
            tasks.LOG: str(self.folder / "bodies.log"),
            tasks.STEP_MS: str(self.storm.step_ms),
        }

    def fill_up(self) -> None:
        """Start workers until there are enough; one that ended by itself is remembered: none should."""
        for process in self.processes[:]:
            if process.poll() is not None:
                self.odd_exits.append(f"worker {process.pid} ended by itself with {process.returncode}: {self._last_words()}")
                self.processes.remove(process)
        while len(self.processes) < self.storm.workers:
            self.processes.append(self._start())

    def _start(self) -> subprocess.Popen[bytes]:
        command = [sys.executable, "-m", "agentq", "worker", "tests.chaos.tasks:aq", "--concurrency", str(self.storm.slots)]
        with (self.folder / "workers.log").open("ab") as log:
            return subprocess.Popen(command, cwd=ROOT, env=self.environment, stdout=log, stderr=log)

    def _last_words(self) -> str:
        return (self.folder / "workers.log").read_text(errors="replace")[-500:]

    def kill(self, process: subprocess.Popen[bytes]) -> None:
        """SIGKILL one, as the kernel's OOM killer or a lost node would; it gets no chance to say a word."""
        process.kill()
        process.wait()
        self.processes.remove(process)
        self.kills += process.returncode == -signal.SIGKILL

    def end(self) -> None:
        """Drain what is left; a worker that does not drain within 15 s is killed and remembered."""
        for process in self.processes:
            process.terminate()
        for process in self.processes:
            try:
                code = process.wait(15)
            except subprocess.TimeoutExpired:
                self.odd_exits.append(f"worker {process.pid} did not drain")
                process.kill()
                code = process.wait()
            if code:
                self.odd_exits.append(f"worker {process.pid} drained with exit code {code}")
        self.processes.clear()


async def strike(storm: Storm, folder: Path) -> tally.Tally:
    """Enqueue, kill until every run is final or ``limit_s`` is over, and judge."""
    dice = random.Random(storm.seed)
    crew = Crew(storm, folder)
    url = crew.environment["AGENTQ_STORE"]
    begin = time.monotonic()
    async with tasks.aq.using(store=url, broker=storm.broker):
        handles = await tasks.aq.enqueue_many([tasks.chain.bind(number, storm.steps) for number in range(storm.runs)])
    results = {handle.id: tasks.expected(number, storm.steps) for number, handle in enumerate(handles)}
    outage = asyncio.create_task(
        outages.strike([*storm.servers], times=storm.outages, first_s=5.0, down_s=storm.down_s, between_s=5.0)
    )
    async with open_store(url) as store:
        try:
            while time.monotonic() - begin < storm.limit_s:
                crew.fill_up()
                await asyncio.sleep(storm.kill_every_s * dice.uniform(0.5, 1.5))
                if outage.done() and await _all_final(store, storm.runs):
                    break
                crew.kill(dice.choice(crew.processes))
        finally:
            await asyncio.gather(outage, return_exceptions=True)
            await asyncio.to_thread(crew.end)
        verdict = tally.Tally(runs=storm.runs, steps=storm.steps, kills=crew.kills, slots=storm.slots)
        verdict.took_s = time.monotonic() - begin
        verdict.outages = await outage
        verdict.violations += crew.odd_exits
        runs = {run.id: run for run in await store.runs(RunQuery(limit=2 * storm.runs))}
        journals = {run_id: await store.journal(run_id) for run_id in results}
    return tally.judge(verdict, tally.read_log(folder / "bodies.log"), runs, journals, results)


async def _all_final(store: Store, count: int) -> bool:
    try:
        return len(await store.runs(RunQuery(states=tuple(FINAL), limit=count))) >= count
    except StoreUnavailable:
        return False


async def _prepare(broker: str) -> None:
    """Make the queue or topic; a log counts no servers in the first seconds after its start."""
    async with open_broker(broker, app=tasks.aq.name) as opened:
        for finding in await opened.inspect(tasks.aq.queues, fix=True):
            print(f"{finding.what}: {finding.text}")
        if broker.startswith("sqs:"):
            await outages.hide_briefly(opened, tasks.aq.queues)


def main() -> int:
    """Strike once; exit code 0 when every promise was kept."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=Storm().runs)
    parser.add_argument("--steps", type=int, default=Storm().steps)
    parser.add_argument("--slots", type=int, default=Storm().slots, help="of each worker")
    parser.add_argument("--workers", type=int, default=Storm().workers)
    parser.add_argument("--kill-every", type=float, default=Storm().kill_every_s, metavar="SECONDS", dest="kill_every_s")
    parser.add_argument("--step-ms", type=float, default=Storm().step_ms, help="longest duration of a step")
    parser.add_argument("--limit", type=float, default=Storm().limit_s, metavar="SECONDS", dest="limit_s")
    parser.add_argument("--seed", type=int, help="makes the pauses and the choice of victims repeatable")
    parser.add_argument("--store", metavar="URL", help="an empty store (default: a SQLite file)")
    parser.add_argument("--lease", type=float, default=Storm().lease_s, metavar="SECONDS", dest="lease_s")
    parser.add_argument("--broker", choices=list(outages.BROKERS), help="in front of a PostgreSQL, both the storm's own")
    parser.add_argument("--outages", type=int, default=Storm().outages, help="of broker and database each")
    parser.add_argument("--down", type=float, default=Storm().down_s, metavar="SECONDS", dest="down_s")
    storm = Storm(**vars(parser.parse_args()))
    with tempfile.TemporaryDirectory(prefix="chaos-") as folder, ExitStack() as stack:
        if storm.broker:
            broker = stack.enter_context(outages.BROKERS[storm.broker]())
            database = stack.enter_context(outages.postgres())
            asyncio.run(_prepare(broker.url))
            storm = replace(storm, broker=broker.url, store=database.url, servers=(broker, database))
        verdict = asyncio.run(strike(storm, Path(folder)))
    print(verdict)
    return 1 if verdict.violations else 0


if __name__ == "__main__":
    sys.exit(main())

"""Takes broker, store or both away from two working workers for a minute, and shows what they told and what became of the runs.

``python tests/chaos/take_away.py --broker sqs --what store --how freeze`` (or ``kafka``; ``broker``, ``both``; ``stop``).

A producer enqueues all the while. The second worker is told to end ten seconds into the outage.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import logging
import sys
import tempfile
import threading
import time
from collections import Counter
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path

if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).parents[2]))

from agentq.errors import AgentQError
from agentq.message import FINAL, RunQuery
from agentq.stores import open_store
from tests.chaos import kill_workers, outages, tally, tasks
from tests.helpers import watched

STEPS = 5
MOST_CPU = 0.05
"""Of a core, while there is nothing to do but wait: more is a loop that does not rest."""
FAREWELL_S = 5.0
"""From the end of the time for draining to that of the process: Kubernetes waits for 30 s, and draining has 25 of them."""
_ROUTINE = {"run.claimed", "run.resumed", "run.succeeded", "run.released", "worker.started", "worker.ready"}


@dataclass(slots=True)
class Producer:
    """Enqueues steadily; what failed is enqueued again with its key, as callers do."""

    rate: float
    ended: threading.Event = field(default_factory=threading.Event)
    ids: dict[str, int] = field(default_factory=dict)
    refused: Counter[str] = field(default_factory=Counter)

    def run(self, store: str, broker: str) -> None:
        """Until it is ended; in a thread of its own."""
        asyncio.run(self._run(store, broker))

    async def _run(self, store: str, broker: str) -> None:
        async with tasks.aq.using(store=store, broker=broker), asyncio.TaskGroup() as group:
            number = 0
            while not self.ended.is_set():
                group.create_task(self._enqueue(number))
                number += 1
                await asyncio.sleep(1 / self.rate)

    async def _enqueue(self, number: int) -> None:
        while True:
            try:
                handle = await tasks.chain.options(key=str(number)).enqueue(number, STEPS)
            except AgentQError as error:
                self.refused[type(error).__name__] += 1
                await asyncio.sleep(1)
            else:
                self.ids[handle.id] = number
                return


@dataclass(slots=True)
class Seen:
    """What was measured from outside while the servers were away."""

    cpu: float = 0.0
    memory_mb: tuple[float, float] = (0.0, 0.0)
    drained: tuple[int | None, float] = (None, 0.0)


def watch(stays: watched.Watched, leaves: watched.Watched, *, down_s: float) -> Seen:
    """Probe one worker each second, and tell the other to end after ten."""
    seen, begin = Seen(), time.monotonic()
    used, memory = stays.cpu_s, stays.memory_mb

    def drain() -> None:
        seen.drained = leaves.drain(120)

    draining = threading.Timer(10, drain)
    draining.start()
    while time.monotonic() - begin < down_s:
        for path in ("/healthz", "/readyz"):
            stays.probe(path)
        time.sleep(1)
    seen.cpu = (stays.cpu_s - used) / (time.monotonic() - begin)
    seen.memory_mb = (memory, stays.memory_mb)
    draining.join()
    return seen


async def judge(store: str, producer: Producer, log: Path) -> tally.Tally:
    """Wait until every run is final, and count."""
    async with open_store(store) as opened:
        begin = time.monotonic()
        while time.monotonic() - begin < 120:
            runs = {run.id: run for run in await opened.runs(RunQuery(limit=100_000))}
            if all(run_id in runs and runs[run_id].state in FINAL for run_id in producer.ids):
                break
            await asyncio.sleep(0.5)
        journals = {run_id: await opened.journal(run_id) for run_id in producer.ids}
    verdict = tally.Tally(runs=len(producer.ids), steps=STEPS, kills=1, slots=16, took_s=time.monotonic() - begin)
    wanted = {run_id: tasks.expected(number, STEPS) for run_id, number in producer.ids.items()}
    verdict = tally.judge(verdict, tally.read_log(log), runs, journals, wanted)
    if len(runs) != len(producer.ids):
        verdict.violations.append(f"{len(runs)} rows for {len(producer.ids)} runs")
    return verdict


def told(worker: watched.Watched, begin: float) -> list[str]:
    """Its events, the same ones together, with the seconds after the outage's beginning."""
    found: dict[tuple[str, str, str], list[float]] = {}
    for event in worker.events():
        if event["event"] not in _ROUTINE:
            why = str(event.get("error") or event.get("reason") or "")[:100]
            at = datetime.fromisoformat(event["timestamp"]).timestamp() - begin
            found.setdefault((event["event"], event.get("verb", ""), why), []).append(at)
    return [
        f"  {len(times):3} {name:20} {verb:12} {' '.join(f'{at:.1f}' for at in times[:6])}  {why}"
        for (name, verb, why), times in found.items()
    ]


def take_away(broker: outages.Server, store: outages.Server, given: argparse.Namespace, folder: Path) -> list[str]:
    """Do it once, show it, and return what was not as it must be."""
    asyncio.run(kill_workers._prepare(broker.url))
    away = {"broker": [broker], "store": [store], "both": [broker, store]}[given.what]
    names = {"AGENTQ_STORE": store.url, "AGENTQ_BROKER": broker.url}
    settings = {**names, tasks.LOG: str(folder / "bodies.log"), tasks.STEP_MS: "800"}
    producer = Producer(given.rate)
    with contextlib.ExitStack() as stack:
        options = ("--drain", f"{given.drain}s")
        stays, leaves = (
            stack.enter_context(watched.worker("tests.chaos.tasks:aq", settings, folder, *options)) for _ in range(2)
        )
        producing = threading.Thread(target=producer.run, args=(store.url, broker.url))
        producing.start()
        time.sleep(5)
        begin = time.time()
        for server in away:
            (server.stop if given.how == "stop" else server.freeze)()
        seen = watch(stays, leaves, down_s=given.down)
        for server in away:
            (server.start if given.how == "stop" else server.thaw)()
        time.sleep(3)
        producer.ended.set()
        producing.join()
        verdict = asyncio.run(judge(store.url, producer, folder / "bodies.log"))
        code, took_s = stays.drain(60)
        wrong = list(verdict.violations)
        wrong += [f"{path} answered {status}" for path, status in stays.probes if status != 200]
        wrong += [f"{seen.cpu:.1%} of a core were used"] if seen.cpu > MOST_CPU else []
        if seen.drained[0] != 0 or seen.drained[1] > given.drain + FAREWELL_S:
            wrong.append(f"told to end during the outage, it took {seen.drained[1]:.1f} s and exited with {seen.drained[0]}")
        wrong += [f"told to end at last, it exited with {code} after {took_s:.1f} s"] if code != 0 else []
        print(verdict)
        print(f"{'enqueued':38} {len(producer.ids)}, refused {dict(producer.refused)}")
        print(f"{'processor, memory':38} {seen.cpu:.1%}, {seen.memory_mb[0]:.0f} to {seen.memory_mb[1]:.0f} MB")
        print(f"{'told to end during the outage':38} {seen.drained[1]:.1f} s of {given.drain:g}")
        for name, worker in (("the one that stayed", stays), ("the one that was told to end", leaves)):
            print(name, *told(worker, begin), *worker.odd_lines(), sep="\n")
    return wrong


def main() -> int:
    """Exit code 0 when everything was as it must be."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--broker", choices=list(outages.BROKERS), required=True)
    parser.add_argument("--what", choices=["broker", "store", "both"], required=True)
    parser.add_argument("--how", choices=["stop", "freeze"], default="stop")
    parser.add_argument("--down", type=float, default=60.0, metavar="SECONDS")
    parser.add_argument("--drain", type=float, default=25.0, metavar="SECONDS")
    parser.add_argument("--rate", type=float, default=2.0, help="runs enqueued per second")
    given = parser.parse_args()
    logging.getLogger("aiokafka").setLevel(logging.CRITICAL)
    with tempfile.TemporaryDirectory() as folder, outages.BROKERS[given.broker]() as broker, outages.postgres() as store:
        wrong = take_away(broker, store, given, Path(folder))
    print("not as it must be:", *(wrong or ["nothing"]))
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())

"""How long one durable step takes, and how many fit into a second when fifty runs write at once."""

from __future__ import annotations

import asyncio
import time
from pathlib import Path

from tests.bench.contest import Measurement, Numbers, Target, quantile

VALUE = "x" * 200
STEPS = 500
DBOS_STEPS = 60
"""dbos is slower by orders of magnitude: fewer steps give the same rate in less time."""


def _numbers(samples: list[float], took_s: float) -> Numbers:
    milliseconds = [1000 * sample for sample in samples]
    return {
        "p50_ms": quantile(milliseconds, 0.5),
        "p99_ms": quantile(milliseconds, 0.99),
        "steps_per_s": len(samples) / took_s,
    }


def agentq(runs: int) -> Numbers:
    """``runs`` runs at once in one worker with as many slots."""

    async def measure() -> float:
        from tests.bench.ours import aq, bodies, noop, samples, steps, working

        async with aq, working(runs):
            await (await noop.enqueue("warm")).result()
            await (await steps.enqueue(20, VALUE)).result()
            samples.clear()
            bodies.clear()
            begin = time.perf_counter()
            handles = await aq.enqueue_many([steps.bind(STEPS, VALUE) for _ in range(runs)])
            await asyncio.gather(*(handle.result() for handle in handles))
            took = time.perf_counter() - begin
            if len(samples) != runs * STEPS:
                raise RuntimeError(f"{len(samples)} steps ran, not {runs * STEPS}")
            return took

    took = asyncio.run(measure())
    from tests.bench.ours import samples

    return _numbers(samples, took)


def dbos(folder: Path, runs: int) -> Numbers:
    """Workflows called directly in the process, as dbos does best."""
    from dbos import DBOS

    from tests.bench import peer_dbos

    async def measure() -> float:
        await peer_dbos.steps(5, VALUE)
        peer_dbos.samples.clear()
        begin = time.perf_counter()
        handles = [await DBOS.start_workflow_async(peer_dbos.steps, DBOS_STEPS, VALUE) for _ in range(runs)]
        for handle in handles:
            await handle.get_result()
        return time.perf_counter() - begin

    peer_dbos.launch(folder, listen=False)
    took = asyncio.run(measure())
    numbers = _numbers(peer_dbos.samples, took)
    DBOS.destroy()
    return numbers


def raw(folder: Path, runs: int) -> Numbers:
    """The ceiling: a group commit and nothing else."""
    from tests.bench.raw import GroupCommit

    samples: list[float] = []

    async def run(writer: GroupCommit, number: int) -> None:
        for seq in range(STEPS):
            begin = time.perf_counter()
            await writer.step(number, seq, VALUE)
            samples.append(time.perf_counter() - begin)

    async def measure() -> float:
        writer = GroupCommit(folder, runs)
        begin = time.perf_counter()
        await asyncio.gather(*(run(writer, number) for number in range(runs)))
        took = time.perf_counter() - begin
        writer.close()
        return took

    took = asyncio.run(measure())
    return _numbers(samples, took)


ONE_RUN = Measurement(
    name="steps-1",
    shape=f"one run of {STEPS} steps (dbos {DBOS_STEPS}), 200 B values; time around one awaited step",
    contenders={
        "agentq": lambda _: agentq(1),
        "dbos": lambda folder: dbos(folder, 1),
        "bare group commit": lambda folder: raw(folder, 1),
    },
    targets=(Target(number="p50_ms", label="step commit, one run, p50", bound=0.5, unit="ms"),),
)
FIFTY_RUNS = Measurement(
    name="steps-50",
    shape=f"50 runs of {STEPS} steps at once (dbos {DBOS_STEPS}) in one worker process, enqueue to last result",
    contenders={
        "agentq": lambda _: agentq(50),
        "dbos": lambda folder: dbos(folder, 50),
        "bare group commit": lambda folder: raw(folder, 50),
    },
    targets=(Target(number="steps_per_s", label="steps, 50 runs at once", bound=15_000, unit="/s", at_least=True),),
)

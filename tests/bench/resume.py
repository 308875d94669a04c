"""How long a run with a thousand finished steps needs until it is back where it was, in a process that never saw it."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
import time
from pathlib import Path

from agentq.message import RunState
from agentq.testing.wait import wait_until
from tests.bench.contest import ROOT, Measurement, Numbers, Target

STEPS = 1000
VALUE = "x" * 200


def agentq(_: Path) -> Numbers:
    """Suspend it on a signal, then resume it in a fresh process: signal sent to the line after the wait."""
    done = subprocess.run(
        [sys.executable, "-m", "tests.bench.resume", asyncio.run(_suspend())],
        cwd=ROOT,
        check=True,
        stdout=subprocess.PIPE,
        text=True,
        timeout=60,
    )
    numbers: Numbers = json.loads(done.stdout)
    return numbers


async def _suspend() -> str:
    from tests.bench.ours import aq, long, working

    async with aq, working(1):
        handle = await long.enqueue(STEPS, VALUE)

        async def waiting() -> bool:
            return (await handle.status()).state == RunState.WAITING

        await wait_until("the run waits", waiting, timeout_s=60, every_s=0.02)
        return handle.id


async def _resume(run_id: str) -> Numbers:
    from tests.bench.ours import aq, go, long, noop, resumed, working

    async with aq, working(1):
        await (await noop.enqueue("warm")).result(timeout=10)
        handle = long.handle(run_id)
        begin = time.monotonic()
        await handle.signal(go, value=True)
        await handle.result(timeout=30)
        return {"resume_ms": 1000 * (resumed[-1] - begin)}


MEASUREMENT = Measurement(
    name="resume",
    shape=f"a run with {STEPS} finished steps of 200 B, waiting for a signal; fresh worker process, signal to the next line",
    contenders={"agentq": agentq},
    targets=(Target(number="resume_ms", label=f"resume of a run with {STEPS:,} steps", bound=200, unit="ms"),),
)

if __name__ == "__main__":
    print(json.dumps(asyncio.run(_resume(sys.argv[1]))))

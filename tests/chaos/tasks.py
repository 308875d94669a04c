"""The task under fire: its steps tell an append-only log when they begin and end, so that the truth survives every kill."""

from __future__ import annotations

import asyncio
import hashlib
import os
import random

from agentq import AgentQ, Context, current

LOG = "CHAOS_LOG"
"""Environment variable: path of the log that all workers append to."""
STEP_MS = "CHAOS_STEP_MS"
"""Environment variable: the longest that a step takes, in milliseconds."""

aq = AgentQ("chaos")


def note(*words: object) -> None:
    """Append one line. One small write to an O_APPEND file is never torn and never lost with its process."""
    descriptor = os.open(os.environ[LOG], os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
    try:
        os.write(descriptor, (" ".join(map(str, words)) + "\n").encode())
    finally:
        os.close(descriptor)


def chained(before: str, number: int, index: int) -> str:
    """What step ``index`` of run ``number`` makes of the value before it; wrong as soon as one step is lost or doubled."""
    return hashlib.blake2b(f"{before}/{number}/{index}".encode(), digest_size=8).hexdigest()


def expected(number: int, steps: int) -> str:
    """The result of a run in which everything happened once and in order."""
    value = ""
    for index in range(steps):
        value = chained(value, number, index)
    return value


@aq.step
async def link(before: str, number: int, index: int) -> str:
    where = current()
    note(where.run_id, index, where.fence, os.getpid(), "begin")
    await asyncio.sleep(random.random() * float(os.environ.get(STEP_MS, "20")) / 1000)
    value = chained(before, number, index)
    note(where.run_id, index, where.fence, os.getpid(), "end")
    return value


@aq.task
async def chain(ctx: Context, number: int, steps: int) -> str:
    value = ""
    for index in range(steps):
        value = await link(value, number, index)
    return value

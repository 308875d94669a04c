"""agentq's tasks for the measurements, and a worker inside the measuring process."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from agentq import AgentQ, Context, Signal
from agentq.settings import WorkerSettings
from agentq.worker import Worker

PAYLOAD = "x" * 200
go = Signal("go", bool)

aq = AgentQ("bench")
samples: list[float] = []
"""Seconds around each awaited step of this process."""
bodies: list[float] = []
"""When each no-op body of this process ran (perf_counter)."""
resumed: list[float] = []
"""When a long run passed its wait (monotonic)."""


@aq.step
async def append(value: str, n: int) -> str:
    return value


@aq.task
async def steps(ctx: Context, count: int, value: str) -> int:
    for n in range(count):
        begin = time.perf_counter()
        await append(value, n)
        samples.append(time.perf_counter() - begin)
    return count


@aq.task
async def noop(ctx: Context, payload: str) -> str:
    bodies.append(time.perf_counter())
    return "ok"


@aq.task
async def stamp(ctx: Context, sent: float) -> float:
    return time.monotonic() - sent


@aq.task
async def long(ctx: Context, count: int, value: str) -> int:
    for n in range(count):
        await append(value, n)
    await ctx.wait_for(go)
    resumed.append(time.monotonic())
    return count


@asynccontextmanager
async def working(slots: int) -> AsyncIterator[Worker]:
    """A worker in this process; the app must be open."""
    worker = Worker(aq, WorkerSettings(concurrency=slots))
    running = asyncio.create_task(worker.run())
    try:
        yield worker
    finally:
        worker.drain("measured")
        await running

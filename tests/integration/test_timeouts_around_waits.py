"""A timeout of the code's own around a wait: the run stays in its slot while it ticks."""

from __future__ import annotations

import asyncio
from datetime import timedelta

import pytest
from pydantic import BaseModel

from agentq import AgentQ, Context, Signal, testing
from agentq.settings import WorkerSettings
from agentq.worker import Worker

never = Signal("never", bool)
SETTINGS = WorkerSettings(concurrency=2, poll_s=0.02, heartbeat_s=0.1)


async def by_timeout(ctx: Context) -> str:
    try:
        async with asyncio.timeout(0.6):
            await ctx.wait_for(never)
    except TimeoutError:
        return "given up"
    return "came"


async def by_wait_for(ctx: Context) -> str:
    try:
        await asyncio.wait_for(ctx.sleep(timedelta(days=1)), 0.6)
    except TimeoutError:
        return "given up"
    return "slept"


async def around_a_gather(ctx: Context) -> str:
    try:
        async with asyncio.timeout(0.6):
            await ctx.gather(ctx.sleep(3600), ctx.wait_for(never))
    except TimeoutError:
        return "given up"
    return "slept"


@pytest.mark.parametrize("fn", [by_timeout, by_wait_for, around_a_gather])
async def test_a_timeout_around_a_wait_fires(fn) -> None:
    aq = AgentQ("t")
    task = aq.task(fn)
    async with aq.using(store="memory:"):
        handle = await task.enqueue()
        worker = Worker(aq, SETTINGS)
        job = asyncio.create_task(worker.run())
        assert await handle.result(timeout=10) == "given up"
        worker.drain()
        await job


class Page(BaseModel):
    image: bytes
    title: str


async def test_models_are_arguments_and_carry_any_bytes() -> None:
    aq = AgentQ("t")

    @aq.task
    async def first(ctx: Context, pages: list[Page]) -> Page:
        return pages[0]

    page = Page(image=b"\x00\xff\x89PNG", title="x")
    assert await testing.run(first.bind([page])) == page

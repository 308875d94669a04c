"""A store that neither answers nor refuses: runs are stopped before others may take them, and a drain comes to its end."""

import asyncio
from contextlib import AsyncExitStack
from types import SimpleNamespace
from typing import Any, Self

import pytest

from agentq import AgentQ, Context
from agentq.errors import StoreUnavailable
from agentq.settings import WorkerSettings
from agentq.stores.memory import MemoryStore
from agentq.testing.wait import wait_until
from agentq.worker import Worker, isolated
from agentq.worker import worker as worker_module
from agentq.worker.ends import End
from tests.helpers.lab import Gate, told

SETTINGS = WorkerSettings(concurrency=2, heartbeat_s=0.1, fence_s=0.5, lease_s=1.0, poll_s=0.05, drain_s=0.2, grace_s=0.5)


@pytest.fixture(autouse=True)
def _impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Taking leave of a store is not what is tested."""
    monkeypatch.setattr(worker_module, "_LEAVE_S", 0.1)
    monkeypatch.setattr(worker_module, "_LEAVE_UNHEARD_S", 0.1)


class Mute:
    """Passes everything on until it falls silent; what is asked from then on hangs."""

    def __init__(self, store: MemoryStore) -> None:
        self._store = store
        self.silent = False
        self.asked: list[str] = []

    def __getattr__(self, name: str) -> Any:
        found = getattr(self._store, name)
        if name not in {"write", "beat", "claim", "leave"}:
            return found

        async def verb(*args: Any) -> Any:
            if self.silent:
                self.asked.append(name)
                await asyncio.Event().wait()
            return await found(*args)

        return verb

    async def __aenter__(self) -> Self:
        await self._store.__aenter__()
        return self

    async def __aexit__(self, *error: object) -> None:
        await self._store.__aexit__(*error)  # type: ignore[arg-type]


async def test_a_heartbeat_that_hangs_does_not_keep_runs_from_being_fenced() -> None:
    aq, gate, stopped = AgentQ("t"), Gate(), asyncio.Event()

    @aq.task
    async def task(ctx: Context) -> None:
        try:
            await gate.wait()
        finally:
            stopped.set()

    store = Mute(MemoryStore())
    async with aq.using(store=store), told() as events:
        worker = Worker(aq, SETTINGS)
        job = asyncio.create_task(worker.run())
        await task.enqueue()
        await gate.reached()
        store.silent = True
        await wait_until("the code was stopped", stopped.is_set, timeout_s=5)  # a heartbeat is given up after 10 s
        assert len([1 for event, _ in events if event == "worker.fenced"]) == 1
        worker.drain()
        await asyncio.wait_for(job, 8)


async def test_an_outcome_that_nobody_hears_does_not_hold_up_a_drain() -> None:
    aq = AgentQ("t")

    @aq.task
    async def task(ctx: Context) -> None:
        store.silent = True

    store = Mute(MemoryStore())
    async with aq.using(store=store):
        worker = Worker(aq, SETTINGS)
        job = asyncio.create_task(worker.run())
        await task.enqueue()
        await wait_until("it has an outcome", lambda: "write" in store.asked)
        worker.drain()
        report = await asyncio.wait_for(job, 8)
        assert report.ends == {End.LOST: 1}


async def test_a_claim_that_nobody_hears_does_not_hold_up_a_drain() -> None:
    aq = AgentQ("t")

    @aq.task
    async def task(ctx: Context) -> None: ...

    store = Mute(MemoryStore())
    async with aq.using(store=store):
        worker = Worker(aq, SETTINGS)
        job = asyncio.create_task(worker.run())
        await wait_until("it is ready", lambda: worker.ready)
        store.silent = True
        await wait_until("it claims", lambda: "claim" in store.asked)
        worker.drain()
        await asyncio.wait_for(job, 8)


@pytest.mark.parametrize("told_to_stop", [False, True])
async def test_the_process_of_an_isolated_run_waits_for_its_store(
    monkeypatch: pytest.MonkeyPatch, *, told_to_stop: bool
) -> None:
    monkeypatch.setattr(isolated, "_AGAIN_S", 0.01)
    tries: list[str] = []

    class Opening:
        async def __aenter__(self) -> None:
            tries.append("open")
            if told_to_stop or len(tries) < 3:
                raise StoreUnavailable("down")

        async def __aexit__(self, *error: object) -> None: ...

    app: Any = SimpleNamespace(using=lambda **_: Opening())
    order: Any = SimpleNamespace(store="postgresql:", broker=None)
    parent: Any = SimpleNamespace(over=False)
    if told_to_stop:
        asyncio.get_running_loop().call_later(0.1, setattr, parent, "over", True)
    async with AsyncExitStack() as stack:
        assert await isolated._opened(stack, app, order, parent) is not told_to_stop
    assert len(tries) >= 3

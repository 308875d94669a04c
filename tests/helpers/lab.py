"""One app on one store, its runs executed claim by claim: a test decides when a worker dies and what the clock says."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager, contextmanager
from dataclasses import replace
from itertools import cycle
from typing import Any

from agentq import AgentQ, Signal
from agentq.errors import StoreUnavailable
from agentq.handle import RunHandle
from agentq.message import (
    ClaimRef,
    ClaimRequest,
    Command,
    Entry,
    EntryKind,
    Reply,
    Run,
    RunQuery,
    RunState,
    Send,
    Verdict,
    Write,
)
from agentq.producer import envelope
from agentq.scope import current_scope
from agentq.settings import WorkerSettings
from agentq.stores.base import Store
from agentq.stores.memory import MemoryStore
from agentq.task import Bound
from agentq.telemetry import add_sink, remove_sink
from agentq.testing import SimulatedClock
from agentq.testing.wait import wait_until
from agentq.worker import Worker
from agentq.worker.ends import End
from agentq.worker.host import ExecutionOptions
from agentq.worker.ledger import Stop
from agentq.worker.verbs import LiveRun

LEASE_S = 30.0
FAST = WorkerSettings(concurrency=4, heartbeat_s=0.02, fence_s=20, lease_s=30, poll_s=0.05, drain_s=5, grace_s=2)
"""A worker that hears commands within some hundredths of a second, and never takes a slow test machine for a dead one."""


class Lease:
    """A lease that a test can take away."""

    def __init__(self, ref: ClaimRef) -> None:
        self.ref = ref
        self.gone = False

    def fenced(self) -> bool:
        return self.gone


class Lab:
    """Claims and executes runs in the test's own event loop, on a simulated clock that jumps over waits."""

    def __init__(self, app: AgentQ, store: Store, clock: SimulatedClock) -> None:
        self.app = app
        self.store = store
        self.clock = clock
        self.options = ExecutionOptions(grace_s=2.0, linger_s=0.0, sleep=self._skip)
        self.live: dict[str, LiveRun] = {}
        """Run id to its execution under way."""
        self.ends: list[tuple[str, End]] = []

    async def submit(self, call: Bound[Any], run_id: str | None = None) -> str:
        sent = envelope(call, app=self.app.name, now=self.clock.wall(), run_id=run_id)
        await self.store.submit([sent])
        return sent.id

    async def claim(self, *, worker: str = "w", limit: int = 16) -> tuple[list[LiveRun], float | None]:
        """Claim what is runnable; (executions not begun, seconds until the next is due)."""
        versions = {name: task.spec.version for name, task in self.app.tasks.items() if task.spec.version is not None}
        claims = await self.store.claim(
            ClaimRequest(
                worker=worker, app=self.app.name, queues=self.app.queues, tasks=tuple(self.app.tasks), limit=limit,
                lease_s=LEASE_S, version=versions,
            )
        )  # fmt: skip
        runs = [
            LiveRun(self.app.find(claim.run.task), claim, Lease(claim.ref), self.store, self.clock, self.options)
            for claim in claims.claims
        ]
        return runs, claims.next_due_s

    async def work_on(self, live: LiveRun) -> End:
        """Execute one claim to its end."""
        self.live[live.row.id] = live
        try:
            end = await live.work()
        finally:
            del self.live[live.row.id]
        self.ends.append((live.row.id, end))
        return end

    async def once(self) -> End:
        """Claim one run and execute it to the end of this claim."""
        runs, _ = await self.claim(limit=1)
        assert runs, "nothing is claimable"
        return await self.work_on(runs[0])

    async def settle(self, *, rounds: int = 200) -> None:
        """Work, and jump in time, until nothing is runnable now or later."""
        for _ in range(rounds):
            runs, due = await self.claim()
            if runs:
                await asyncio.gather(*(self.work_on(run) for run in runs))
            elif due is None:
                return
            else:
                self.clock.advance(due + 0.001)
        raise AssertionError(f"the runs do not come to rest: {self.ends[-5:]}")

    async def finish(self, call: Bound[Any], run_id: str | None = None) -> Run:
        """Submit a call and work until everything rests."""
        run_id = await self.submit(call, run_id)
        await self.settle()
        return await self.run(run_id)

    def kill(self, run_id: str | None = None) -> None:
        """The worker of a run dies here: nothing that it does from now on is written, and its lease runs out."""
        for each in list(self.live.values()):
            if run_id in {None, each.row.id}:
                each.ledger._lease.gone = True  # type: ignore[attr-defined]
                each.stop(Stop.LOST, "its worker died")
        self.clock.advance(LEASE_S + 1)

    async def die_here(self) -> None:
        """Kill the calling run; never returns."""
        scope = current_scope()
        assert scope is not None
        self.kill(scope.run.row.id)
        await asyncio.get_running_loop().create_future()

    def vary(self, **options: Any) -> None:
        """Change options of the executions to come."""
        self.options = replace(self.options, **options)

    def stop(self, stop: Stop, reason: str = "test") -> None:
        for each in list(self.live.values()):
            each.stop(stop, reason)

    async def run(self, run_id: str) -> Run:
        (row,) = await self.store.runs(RunQuery(ids=(run_id,)))
        return row

    async def state(self, run_id: str) -> RunState:
        return (await self.run(run_id)).state

    async def result(self, run_id: str) -> Any:
        return await self.handle(run_id).result(timeout=0)

    def handle(self, run_id: str) -> RunHandle[Any]:
        return self.app.handle(run_id)

    async def journal(self, run_id: str) -> list[Entry]:
        return await self.store.journal(run_id)

    async def names(self, run_id: str, *kinds: EntryKind) -> list[str]:
        """Steps in the journal, in order; by default those done."""
        wanted = kinds or (EntryKind.DONE,)
        return [entry.step for entry in await self.journal(run_id) if entry.kind in wanted]

    async def shape(self, run_id: str) -> list[tuple[str, str]]:
        """(kind, step) of every entry."""
        return [(str(entry.kind), entry.step) for entry in await self.journal(run_id)]

    async def send(self, run_id: str, signal: Signal[Any], value: Any, signal_id: str) -> bool:
        sent = Send(run_id=run_id, name=signal.name, signal_id=signal_id, payload=signal.encode(value))
        return await self.store.command(sent) is Reply.DONE

    async def command(self, command: Command) -> Reply:
        return await self.store.command(command)

    async def _skip(self, seconds: float) -> None:
        self.clock.advance(seconds)
        await asyncio.sleep(0)


_opener: list[Callable[[SimulatedClock], AbstractAsyncContextManager[Store]]] = [lambda clock: MemoryStore(clock=clock)]


@contextmanager
def stores_by(opener: Callable[[SimulatedClock], AbstractAsyncContextManager[Store]]) -> Iterator[None]:
    """Have `lab` open its stores so for a while."""
    before, _opener[0] = _opener[0], opener
    try:
        yield
    finally:
        _opener[0] = before


@asynccontextmanager
async def lab(app: AgentQ) -> AsyncIterator[Lab]:
    """Open ``app`` on an empty store, in memory unless `stores_by` says otherwise, with a simulated clock."""
    clock = SimulatedClock()
    async with _opener[0](clock) as store, app.using(store=store):
        yield Lab(app, store, clock)


@asynccontextmanager
async def working(app: AgentQ, settings: WorkerSettings = FAST, **options: Any) -> AsyncIterator[Worker]:
    """Let a worker work for the open ``app`` until the block ends; then it is drained."""
    worker = Worker(app, settings, **options)
    job = asyncio.create_task(worker.run())
    try:
        await wait_until("the worker is ready", lambda: worker.ready or job.done())
        yield worker
    finally:
        worker.abort("the test is over")
        await job


class Doubtful:
    """A store whose writes fail: before they happen, or after, with the answer lost. ``plan`` says which, write by write."""

    def __init__(self, store: Store, plan: Iterator[str] | None = None) -> None:
        self._store = store
        self._plan = plan or cycle(["lost", "ok", "refused", "ok"])
        self.writes = 0

    def __getattr__(self, name: str) -> Any:
        return getattr(self._store, name)

    async def write(self, write: Write) -> Verdict:
        self.writes += 1
        fate = next(self._plan, "ok")
        if fate == "refused":
            raise StoreUnavailable("no answer")
        verdict = await self._store.write(write)
        if fate == "lost":
            raise StoreUnavailable("the answer was lost")
        return verdict


class Gate:
    """A step's body waits here until the test opens; the test waits until somebody has come."""

    def __init__(self) -> None:
        self.arrivals = 0
        self._open = asyncio.Event()
        self._came = asyncio.Event()

    async def wait(self) -> None:
        self.arrivals += 1
        self._came.set()
        await self._open.wait()

    async def reached(self) -> None:
        async with asyncio.timeout(10):
            await self._came.wait()

    def open(self) -> None:
        self._open.set()


class Calls(list[Any]):
    """What really happened outside, in order."""

    def count_of(self, what: Any) -> int:
        return sum(1 for each in self if each == what)


@asynccontextmanager
async def told() -> AsyncIterator[list[tuple[str, dict[str, Any]]]]:
    """Collect the events that are told meanwhile."""
    events: list[tuple[str, dict[str, Any]]] = []

    def sink(event: str, fields: dict[str, Any]) -> None:
        events.append((event, dict(fields)))

    add_sink(sink)
    try:
        yield events
    finally:
        remove_sink(sink)


def failing(times: int, error: Callable[[], BaseException] = lambda: ValueError("not yet")) -> Callable[[], int]:
    """Return a function that raises so many times, and then returns how often it was called."""
    calls = 0

    def call() -> int:
        nonlocal calls
        calls += 1
        if calls <= times:
            raise error()
        return calls

    return call

"""A worker without a process: claims and executes runs in the test's own event loop, on a clock that jumps over waits."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from agentq.errors import BrokerUnavailable, StoreUnavailable
from agentq.message import Claim, ClaimRef, ClaimRequest, RunQuery, RunState
from agentq.scope import Frame
from agentq.step import StepSpec, spec_of
from agentq.stores.base import Store
from agentq.testing.clock import SimulatedClock
from agentq.testing.inflow import StepwiseInflow
from agentq.worker.ends import End
from agentq.worker.host import ExecutionOptions
from agentq.worker.ledger import Stop
from agentq.worker.verbs import LiveRun

if TYPE_CHECKING:
    from agentq.app import AgentQ
    from agentq.brokers.base import Broker

LEASE_S = 30.0
SLOTS = 16
FAKE_GRACE_S = 5.0
_BROKER_PATIENCE_S = 2 * LEASE_S
"""Of the simulated clock, for what lies in the broker and does not come: longer than it hides what was delivered."""
_STEP_S = 5.0
"""Between two looks at such a broker."""
_BROKER_REAL_PATIENCE_S = 5.0
"""As above, in real seconds: a broker that is a server does not follow a simulated clock."""


class NeverFenced:
    """A lease whose worker does not stop itself: then the store alone must keep a zombie out."""

    def __init__(self, ref: ClaimRef) -> None:
        """Hold ``ref``."""
        self.ref = ref

    def fenced(self) -> bool:
        """Never."""
        return False


class Driver:
    """Executes the runs of one app on one store, as a worker called ``name``."""

    def __init__(
        self,
        app: AgentQ,
        store: Store,
        clock: SimulatedClock,
        *,
        name: str = "driver",
        fakes: Mapping[StepSpec | str, Callable[..., Any]] | None = None,
        watch_body: Callable[[Frame, str], None] | None = None,
        broker: Broker | None = None,
    ) -> None:
        """``fakes`` replace steps; ``watch_body`` is told of each body that runs; ``broker`` is what it takes runs from."""
        self._app = app
        self._store = store
        self._clock = clock
        self._name = name
        self.options = ExecutionOptions(
            grace_s=FAKE_GRACE_S, linger_s=0.0, fakes=fakes or {}, sleep=self._sleep, watch_body=watch_body
        )
        self._inflow = None if broker is None else StepwiseInflow(app, broker, store, clock)
        self.died = asyncio.Event()
        """Set by whoever kills this worker: what it does from then on reaches nobody."""
        self.ends: list[tuple[str, End]] = []

    async def work(self, *, until: Callable[[], Any] | None = None) -> None:
        """Work until nothing is runnable, now or later, or the worker died; time jumps to what is due next.

        ``until`` may return something true (or an awaitable of it) to end earlier.
        """
        try:
            await self._work(until)
        finally:
            if self._inflow is not None:
                await self._inflow.close()

    async def _work(self, until: Callable[[], Any] | None) -> None:
        patience = _Patience(self._clock)
        while not self.died.is_set():
            if until is not None and await _true(until()):
                return
            try:
                brought = self._inflow is not None and await self._mortal(self._inflow.step(SLOTS))
                claimed, due = await self._round()
                rest = self._inflow is not None and bool(await self._mortal(self._inflow.anything()))
            except (StoreUnavailable, BrokerUnavailable):
                continue
            if brought or claimed or self.died.is_set():
                patience = _Patience(self._clock)
            elif due is not None and not rest:
                self._clock.advance(due + 0.001)
            elif rest and not patience.over():
                self._clock.advance(_STEP_S if due is None else min(due + 0.001, _STEP_S))
            elif due is not None:
                self._clock.advance(due + 0.001)
            else:
                return

    async def _round(self) -> tuple[int, float | None]:
        request = ClaimRequest(
            worker=self._name,
            app=self._app.name,
            queues=self._app.queues,
            tasks=tuple(self._app.tasks),
            limit=SLOTS,
            lease_s=LEASE_S,
            version={name: task.spec.version for name, task in self._app.tasks.items() if task.spec.version is not None},
        )
        claims = await self._mortal(self._store.claim(request))
        if claims is None:
            return 0, None
        if claims.claims:
            await asyncio.gather(*(self._execute(claim) for claim in claims.claims))
        return len(claims.claims), claims.next_due_s

    async def _execute(self, claim: Claim) -> None:
        run = LiveRun(self._app.find(claim.run.task), claim, NeverFenced(claim.ref), self._store, self._clock, self.options)
        work = asyncio.ensure_future(run.work())
        dying = asyncio.ensure_future(self.died.wait())
        await asyncio.wait({work, dying}, return_when=asyncio.FIRST_COMPLETED)
        if not work.done():
            run.stop(Stop.LOST, "its worker died")
            if not run.code_ended:
                await asyncio.wait({work}, timeout=FAKE_GRACE_S)
        dying.cancel()
        if work.done() and not self.died.is_set():
            self.ends.append((claim.run.id, work.result()))
        elif not work.done():
            work.cancel()
        await asyncio.wait({work, dying})
        if not work.cancelled():
            work.exception()

    async def _mortal(self, call: Any) -> Any:
        """Await a call of the store's, or None when the worker died meanwhile."""
        calling = asyncio.ensure_future(call)
        dying = asyncio.ensure_future(self.died.wait())
        await asyncio.wait({calling, dying}, return_when=asyncio.FIRST_COMPLETED)
        dying.cancel()
        if calling.done():
            return calling.result()
        calling.cancel()
        await asyncio.wait({calling})
        return None

    async def _sleep(self, seconds: float) -> None:
        self._clock.advance(seconds)
        await asyncio.sleep(0)


class _Patience:
    """How long nothing has come of a broker that is not empty."""

    def __init__(self, clock: SimulatedClock) -> None:
        self._clock = clock
        self._until = clock.steady() + _BROKER_PATIENCE_S
        self._really_until = time.monotonic() + _BROKER_REAL_PATIENCE_S

    def over(self) -> bool:
        return self._clock.steady() > self._until or time.monotonic() > self._really_until


def by_spec(steps: Mapping[Any, Callable[..., Any]] | None) -> dict[StepSpec | str, Callable[..., Any]]:
    """Turn ``{step function or name: fake}`` into what an execution takes.

    Raises:
        TypeError: a key is neither a step nor a name.

    """
    fakes: dict[StepSpec | str, Callable[..., Any]] = {}
    for key, fake in (steps or {}).items():
        spec = key if isinstance(key, str) else spec_of(key)
        if spec is None:
            raise TypeError(f"steps: {key!r} is no step; give functions declared with @aq.step, or the name of a ctx.step call")
        fakes[spec] = fake
    return fakes


async def open_question(store: Store, run_id: str) -> str:
    """Say what a run that does not go on waits for."""
    (run,) = await store.runs(RunQuery(ids=(run_id,)))
    waits = [f"{wait.kind} {wait.ref or wait.step!r}" for wait in await store.waits(run_id)]
    more = f", it waits for {' and '.join(waits)}" if waits else ""
    paused = ", paused" if run.paused else ""
    return f"run {run_id} ({run.task}) is {RunState(run.state)}{paused} and nothing will move it{more}"


async def _true(value: Any) -> bool:
    return bool(await value if asyncio.iscoroutine(value) else value)

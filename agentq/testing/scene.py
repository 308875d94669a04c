"""One call, played from its submission to its end, with the faults of one plan."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import AsyncExitStack
from contextvars import ContextVar
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, cast

from agentq.brokers.base import Broker
from agentq.message import RunState, new_run_id
from agentq.stores.base import Store
from agentq.testing.clock import SimulatedClock
from agentq.testing.driver import LEASE_S, Driver, by_spec
from agentq.testing.mortal import Fate, Fault, MortalBroker, MortalStore
from agentq.testing.runner import Signals, Steps, begin, check_over, identity
from agentq.testing.witness import Inboxes, Witness

if TYPE_CHECKING:
    from agentq.task import Bound


@dataclass(frozen=True, slots=True)
class Outcome:
    """How a scene came out."""

    operations: tuple[str, ...]
    """Verbs, in the order in which they were called."""
    reexecuted: int
    ending: tuple[RunState, bytes | None, str | None]
    interrupted: str | None = None
    """Name of an ``at_most_once`` step that a fault interrupted, and that failed for it."""


class Scene:
    """One call, played again and again."""

    def __init__(
        self,
        call: Bound[Any],
        steps: Steps | None,
        signals: Signals | None,
        make: Callable[[SimulatedClock], Store],
        make_broker: Callable[[SimulatedClock], Broker] | None,
    ) -> None:
        """Play ``call`` on what ``make`` and ``make_broker`` make anew for each time."""
        self._call = call
        self._fakes = by_spec(steps)
        self._signals = signals
        self._make = make
        self._make_broker = make_broker
        self._run_id = identity(call, new_run_id())

    async def play(self, faults: tuple[Fault, ...]) -> Outcome:
        """Run the call once with these faults."""
        async with AsyncExitStack() as stack:
            clock = SimulatedClock()
            store = await stack.enter_async_context(self._make(clock))
            broker = None
            if self._make_broker is not None:
                broker = await stack.enter_async_context(self._make_broker(clock))
                await broker.inspect(self._call.task.app.queues, fix=True)
            return await _Play(self._call, clock, store, broker, faults, self._run_id, self._fakes).perform(self._signals)


class _Play:
    """One time that a call is played."""

    def __init__(
        self,
        call: Bound[Any],
        clock: SimulatedClock,
        store: Store,
        broker: Broker | None,
        faults: tuple[Fault, ...],
        run_id: str,
        fakes: dict[Any, Callable[..., Any]],
    ) -> None:
        self._call = call
        self._app = call.task.app
        self._clock = clock
        self._store = store
        self._broker = broker
        self._run_id = run_id
        self._fakes = fakes
        self._witness = Witness(store, run_id, faults, inboxes=None if broker is None else Inboxes(broker, self._app.queues))
        self._first: Driver | None = None
        self._fate = Fate(faults, die=self._die, pause=self._pause, after=self._witness.look)

    async def perform(self, signals: Signals | None) -> Outcome:
        """Submit, work, die, take over, and see how it ended."""
        at_work = None if self._broker is None else cast("Broker", _AtWork())
        async with AsyncExitStack() as stack:
            await stack.enter_async_context(self._app.using(store=self._store_behind(self._fate), broker=at_work))
            if self._app.lifespan is not None:
                await stack.enter_async_context(self._app.lifespan(self._app))
            await begin(self._store, self._call, signals, self._clock, self._run_id, broker=self._broker)
            await self._work("first", self._fate)
            for number in range(2):
                self._clock.advance(LEASE_S + 1.0)
                await self._work(f"next-{number}", self._calm())
            if self._witness.broken is not None:
                raise self._witness.broken
            await check_over(self._store, self._run_id)
            witness = self._witness
            return Outcome(tuple(self._fate.operations), witness.reexecuted, await witness.ending(), witness.interrupted())

    async def _work(self, name: str, fate: Fate) -> None:
        """Let a worker with this fate work until there is nothing to do, or it dies."""
        broker = None if self._broker is None else cast("Broker", MortalBroker(self._broker, fate))
        store = self._store_behind(fate)
        driver = Driver(
            self._app, store, self._clock, name=name, fakes=self._fakes, watch_body=self._witness.body, broker=broker
        )
        if fate is self._fate:
            self._first = driver
        token = _broker_at_work.set(broker)
        try:
            await driver.work()
        finally:
            _broker_at_work.reset(token)

    def _store_behind(self, fate: Fate) -> Store:
        return cast("Store", MortalStore(self._store, fate))

    def _calm(self) -> Fate:
        """Of a worker to whom nothing happens."""
        return Fate((), die=lambda: None, pause=_nothing, after=self._witness.look)

    def _die(self) -> None:
        assert self._first is not None  # noqa: S101 - only it has a fate
        self._first.died.set()

    async def _pause(self) -> None:
        self._clock.advance(LEASE_S + 1.0)
        await self._work("rescue", self._calm())


class _AtWork:
    """What the app sends through: the broker of the worker whose run sends."""

    def __getattr__(self, name: str) -> Any:
        return getattr(_broker_at_work.get(), name)


_broker_at_work: ContextVar[Broker | None] = ContextVar("_broker_at_work")


async def _nothing() -> None:
    await asyncio.sleep(0)

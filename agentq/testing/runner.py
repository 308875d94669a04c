"""`run`: a task from its first line to its result, in memory, with fake steps and signals, in milliseconds."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import AsyncExitStack
from typing import Any, TypeVar

from agentq.brokers.base import Broker
from agentq.message import RunQuery, Send
from agentq.producer import envelope, send
from agentq.signal import Signal
from agentq.stores.base import Store
from agentq.stores.memory import MemoryStore
from agentq.task import Bound
from agentq.testing.clock import SimulatedClock
from agentq.testing.driver import Driver, by_spec, open_question

R = TypeVar("R")

Steps = Mapping[Any, Callable[..., Any]]
"""Step function (or the name of a ``ctx.step`` call) to what runs in its place."""
Signals = Mapping[Signal[Any], Any]
"""Signal to its value; a list is that many signals in order, unless the signal's own type is a list."""


class Stuck(AssertionError):
    """The run waits for something that the test does not give."""


async def run(call: Bound[R], *, steps: Steps | None = None, signals: Signals | None = None, start: float | None = None) -> R:
    """Run a call to its end and return its result; nothing outside memory is touched unless a step does so.

    Waits are skipped: the clock jumps to what is due next. Children run too. ``lifespan`` is entered.

    Args:
        call: ``task.bind(…)``.
        steps: fakes, called with the step's arguments; sync or async.
        signals: what people and systems would send, in the mailbox before the run starts.
        start: wall time at the start, in seconds since the Unix epoch.

    Raises:
        RunFailed, RunCancelled: as `RunHandle.result`.
        Stuck: it waits for a signal that is not given.

    """
    app = call.task.app
    clock = SimulatedClock() if start is None else SimulatedClock(wall=start)
    store = MemoryStore(clock=clock)
    async with AsyncExitStack() as stack:
        await stack.enter_async_context(store)
        await stack.enter_async_context(app.using(store=store, broker=None))
        if app.lifespan is not None:
            await stack.enter_async_context(app.lifespan(app))
        run_id = await begin(store, call, signals, clock)
        await Driver(app, store, clock, fakes=by_spec(steps)).work()
        await check_over(store, run_id)
        return await call.task.handle(run_id).result(timeout=0)


def identity(call: Bound[Any], run_id: str) -> str:
    """The id that a call's run has, if ``run_id`` is proposed: a key says otherwise."""
    return envelope(call, app=call.task.app.name, now=0.0, run_id=run_id).id


async def begin(
    store: Store,
    call: Bound[Any],
    signals: Signals | None,
    clock: SimulatedClock,
    run_id: str | None = None,
    *,
    broker: Broker | None = None,
) -> str:
    """Submit a call, through a broker if there is one, and fill its mailbox; returns the run's id."""
    sent = envelope(call, app=call.task.app.name, now=clock.wall(), run_id=run_id)
    if broker is None:
        await store.submit([sent])
    else:
        await send(broker, store, [sent], now=clock.wall())
    for signal, given in (signals or {}).items():
        values = given if isinstance(given, list) and signal.type is not list else [given]
        for number, value in enumerate(values):
            await store.command(
                Send(
                    run_id=sent.id,
                    name=signal.name,
                    signal_id=f"{signal.name}-{number}",
                    payload=signal.encode(value),
                    early=broker is not None,
                )
            )
    return sent.id


async def check_over(store: Store, run_id: str) -> None:
    """Raise unless the run is final.

    Raises:
        Stuck: saying what it waits for.

    """
    rows = await store.runs(RunQuery(ids=(run_id,)))
    if not rows:
        raise Stuck(f"run {run_id} never got a row")
    if not rows[0].state.final:
        raise Stuck(f"{await open_question(store, run_id)}; give it with signals={{…}}")

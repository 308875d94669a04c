"""`crash_everywhere`: a task dies, pauses and stutters at every operation that it does, and must come out the same."""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from collections.abc import Callable, Iterable
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, cast

from agentq.message import Entry, EntryKind, Run, RunQuery, RunState, new_run_id
from agentq.scope import Frame
from agentq.stores.base import Store
from agentq.stores.memory import MemoryStore
from agentq.testing.clock import SimulatedClock
from agentq.testing.driver import LEASE_S, Driver, by_spec
from agentq.testing.mortal import Fault, FaultKind, Mortal
from agentq.testing.runner import Signals, Steps, begin, check_over
from agentq.worker.steps import step_key

if TYPE_CHECKING:
    from agentq.app import AgentQ
    from agentq.task import Bound

ALL_RUNS = RunQuery(limit=100_000)


class Broken(AssertionError):
    """A rule did not hold; the message names the rule, the run and the fault that shows it again."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CrashReport:
    """What `crash_everywhere` did."""

    operations: int
    """Operations of the run without any fault."""
    scenarios: int
    """Times it was run with a fault."""
    reexecuted: int
    """Step bodies that ran again because their result was not recorded, over all scenarios."""
    by_kind: dict[FaultKind, int] = field(default_factory=dict)


async def crash_everywhere(
    call: Bound[Any],
    *,
    steps: Steps | None = None,
    signals: Signals | None = None,
    kinds: Iterable[FaultKind] = tuple(FaultKind),
    pairs: int = 0,
    seed: int = 0,
    same_result: bool = True,
    fails: bool = False,
    store: Callable[[SimulatedClock], Store] | None = None,
) -> CrashReport:
    """Run a call with every kind of fault at every operation, and check the rules that always hold.

    After each operation: epochs never fall, a journal only grows and has no gap, no step is recorded twice, ``running`` has
    an owner, ``waiting`` has something to wake it, a final run has neither. At every step body: it was not recorded before,
    and no try of an ``at_most_once`` one was begun before. At the end: the run is final, with the undisturbed run's result.

    Args:
        call: ``task.bind(…)``.
        steps: as for `agentq.testing.run`. Steps that touch the outside are really called again and again: fake them.
        signals: as for `agentq.testing.run`.
        kinds: which faults.
        pairs: how many random pairs of faults to try beside the single ones.
        seed: for the pairs.
        same_result: whether the task gives the same result each time; False for tasks that ask the time or a die.
        fails: whether the run is meant to fail; otherwise one that fails undisturbed is refused, for it would prove little.
        store: makes the store to run on, for the clock that it is given; default one in memory.

    Raises:
        Broken: a rule did not hold.

    """
    make = store or (lambda clock: MemoryStore(clock=clock))
    scene = _Scene(call, steps, signals, make, new_run_id())
    calm = await scene.play(())
    if calm.ending[0] is RunState.FAILED and not fails:
        raise Broken(f"without any fault the run fails: {calm.ending[2]}; a fake or a signal is missing, or say fails=True")
    counts: Counter[FaultKind] = Counter()
    reexecuted = 0
    plans = _plans(calm.operations, tuple(kinds), pairs, seed)
    for faults in plans:
        outcome = await scene.play(faults)
        counts.update(fault.kind for fault in faults)
        reexecuted += outcome.reexecuted
        if same_result and outcome.ending != calm.ending:
            told = " and ".join(map(str, faults))
            raise Broken(f"after {told} the run ended as {outcome.ending}, undisturbed it ends as {calm.ending}")
    return CrashReport(operations=calm.operations, scenarios=len(plans), reexecuted=reexecuted, by_kind=dict(counts))


def _plans(operations: int, kinds: tuple[FaultKind, ...], pairs: int, seed: int) -> list[tuple[Fault, ...]]:
    """Every single fault, and random pairs."""
    draw = random.Random(seed)  # noqa: S311 - a test's choice
    plans: list[tuple[Fault, ...]] = [(Fault(at, kind),) for at in range(operations) for kind in kinds]
    for _ in range(pairs if operations > 1 else 0):
        first, second = sorted(draw.sample(range(operations), 2))
        plans.append((Fault(first, draw.choice(kinds)), Fault(second, draw.choice(kinds))))
    return plans


@dataclass(frozen=True, slots=True)
class _Outcome:
    operations: int
    reexecuted: int
    ending: tuple[RunState, bytes | None, str | None]


class _Scene:
    """One call, played again and again."""

    def __init__(
        self,
        call: Bound[Any],
        steps: Steps | None,
        signals: Signals | None,
        make: Callable[[SimulatedClock], Store],
        run_id: str,
    ) -> None:
        self._call = call
        self._fakes = by_spec(steps)
        self._signals = signals
        self._make = make
        self._run_id = run_id

    async def play(self, faults: tuple[Fault, ...]) -> _Outcome:
        """Run the call once with these faults."""
        app: AgentQ = self._call.task.app
        clock = SimulatedClock()
        inner = self._make(clock)
        async with AsyncExitStack() as stack:
            await stack.enter_async_context(inner)
            witness = _Witness(inner, self._run_id, faults)
            drivers: list[Driver] = []

            def driver(store: Store, name: str) -> Driver:
                made = Driver(app, store, clock, name=name, fakes=self._fakes, watch_body=witness.body)
                drivers.append(made)
                return made

            async def pause() -> None:
                clock.advance(LEASE_S + 1.0)
                await driver(_watched(inner, witness), "rescue").work()

            def die() -> None:
                drivers[0].died.set()

            mortal = Mortal(inner, faults, die=die, pause=pause, after=witness.look)
            await stack.enter_async_context(app.using(store=cast("Store", mortal)))
            if app.lifespan is not None:
                await stack.enter_async_context(app.lifespan(app))
            await begin(inner, self._call, self._signals, clock, self._run_id)
            await driver(cast("Store", mortal), "first").work()
            for number in range(2):
                clock.advance(LEASE_S + 1.0)
                await driver(_watched(inner, witness), f"next-{number}").work()
            if witness.broken is not None:
                raise witness.broken
            await check_over(inner, self._run_id)
            return _Outcome(len(mortal.operations), witness.reexecuted, await witness.ending())


def _watched(inner: Store, witness: _Witness) -> Store:
    async def nobody() -> None:
        await asyncio.sleep(0)

    return cast("Store", Mortal(inner, (), die=lambda: None, pause=nobody, after=witness.look))


class _Witness:
    """Looks at the store after every operation and at every step body, and knows what must not be."""

    def __init__(self, store: Store, run_id: str, faults: tuple[Fault, ...]) -> None:
        self._store = store
        self._run_id = run_id
        self._told = " and ".join(map(str, faults)) or "no fault"
        self._journals: dict[str, list[Entry]] = {}
        self._epochs: dict[str, int] = {}
        self._recorded: dict[str, Entry] = {}
        self._bodies: Counter[str] = Counter()
        self._tries: Counter[tuple[str, int]] = Counter()
        self._begun: set[tuple[str, int]] = set()
        self.reexecuted = 0
        self.broken: Broken | None = None
        """The first rule that did not hold: the run that it was raised in may have taken it for a failure of its own."""

    def body(self, frame: Frame, run_id: str) -> None:
        """Check a body that is about to run."""
        if frame.key in self._recorded:
            entry = self._recorded[frame.key]
            self._fail(f"step {frame.step!r} of run {run_id} runs again although entry {entry.seq} recorded it")
        self._tries[frame.key, frame.attempt] += 1
        if (frame.key, frame.attempt) in self._begun and self._tries[frame.key, frame.attempt] > 1:
            self._fail(
                f"try {frame.attempt} of step {frame.step!r} of run {run_id} may happen at most once, and was begun twice"
            )
        self._bodies[frame.key] += 1
        self.reexecuted += self._bodies[frame.key] > frame.attempt

    async def look(self, operation: str) -> None:
        """Check the whole store."""
        for run in await self._store.runs(ALL_RUNS):
            await self._look_at(run, operation)

    async def ending(self) -> tuple[RunState, bytes | None, str | None]:
        """How the run ended."""
        (run,) = await self._store.runs(RunQuery(ids=(self._run_id,)))
        return run.state, run.result, run.failure.type if run.failure and run.state is RunState.FAILED else None

    async def _look_at(self, run: Run, operation: str) -> None:
        if run.epoch < self._epochs.get(run.id, 0):
            self._fail(f"the epoch of run {run.id} fell from {self._epochs[run.id]} to {run.epoch} in {operation}")
        self._epochs[run.id] = run.epoch
        waits = await self._store.waits(run.id)
        if run.state is RunState.RUNNING and run.owner is None:
            self._fail(f"run {run.id} is running without an owner after {operation}")
        if run.state is RunState.WAITING and not waits:
            self._fail(f"run {run.id} waits for nothing after {operation}")
        if run.state.final and (waits or run.owner is not None):
            self._fail(f"run {run.id} is {run.state} and still has a wait or an owner after {operation}")
        self._look_at_journal(run.id, await self._store.journal(run.id), operation)

    def _look_at_journal(self, run_id: str, journal: list[Entry], operation: str) -> None:
        before = self._journals.get(run_id, [])
        if journal[: len(before)] != before:
            self._fail(f"the journal of run {run_id} was rewritten in {operation}")
        if [entry.seq for entry in journal] != list(range(len(journal))):
            self._fail(f"the journal of run {run_id} has a gap after {operation}")
        places = Counter((*entry.identity, entry.kind, entry.attempt) for entry in journal)
        if twice := [place for place, count in places.items() if count > 1]:
            self._fail(f"run {run_id} recorded {twice[0]} twice in {operation}")
        self._journals[run_id] = journal
        for entry in journal[len(before) :]:
            key = step_key(run_id, entry.identity)
            if entry.kind is EntryKind.STARTED:
                self._begun.add((key, entry.attempt))
            elif entry.kind is EntryKind.DONE:
                self._recorded[key] = entry
            elif entry.kind is EntryKind.SUPERSEDED:
                self._recorded.pop(key, None)
            elif entry.kind is EntryKind.FAILED:
                self._recorded[key] = entry

    def _fail(self, what: str) -> None:
        broken = Broken(f"{what} (after {self._told})")
        self.broken = self.broken or broken
        raise broken

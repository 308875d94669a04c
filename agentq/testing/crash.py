"""`crash_everywhere`: a task dies, pauses and stutters at every operation that it does, and must come out the same."""

from __future__ import annotations

import logging
import random
from collections import Counter
from collections.abc import Callable, Container, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from agentq.brokers.base import Broker
from agentq.message import RunState
from agentq.stores.base import Store
from agentq.stores.memory import MemoryStore
from agentq.telemetry.log import LOGGER
from agentq.testing.clock import SimulatedClock
from agentq.testing.mortal import Fault, FaultKind
from agentq.testing.runner import Signals, Steps
from agentq.testing.scene import Outcome, Scene
from agentq.testing.witness import Broken

if TYPE_CHECKING:
    from agentq.task import Bound


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
    at: Container[str] | None = None,
    pairs: int = 0,
    seed: int = 0,
    same_result: bool = True,
    fails: bool = False,
    store: Callable[[SimulatedClock], Store] | None = None,
    broker: Callable[[SimulatedClock], Broker] | None = None,
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
        at: verbs (``claim``, ``write``, ``admit``, …) at whose calls they happen; default at every operation.
        pairs: how many random pairs of faults to try beside the single ones.
        seed: for the pairs.
        same_result: whether the task gives the same result each time; False for tasks that ask the time or a die.
        fails: whether the run may fail: undisturbed, which is refused otherwise, for it would prove little; and where a fault
            interrupts a step with ``effect="at_most_once"`` and ``on_interrupt="fail"``, which promises no more.
        store: makes the store to run on, for the clock that it is given; default one in memory.
        broker: makes the broker to submit through; default none. Then what intake does (receive, admit, acknowledge) are
            operations too, signals are sent before the run has a row, and of the run and its message one is always there.
            It must deliver again, within 30 s of the clock that it is given, what nobody acknowledged; or, if it is a real
            server, within 5 s: leave out `FaultKind.PAUSE` then, for it does not follow the clock.

    Raises:
        Broken: a rule did not hold.

    """
    make = store or (lambda clock: MemoryStore(clock=clock))
    scene = Scene(call, steps, signals, make, broker)
    calm = await scene.play(())
    if calm.ending[0] is RunState.FAILED and not fails:
        raise Broken(f"without any fault the run fails: {calm.ending[2]}; a fake or a signal is missing, or say fails=True")
    counts: Counter[FaultKind] = Counter()
    reexecuted = 0
    places = [number for number, verb in enumerate(calm.operations) if at is None or verb in at]
    plans = _plans(places, tuple(kinds), pairs, seed)
    for faults in plans:
        with _quiet():
            outcome = await scene.play(faults)
        counts.update(fault.kind for fault in faults)
        reexecuted += outcome.reexecuted
        if same_result and outcome.ending != calm.ending and not (fails and _failed_in_doubt(outcome)):
            told = " and ".join(map(str, faults))
            why = _by_design(outcome)
            raise Broken(f"after {told} the run ended as {outcome.ending}, undisturbed it ends as {calm.ending}{why}")
    return CrashReport(operations=len(calm.operations), scenarios=len(plans), reexecuted=reexecuted, by_kind=dict(counts))


def _failed_in_doubt(outcome: Outcome) -> bool:
    return outcome.interrupted is not None and outcome.ending[0] is RunState.FAILED


def _by_design(outcome: Outcome) -> str:
    """Say so where a fault did what a declaration says that it does, and how to go on."""
    if outcome.interrupted is None:
        return ""
    said = f"; step {outcome.interrupted!r} is at_most_once and was interrupted: "
    if _failed_in_doubt(outcome):
        return f"{said}the run then fails by design. If that is meant, say fails=True; else give the step another on_interrupt"
    return f"{said}if the result may differ then, say same_result=False"


@contextmanager
def _quiet() -> Iterator[None]:
    """Keep what a fault brings about, again and again, out of the log; sinks hear of it."""
    logger = logging.getLogger(LOGGER)
    logger.addFilter(_nothing)
    try:
        yield
    finally:
        logger.removeFilter(_nothing)


def _nothing(_record: logging.LogRecord) -> bool:
    return False


def _plans(places: Sequence[int], kinds: tuple[FaultKind, ...], pairs: int, seed: int) -> list[tuple[Fault, ...]]:
    """Every single fault at each of these operations, and random pairs."""
    draw = random.Random(seed)  # noqa: S311 - a test's choice
    plans: list[tuple[Fault, ...]] = [(Fault(at, kind),) for at in places for kind in kinds]
    for _ in range(pairs if len(places) > 1 else 0):
        first, second = sorted(draw.sample(places, 2))
        plans.append((Fault(first, draw.choice(kinds)), Fault(second, draw.choice(kinds))))
    return plans

"""Several stores driven in lockstep: they must answer alike; what each chooses freely (tokens, numbers) is set aside."""

from __future__ import annotations

import asyncio
import shutil
import tempfile
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import msgspec
from hypothesis.stateful import RuleBasedStateMachine

from agentq.message import (
    Beat,
    Cancelled,
    Claim,
    Command,
    Entry,
    EntryKind,
    Reply,
    Run,
    RunQuery,
    RunState,
    Settlement,
    Verdict,
    Wait,
    Write,
)
from agentq.testing.clock import SimulatedClock
from agentq.testing.conformance.bench import Bench, signal, timer

if TYPE_CHECKING:
    from collections.abc import Callable

    from agentq.stores.base import Store

RUNS = ("run-a", "run-b", "run-c", "run-d")


@dataclass
class Held:
    """A claim as each store gave it, and what its owner believes."""

    twins: tuple[Claim, ...]
    live: bool = True
    """Whether the claim is the run's owner by the rules."""
    last: Write | None = None
    """What was sent last, with the first store's token."""
    settlement: Settlement | None = None
    """What it was settled with: the same once more is a repetition and adds nothing."""

    @property
    def run_id(self) -> str:
        return self.twins[0].run.id


@dataclass
class Known:
    """What must be true of a run by what was answered so far."""

    epoch: int = 0
    journal: list[Entry] = field(default_factory=list)
    signals: int = 0


class Lockstep(RuleBasedStateMachine):
    """The stores, the claims that were given out, and what is known of each run; subclasses add what is done to them."""

    openers: ClassVar[tuple[Callable[[SimulatedClock, Path], Any], ...]] = ()

    def __init__(self) -> None:
        super().__init__()
        self.clock = SimulatedClock()
        self.runner = asyncio.Runner()
        self.exits = AsyncExitStack()
        self.folder = Path(tempfile.mkdtemp(prefix="agentq-"))
        self.held: list[Held] = []
        self.known: dict[str, Known] = {}
        self.tombstones: dict[str, float] = {}
        """Id to the time of its end."""
        self.benches = [Bench(store, self.clock, store) for store in self.runner.run(self._open())]

    async def _open(self) -> list[Store]:
        return [await self.exits.enter_async_context(opened(self.clock, self.folder)) for opened in self.openers]

    def teardown(self) -> None:
        try:
            self.everything_ends()
        finally:
            self.runner.run(self.exits.aclose())
            self.runner.close()
            shutil.rmtree(self.folder)

    def each(self, call: Callable[[Bench, int], Any], plain: Callable[[Any], Any] = lambda answer: answer) -> list[Any]:
        """Call every store; what ``plain`` makes of the answers must be the same for all."""

        async def calls() -> list[Any]:
            return [await call(bench, n) for n, bench in enumerate(self.benches)]

        answers = self.runner.run(calls())
        shown = [plain(answer) for answer in answers]
        assert all(other == shown[0] for other in shown), "the stores differ:\n" + "\n".join(map(str, shown))
        return answers

    def everything_ends(self) -> None:
        """Called before the stores are closed."""

    def pick(self, pick: int) -> Held:
        """Mostly live claims; zombies too."""
        live = [held for held in self.held if held.live]
        return live[pick % len(live)] if live and pick < 9 else self.held[pick % len(self.held)]

    def send(self, held: Held, **parts: Any) -> Verdict:
        write = Write(ref=held.twins[0].ref, **{name: part for name, part in parts.items() if name != "signals"})
        held.last = msgspec.structs.replace(write, signals=parts.get("signals", ()))
        flagged = held.live and self.look(held.run_id)[0].cancelling
        last = held.last
        repeats = not held.live and write.settle is not None and write.settle == held.settlement
        verdict: Verdict = self.each(
            lambda bench, n: bench.store.write(self.as_seen_by(held, last, n)), lambda verdict: None if repeats else verdict
        )[0]
        if not held.live:
            assert verdict is Verdict.FENCED or repeats, "a zombie writes nothing"
            return verdict
        refused = flagged and bool(write.children)
        cancels = flagged and write.settle is not None and not isinstance(write.settle, Cancelled)
        assert verdict is (Verdict.CANCELLED if refused or cancels else Verdict.COMMITTED)
        if not refused:
            held.live = write.settle is None
            held.settlement = write.settle
            self.known[held.run_id].journal += write.entries
        return verdict

    def as_seen_by(self, held: Held, write: Write, n: int) -> Write:
        """The write with the token, and the signal numbers, that store ``n`` gave out."""
        numbers = write.signals[n : n + 1] if len(write.signals) == len(self.benches) else ()
        return msgspec.structs.replace(write, ref=held.twins[n].ref, signals=numbers)

    def command(self, command: Command) -> Reply:
        reply: Reply = self.each(lambda bench, _: bench.store.command(command))[0]
        return reply

    def seq(self, held: Held) -> int:
        return len(self.known[held.run_id].journal)

    def entries(self, held: Held, count: int) -> tuple[Entry, ...]:
        epoch, first = held.twins[0].ref.epoch, self.seq(held)
        return tuple(
            Entry(seq=seq, kind=EntryKind.DONE, step="step", occurrence=seq, epoch=epoch, value=b"1", tokens=1)
            for seq in range(first, first + count)
        )

    def some_waits(self, held: Held) -> tuple[Wait, ...]:
        seq = self.seq(held)
        return (
            signal(occurrence=seq),
            timer(self.clock.wall() + 25, occurrence=seq, branch="0"),
            signal("stop", occurrence=seq, due_at=self.clock.wall() + 40, branch="1"),
        )

    def all_runs(self) -> list[Run]:
        found: list[Run] = self.each(lambda bench, _: bench.store.runs(RunQuery(limit=99)))[0]
        return found

    def look(self, run_id: str) -> tuple[Run, list[Entry], list[Wait]]:
        [run] = self.each(lambda bench, _: bench.store.runs(RunQuery(ids=(run_id,))), lambda found: None)[0][:1]
        return run, self.journal(run_id), self.waits(run_id)

    def state(self, run_id: str) -> RunState:
        return self.look(run_id)[0].state

    def journal(self, run_id: str) -> list[Entry]:
        found: list[Entry] = self.each(lambda bench, _: bench.store.journal(run_id))[0]
        return found

    def waits(self, run_id: str) -> list[Wait]:
        found: list[Wait] = self.each(
            lambda bench, _: bench.store.waits(run_id),
            lambda waits: sorted(waits, key=lambda w: (w.branch, w.step, w.occurrence)),
        )[0]
        return found


def plain_claims(claims: list[Claim]) -> object:
    return [(claim.ref.epoch, claim.run, claim.journal, set(map(str, claim.waits)), claim.snapshots) for claim in claims]


def plain_beat(beat: Beat) -> object:
    lost = [(ref.run_id, ref.epoch) for ref in beat.lost]
    return lost, sorted(beat.cancel), sorted(beat.pause), sorted(beat.arrivals), beat.state


def plain_inbox(arrivals: list[Any]) -> object:
    return [msgspec.structs.replace(arrival, signal=0) for arrival in arrivals]


def plain_census(census: Any) -> object:
    queues = [msgspec.structs.replace(queue, oldest_age_s=0.0) for queue in census.queues]
    return queues, sorted(worker.id for worker in census.workers)

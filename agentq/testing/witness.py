"""What must hold after every operation of a run, and who looks whether it does."""

from __future__ import annotations

import asyncio
from collections import Counter

import msgspec

from agentq.brokers.base import Broker
from agentq.message import Entry, EntryKind, Failure, LetterQuery, Run, RunQuery, RunState
from agentq.scope import Frame
from agentq.stores.base import Store
from agentq.testing.mortal import Fault
from agentq.worker.steps import INTERRUPTED, step_key

ALL_RUNS = RunQuery(limit=100_000)


class Broken(AssertionError):
    """A rule did not hold; the message names the rule, the run and the fault that shows it again."""


class Inboxes:
    """The queues of a broker that a run may lie in."""

    def __init__(self, broker: Broker, queues: tuple[str, ...]) -> None:
        """Look at ``queues`` of ``broker``."""
        self._broker = broker
        self._queues = queues

    async def empty(self) -> bool:
        """Whether nothing is there, as far as the broker can tell for sure."""
        found = await self._broker.backlog(self._queues)
        return not any(each.ready + each.delayed + each.taken or each.error or each.approximate for each in found)


class Witness:
    """Looks at the store after every operation and at every step body, and knows what must not be."""

    def __init__(self, store: Store, run_id: str, faults: tuple[Fault, ...], *, inboxes: Inboxes | None = None) -> None:
        """Look at ``store`` and, if there is one, at the broker in front of it."""
        self._store = store
        self._run_id = run_id
        self._inboxes = inboxes
        self._told = " and ".join(map(str, faults)) or "no fault"
        self._journals: dict[str, list[Entry]] = {}
        self._epochs: dict[str, int] = {}
        self._recorded: dict[str, Entry] = {}
        self._looking = asyncio.Lock()
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
        """Check the whole store, and that the run is there or its message."""
        async with self._looking:  # an older view must not be held against a newer one
            await self._look(operation)

    async def _look(self, operation: str) -> None:
        runs = await self._store.runs(ALL_RUNS)
        for run in runs:
            await self._look_at(run, operation)
        if self._inboxes is not None:
            if all(run.id != self._run_id for run in runs) and await self._inboxes.empty():
                self._fail(f"run {self._run_id} has neither a row nor a message after {operation}")
            for letter in await self._store.letters(LetterQuery(limit=1)):
                self._fail(f"a message became a dead letter in {operation}: {letter.reason}")

    async def ending(self) -> tuple[RunState, bytes | None, str | None]:
        """How the run ended."""
        (run,) = await self._store.runs(RunQuery(ids=(self._run_id,)))
        return run.state, run.result, run.failure.type if run.failure and run.state is RunState.FAILED else None

    def interrupted(self) -> str | None:
        """Name a step that may happen at most once and failed because it was interrupted, in any run of the scene."""
        for entry in (entry for journal in self._journals.values() for entry in journal if entry.kind is EntryKind.FAILED):
            if entry.value is not None and msgspec.json.decode(entry.value, type=Failure).type == INTERRUPTED:
                return entry.step
        return None

    async def _look_at(self, run: Run, operation: str) -> None:
        if run.epoch < self._epochs.get(run.id, 0):
            self._fail(f"the epoch of run {run.id} fell from {self._epochs[run.id]} to {run.epoch} in {operation}")
        self._epochs[run.id] = run.epoch
        waits = await self._store.waits(run.id)
        wrong = _unfit(run, waits=bool(waits))
        if wrong and await self._store.runs(RunQuery(ids=(run.id,))) == [run]:  # else it moved between the two readings
            self._fail(f"{wrong} after {operation}")
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


def _unfit(run: Run, *, waits: bool) -> str:
    """What is wrong with a run in this state; empty where nothing is."""
    if run.state is RunState.RUNNING and run.owner is None:
        return f"run {run.id} is running without an owner"
    if run.state is RunState.WAITING and not waits:
        return f"run {run.id} waits for nothing"
    if run.state.final and (waits or run.owner is not None):
        return f"run {run.id} is {run.state} and still has a wait or an owner"
    return ""

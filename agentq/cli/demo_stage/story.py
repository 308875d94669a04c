"""What happens in the demo, told from looks at the store: labels of runs, resumptions, and one line per event."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import msgspec

from agentq.cli.demo_stage.crew import Crew
from agentq.cli.demo_stage.tally import Resumption
from agentq.cli.text import count
from agentq.message import Entry, EntryKind, Run, RunState, Wait, Worker


@dataclass(frozen=True, slots=True)
class Event:
    """One line of the story. ``tone`` picks its colour: ``plain``, ``bad``, ``warn`` or ``good``."""

    at_s: float
    """Seconds since the demo began."""
    text: str
    tone: str = "plain"


@dataclass(frozen=True, slots=True, kw_only=True)
class Look:
    """The store at one moment."""

    at_s: float
    runs: list[Run]
    """Oldest first."""
    workers: tuple[Worker, ...]
    asks: dict[str, Wait]
    """Run to the question that it waits for an answer to."""

    def owned_by(self, worker_id: str) -> list[Run]:
        """Running runs of a worker."""
        return [run for run in self.runs if run.owner == worker_id and run.state is RunState.RUNNING]

    def worker_of(self, pid: int) -> Worker | None:
        """The row of a process."""
        return next((worker for worker in self.workers if worker.pid == pid), None)


@dataclass(frozen=True, slots=True)
class Struck:
    """A run whose worker was killed or drained, and which nobody has gone on with yet."""

    cause: str
    epoch: int


@dataclass(slots=True)
class Story:
    """Everything that was seen so far."""

    crew: Crew
    labels: dict[str, str] = field(default_factory=dict)
    events: list[Event] = field(default_factory=list)
    resumptions: list[Resumption] = field(default_factory=list)
    struck: dict[str, Struck] = field(default_factory=dict)
    goals: dict[str, str] = field(default_factory=dict)
    """Run to what it is asked."""
    marks: dict[str, int] = field(default_factory=dict)
    """Run to the step at which it was last resumed, for the screen."""
    steps: dict[str, str] = field(default_factory=dict)
    """Run to the last of the agent's own steps that was seen."""
    _waited: set[str] = field(default_factory=set)
    _states: dict[str, RunState] = field(default_factory=dict)

    def tell(self, at_s: float, text: str, tone: str = "plain") -> None:
        """Add an event."""
        self.events.append(Event(at_s, text, tone))

    def label(self, run: Run) -> str:
        """``3`` for the third run, ``3.2`` for its second child."""
        if run.id not in self.labels:
            above = self.labels.get(run.parent_id or "")
            siblings = [label for label in self.labels.values() if label.rpartition(".")[0] == (above or "")]
            self.labels[run.id] = f"{above}.{len(siblings) + 1}" if above else str(len(siblings) + 1)
        return self.labels[run.id]

    def strike(self, at_s: float, cause: str, runs: Sequence[Run], text: str) -> None:
        """Note that a worker was killed or drained while it worked on ``runs``."""
        self.tell(at_s, text, "bad" if cause == "kill" else "warn")
        self.struck.update({run.id: Struck(cause, run.epoch) for run in runs})

    def gone_on(self, look: Look) -> list[Run]:
        """Return the struck runs that somebody has gone on with, for `resumed`; comes before `see`."""
        for run in look.runs:
            self.label(run)
            if run.state.final and run.id in self.struck and run.epoch == self.struck[run.id].epoch:
                del self.struck[run.id]  # it ended before the signal did
        return [run for run in look.runs if run.id in self.struck and run.epoch > self.struck[run.id].epoch]

    def see(self, look: Look) -> None:
        """Take in a look, and tell what has changed since the one before."""
        for run in look.runs:
            label = self.label(run)
            if run.id not in self.goals:
                self.goals[run.id] = f"{run.task} {msgspec.json.decode(run.args).get('module', '')}".strip()
            if run.last_step and not run.last_step.startswith(("ctx.", "transcript:")):
                self.steps[run.id] = run.last_step
            before, self._states[run.id] = self._states.get(run.id), run.state
            if before is not run.state and before is not None:
                self._changed(look, run, label)

    def resumed(self, at_s: float, run: Run, journal: Sequence[Entry], owner: Worker | None) -> None:
        """Tell at which step a struck run went on, counted from its journal."""
        struck = self.struck.pop(run.id)
        done = sum(entry.kind is EntryKind.DONE and entry.epoch <= struck.epoch for entry in journal)
        self.resumptions.append(Resumption(run_id=run.id, cause=struck.cause, at_step=done))
        self.marks[run.id] = done
        member = self.crew.by_pid(owner.pid) if owner else None
        where = f" by {member.name}" if member else ""
        self.tell(at_s, f"run {self.label(run)} resumed{where} after its {done} finished steps", "good")

    def _changed(self, look: Look, run: Run, label: str) -> None:
        if run.state is RunState.SUCCEEDED and run.parent_id is None:
            self.tell(look.at_s, f"run {label} finished: {run.steps} steps", "good")
        elif run.state in {RunState.FAILED, RunState.CANCELLED}:
            why = run.failure.message if run.failure else "no reason recorded"
            self.tell(look.at_s, f"run {label} {run.state}: {why}", "bad")
        elif run.state is RunState.WAITING and run.id not in look.asks:
            children = sum(child.parent_id == run.id for child in look.runs)
            if children and run.id not in self._waited:
                self._waited.add(run.id)
                self.tell(look.at_s, f"run {label} waits for {count(children, 'child', 'children')} and needs no slot")

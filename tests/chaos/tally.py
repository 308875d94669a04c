"""Judges a storm afterwards, from the log of the step bodies and from the store: nothing is taken on a worker's word."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import msgspec

from agentq.message import Entry, EntryKind, Run, RunState


@dataclass(frozen=True, slots=True, kw_only=True)
class Line:
    """One line of the log."""

    run_id: str
    step: int
    fence: str
    pid: int
    phase: str


@dataclass(slots=True, kw_only=True)
class Tally:
    """What a storm did. ``violations`` is empty when every promise was kept."""

    runs: int
    steps: int
    kills: int = 0
    slots: int = 0
    lost: int = 0
    endings: list[str] = field(default_factory=list)
    """Of the lost."""
    committed_twice: int = 0
    reexecuted: int = 0
    replayed_bodies: int = 0
    """Bodies that ran although a later step of the run had begun: their commit was lost."""
    gaps: int = 0
    wrong_results: int = 0
    taken_over: int = 0
    took_s: float = 0.0
    outages: list[str] = field(default_factory=list)
    violations: list[str] = field(default_factory=list)

    @property
    def bound(self) -> int:
        """How many bodies the kills may have cost: one per slot and kill."""
        return self.kills * self.slots

    def judge(self) -> None:
        """Fill ``violations`` from the numbers."""
        promises = {
            "runs were lost": self.lost,
            "steps were committed twice": self.committed_twice,
            "bodies ran although their step was committed": self.replayed_bodies,
            "journals have gaps": self.gaps,
            "results are wrong": self.wrong_results,
        }
        self.violations += [f"{count} {what}" for what, count in promises.items() if count]
        if self.reexecuted > self.bound:
            self.violations.append(f"{self.reexecuted} steps were executed again, more than {self.bound} = kills x slots")

    def __str__(self) -> str:
        """The tally as a person reads it."""
        rows = {
            "runs": self.runs,
            "steps of each": self.steps,
            "workers killed": self.kills,
            "runs taken over": self.taken_over,
            "runs lost": "; ".join([str(self.lost), *self.endings[:5]]),
            "steps committed twice": self.committed_twice,
            "bodies run again after their commit": self.replayed_bodies,
            "journals with gaps": self.gaps,
            "wrong results": self.wrong_results,
            "steps executed again": f"{self.reexecuted} (at most {self.bound} = kills x slots)",
            "servers taken away": "; ".join(self.outages) or "none",
            "seconds": f"{self.took_s:.1f}",
            "violations": "; ".join(self.violations) or "none",
        }
        return "\n".join(f"{name:38} {value}" for name, value in rows.items())


def read_log(path: Path) -> list[Line]:
    """The log in the order in which it was written, which is the order in which it happened."""
    if not path.exists():
        return []
    return [
        Line(run_id=run_id, step=int(step), fence=fence, pid=int(pid), phase=phase)
        for run_id, step, fence, pid, phase in (text.split() for text in path.read_text().splitlines())
    ]


def count_bodies(tally: Tally, log: Sequence[Line]) -> None:
    """Executions beyond the first of each step, and those that must never have happened."""
    begun: Counter[tuple[str, int]] = Counter()
    furthest: dict[str, int] = {}
    for line in log:
        if line.phase != "begin":
            continue
        begun[line.run_id, line.step] += 1
        if line.step < furthest.get(line.run_id, 0):
            tally.replayed_bodies += 1
        furthest[line.run_id] = max(line.step, furthest.get(line.run_id, 0))
    tally.reexecuted += sum(count - 1 for count in begun.values())


def count_run(tally: Tally, run: Run | None, journal: Sequence[Entry], result: str, steps: int) -> None:
    """One run as the store holds it, against the ``result`` it must have."""
    if run is None or run.state is not RunState.SUCCEEDED or run.result is None:
        tally.lost += 1
        why = "there is no row" if run is None else f"{run.id} is {run.state}: {run.failure.type if run.failure else '?'}"
        tally.endings.append(why)
        return
    tally.taken_over += run.takeovers > 0
    tally.wrong_results += msgspec.json.decode(run.result) != result
    tally.gaps += [entry.seq for entry in journal] != list(range(len(journal)))
    done = Counter(entry.identity for entry in journal if entry.kind is EntryKind.DONE)
    tally.committed_twice += sum(count - 1 for count in done.values())
    if len(done) != steps:
        tally.violations.append(f"run {run.id} holds {len(done)} steps instead of {steps}")


def judge(
    tally: Tally,
    log: Sequence[Line],
    runs: Mapping[str, Run],
    journals: Mapping[str, Sequence[Entry]],
    results: Mapping[str, str],
) -> Tally:
    """Complete ``tally`` from the log, the store's runs and journals, and the ``results`` that the runs must have."""
    count_bodies(tally, log)
    for run_id, result in results.items():
        count_run(tally, runs.get(run_id), journals.get(run_id, ()), result, tally.steps)
    tally.judge()
    return tally

"""What the marks of all units add up to; pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from itertools import pairwise
from typing import Literal

Ending = Literal["done", "cut", "open"]
UnitId = tuple[str, int]
"""Task and number."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Performance:
    """One going through one unit."""

    task: str
    number: int
    execution: str
    begin: float
    end: float
    ending: Ending

    @property
    def unit(self) -> UnitId:
        """Which unit it is."""
        return self.task, self.number


@dataclass(frozen=True, slots=True, kw_only=True)
class Tally:
    """What became of some tasks. All times are in seconds."""

    complete: int
    """Tasks of which every unit was done."""
    never_done: int
    """Units that nobody has done."""
    done_again: int
    """Times that a unit was done after it had been done."""
    repeated_s: float
    """Work beyond each unit's first: done again, or begun and not finished."""
    lost_s: float
    """Work done for tasks that nobody goes on with, though they are not complete."""
    overlap_s: float
    """For how long a task was worked on by two at once, each further one counted too."""
    executions: int
    """How often a task was begun, or gone on with in another place."""
    finished_s: float | None
    """When the last unit was done for the first time, from the first beginning; None: some are missing."""


def performances(lines: Iterable[str], ended: Mapping[int, float], now: float) -> list[Performance]:
    """Read the marks. What a worker had begun lasted until it ``ended`` (by process group), else until ``now``."""
    begun: dict[tuple[str, str, str], tuple[float, int]] = {}
    found: list[Performance] = []

    def add(key: tuple[str, str, str], end: float, ending: Ending) -> None:
        task, number, execution = key
        begin = begun.pop(key)[0]
        found.append(
            Performance(task=task, number=int(number), execution=execution, begin=begin, end=max(begin, end), ending=ending)
        )

    for line in lines:
        task, number, execution, worker, what, at = line.split()
        key = task, number, execution
        if what == "begin":
            begun[key] = float(at), int(worker)
        else:
            add(key, float(at), "done" if what == "done" else "cut")
    for key, (_, group) in list(begun.items()):
        add(key, ended.get(group, now), "cut" if group in ended else "open")
    return found


def tally(found: Iterable[Performance], *, tasks: int, units: int, unit_s: float) -> Tally:
    """Add up. Each unit was to be done once, in ``unit_s`` seconds."""
    found = sorted(found, key=lambda performance: performance.end)
    first: dict[UnitId, float] = {}
    for each in found:
        if each.ending == "done":
            first.setdefault(each.unit, each.end)
    done = sum(each.ending == "done" for each in found)
    # A sleep that takes a moment more than it was asked to repeats nothing; nor does a unit under way, unless it was done.
    spent = sum(min(each.end - each.begin, unit_s) for each in found if each.ending != "open" or each.unit in first)
    by_task = {task: sum(unit[0] == task for unit in first) for task in {each.task for each in found}}
    given_up = {task for task, count in by_task.items() if count < units} - {
        each.task for each in found if each.ending == "open"
    }
    whole = len(first) == tasks * units
    return Tally(
        complete=sum(count == units for count in by_task.values()),
        never_done=tasks * units - len(first),
        done_again=done - len(first),
        repeated_s=max(0.0, spent - len(first) * unit_s),
        lost_s=sum(by_task[task] for task in given_up) * unit_s,
        overlap_s=sum(_overlap_s([each for each in found if each.task == task]) for task in by_task),
        executions=len({each.execution for each in found}),
        finished_s=max(first.values()) - min(each.begin for each in found) if whole else None,
    )


def _overlap_s(found: list[Performance]) -> float:
    """The seconds that lie in two of these, twice those that lie in three, and so on."""
    steps = sorted([(each.begin, 1) for each in found] + [(each.end, -1) for each in found])
    total, depth = 0.0, 0
    for (at, change), (until, _) in pairwise(steps):
        depth += change
        total += max(0, depth - 1) * (until - at)
    return total

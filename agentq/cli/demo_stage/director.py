"""Decide when to take a worker away, and which: so that it hurts most."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field

from agentq.cli.demo_agent.effects import Effect
from agentq.cli.demo_stage.crew import Crew, Fate, Member
from agentq.cli.demo_stage.story import Look
from agentq.message import Run

_STEPS = 2
"""A run must have finished so many steps before its worker is worth killing."""
_REPLACED_AFTER_S = 1.0
_DRAIN_AFTER_S = 3.0


@dataclass(frozen=True, slots=True)
class Target:
    """A worker to take away, what it works on, and the steps whose bodies it is in the middle of."""

    member: Member
    runs: list[Run]
    inside: list[Effect]


@dataclass(slots=True)
class Director:
    """The script of the demo: one kill, one drain, and a replacement for each."""

    crew: Crew
    not_before_s: float
    """Earliest moment of the kill, in seconds from the beginning."""
    killed_at_s: float | None = None
    drained_at_s: float | None = None
    _replace_at_s: list[float] = field(default_factory=list)

    def to_kill(self, look: Look, effects: Sequence[Effect]) -> Target | None:
        """Return the busiest worker that is in the middle of a step of a run with finished steps, once it is time."""
        if self.killed_at_s is not None or look.at_s < self.not_before_s:
            return None
        targets = [target for target in self._targets(look, effects) if target.inside]
        best = max(targets, key=lambda target: (len(target.inside), sum(run.steps for run in target.runs)), default=None)
        if best:
            self.killed_at_s = look.at_s
            self._replace_at_s.append(look.at_s + _REPLACED_AFTER_S)
        return best

    def to_drain(self, look: Look, effects: Sequence[Effect]) -> Target | None:
        """Return another busy worker, a while after the kill."""
        if self.drained_at_s is not None or self.killed_at_s is None or look.at_s < self.killed_at_s + _DRAIN_AFTER_S:
            return None
        best = max(self._targets(look, effects), key=lambda t: (len(t.runs), sum(r.steps for r in t.runs)), default=None)
        if best:
            self.drained_at_s = look.at_s
            self._replace_at_s.append(look.at_s + _REPLACED_AFTER_S)
        return best

    def replacements(self, at_s: float) -> list[Member]:
        """Start the workers that are due to replace others."""
        due = [moment for moment in self._replace_at_s if moment <= at_s]
        self._replace_at_s = [moment for moment in self._replace_at_s if moment > at_s]
        return [self.crew.start() for _ in due]

    def _targets(self, look: Look, effects: Sequence[Effect]) -> list[Target]:
        bodies = unfinished(effects)
        targets = []
        for member in self.crew.members:
            worker = look.worker_of(member.pid)
            if member.fate is not Fate.WORKING or not member.alive or worker is None:
                continue
            runs = look.owned_by(worker.id)
            far = {run.id for run in runs if run.steps >= _STEPS}
            if far:
                targets.append(Target(member, runs, [e for e in bodies[member.pid] if e.run in far]))
        return targets


def unfinished(effects: Sequence[Effect]) -> dict[int, list[Effect]]:
    """Process id to the bodies that began in it and have not ended."""
    bodies: dict[tuple[int, str, str], Effect] = {}
    for effect in effects:
        place = (effect.pid, effect.run, effect.key)
        if effect.what == "began":
            bodies[place] = effect
        else:
            bodies.pop(place, None)
    by_pid: dict[int, list[Effect]] = defaultdict(list)
    for (pid, _, _), effect in bodies.items():
        by_pid[pid].append(effect)
    return by_pid

"""Count what really happened, from two sources that do not know of each other: the store and the effects file."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from agentq.cli.demo_agent.effects import Effect
from agentq.message import Entry, EntryKind, Run, RunState

STEPS = frozenset({"think", "digest", "list", "search", "read", "count", "rank"})
"""The agent's own steps: those that also write to the effects file."""

_COMMIT_S = 1.0
"""A body that ended longer than this before its process was killed must be in the journal."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Tally:
    """The demo in numbers, each counted."""

    runs: int
    """Runs in the store, children included."""
    children: int
    succeeded: int
    lost: int
    """Runs that did not succeed, and enqueued runs that the store does not know."""
    committed: int
    """The agent's steps in the journals."""
    twice: int
    """Journal places that hold more than one result."""
    gaps: int
    """Journals whose entries are not numbered 0, 1, 2, …"""
    executed: int
    """Step bodies that began, by the effects file."""
    repeated: int
    """…of these, bodies of a step that had begun before."""
    by_kill: int
    """…of these, because the first body was not recorded yet when its process was killed."""
    by_failure: int
    """…of these, because the body before it failed."""
    unexplained: int
    """Steps in a journal without a body that ended, or bodies that ended without being in a journal."""
    resumed_after_kill: int
    resumed_after_drain: int
    kept: int
    """Finished steps that resumed runs did not have to repeat."""

    @property
    def true(self) -> bool:
        """Whether agentq kept its promises."""
        explained = self.repeated == self.by_kill + self.by_failure
        return explained and not (self.lost or self.twice or self.gaps or self.unexplained)


@dataclass(frozen=True, slots=True, kw_only=True)
class Resumption:
    """A run that another worker went on with."""

    run_id: str
    cause: str
    """``kill`` or ``drain``."""
    at_step: int
    """Steps that were finished before."""


def count(
    enqueued: Sequence[str],
    runs: Sequence[Run],
    journals: Mapping[str, Sequence[Entry]],
    effects: Sequence[Effect],
    resumptions: Sequence[Resumption],
    killed: Mapping[int, float],
) -> Tally:
    """Count. ``journals`` maps the id of every run to its whole journal, ``killed`` a process id to when it was killed."""
    known = {run.id: run for run in runs}
    succeeded = sum(run.state is RunState.SUCCEEDED for run in runs)
    places = Counter((run_id, *e.identity) for run_id, journal in journals.items() for e in journal if e.kind is EntryKind.DONE)
    committed = {place: n for place, n in places.items() if place[2] in STEPS}
    ended = {(effect.run, effect.key) for effect in effects if effect.what == "ended"}
    repeats = _repeats(effects, killed)
    return Tally(
        runs=len(known),
        children=sum(run.parent_id is not None for run in runs),
        succeeded=succeeded,
        lost=len(known) - succeeded + sum(run_id not in known for run_id in enqueued),
        committed=len(committed),
        twice=sum(n > 1 for n in places.values()),
        gaps=sum([entry.seq for entry in journal] != list(range(len(journal))) for journal in journals.values()),
        executed=sum(effect.what == "began" for effect in effects),
        repeated=repeats.total(),
        by_kill=repeats["kill"],
        by_failure=repeats["failure"],
        unexplained=abs(len(ended) - len(committed)),
        resumed_after_kill=sum(r.cause == "kill" for r in resumptions),
        resumed_after_drain=sum(r.cause == "drain" for r in resumptions),
        kept=sum(r.at_step for r in resumptions),
    )


def _repeats(effects: Sequence[Effect], killed: Mapping[int, float]) -> Counter[str]:
    """Why bodies of a step ran that had run before: ``kill``, ``failure`` or ``?``."""
    last: dict[tuple[str, str], Effect] = {}
    why: Counter[str] = Counter()
    for effect in effects:
        before = last.get((effect.run, effect.key))
        last[effect.run, effect.key] = effect
        if effect.what != "began" or before is None:
            continue
        if before.what == "failed":
            why["failure"] += 1
        elif before.pid in killed and (before.what == "began" or killed[before.pid] - before.at < _COMMIT_S):
            why["kill"] += 1
        else:
            why["?"] += 1
    return why

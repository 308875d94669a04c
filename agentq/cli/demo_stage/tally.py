"""Count what really happened, from two sources that do not know of each other: the store and the effects file."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from agentq.cli.demo_agent.effects import Effect
from agentq.message import Entry, EntryKind, Run, RunState

STEPS = frozenset({"think", "digest", "list", "search", "read", "count", "rank"})
"""The agent's own steps: those that also write to the effects file."""


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
    interrupted: int
    """Bodies that began and never ended: their process was killed."""
    failed: int
    """Bodies that ended with an error; their steps may try again."""
    unexplained: int
    """Steps in a journal without a body that ended, or bodies that ended without being in a journal."""
    resumed_after_kill: int
    resumed_after_drain: int
    kept: int
    """Finished steps that resumed runs did not have to repeat."""

    @property
    def true(self) -> bool:
        """Whether agentq kept its promises."""
        return not (self.lost or self.twice or self.gaps or self.unexplained or self.repeated > self.interrupted + self.failed)


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
) -> Tally:
    """Count. ``journals`` maps the id of every run to its whole journal."""
    known = {run.id: run for run in runs}
    succeeded = sum(run.state is RunState.SUCCEEDED for run in runs)
    places = Counter((run_id, *e.identity) for run_id, journal in journals.items() for e in journal if e.kind is EntryKind.DONE)
    committed = {place: n for place, n in places.items() if place[2] in STEPS}
    began = Counter((effect.run, effect.key) for effect in effects if effect.what == "began")
    ended = Counter((effect.run, effect.key) for effect in effects if effect.what == "ended")
    failed = sum(effect.what == "failed" for effect in effects)
    return Tally(
        runs=len(known),
        children=sum(run.parent_id is not None for run in runs),
        succeeded=succeeded,
        lost=len(known) - succeeded + sum(run_id not in known for run_id in enqueued),
        committed=len(committed),
        twice=sum(n > 1 for n in places.values()),
        gaps=sum([entry.seq for entry in journal] != list(range(len(journal))) for journal in journals.values()),
        executed=began.total(),
        repeated=began.total() - len(began),
        interrupted=began.total() - ended.total() - failed,
        failed=failed,
        unexplained=abs(len(ended) - len(committed)),
        resumed_after_kill=sum(r.cause == "kill" for r in resumptions),
        resumed_after_drain=sum(r.cause == "drain" for r in resumptions),
        kept=sum(r.at_step for r in resumptions),
    )

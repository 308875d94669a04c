"""What a transcript says so far, sorted so that the planner can ask it."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from agentq.cli.demo_agent.values import (
    Call,
    Counts,
    Decision,
    Excerpt,
    Finding,
    Hits,
    Listing,
    Measure,
    Observation,
    Ranking,
    Summary,
    Trouble,
    Turn,
)


@dataclass(frozen=True, slots=True)
class View:
    """All observations of a run, by what was asked."""

    turns: int = 0
    listings: dict[str, Listing] = field(default_factory=dict)
    searches: dict[tuple[str, str], Hits] = field(default_factory=dict)
    """(pattern, within) to what it found, in the order of asking."""
    excerpts: dict[tuple[str, int], Excerpt] = field(default_factory=dict)
    measures: dict[str, Measure] = field(default_factory=dict)
    rankings: list[Ranking] = field(default_factory=list)
    summaries: list[Summary] = field(default_factory=list)
    troubles: list[Trouble] = field(default_factory=list)

    @classmethod
    def of(cls, turns: Sequence[Turn]) -> View:
        """Sort a transcript."""
        view = cls(turns=len(turns))
        for turn in turns:
            for seen in turn.observations:
                view._take(seen)
        return view

    def _take(self, seen: Observation) -> None:
        match seen:
            case Listing():
                self.listings[seen.prefix] = seen
            case Hits():
                self.searches[seen.pattern, seen.within] = seen
            case Excerpt():
                self.excerpts[seen.module, seen.line] = seen
            case Counts():
                self.measures.update({m.module: m for m in seen.measures})
            case Ranking():
                self.rankings.append(seen)
            case Summary():
                self.summaries.append(seen)
            case Trouble():
                self.troubles.append(seen)

    def exists(self, module: str) -> bool:
        """Whether a listing showed the module."""
        return module in self.listings and self.listings[module].total > 0

    def read_in(self, module: str) -> list[Excerpt]:
        """Excerpts of one module."""
        return [e for e in self.excerpts.values() if e.module == module]


def asks(why: str, calls: Iterable[Call], *, remaining: int) -> Decision:
    """A decision to use tools."""
    return Decision(why, calls=list(calls), remaining=remaining)


def answers(why: str, answer: str, findings: list[Finding]) -> Decision:
    """A decision to stop."""
    return Decision(why, answer=answer, findings=findings, remaining=0)

"""Whether anything in a run still moves: pure counting, from which suspension and hand-over are decided."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(slots=True)
class Presence:
    """Counts of what a run's lines of code are doing.

    A run is quiet when no step body runs and every line that agentq created (the root and the branches of its gathers)
    waits. Lines that agentq did not create (``asyncio.gather``, a TaskGroup, a framework's tools) cannot be counted, only
    seen when they wait; where there are such, quiet also needs that nothing was called for a while.
    """

    awake: int = 1
    """Own lines that are neither waiting nor joining their branches. The root is the first."""
    bodies: int = 0
    """Step bodies between their begin and their commit."""
    strangers: int = 0
    """Foreign lines that wait."""
    calls: int = 0
    """Verbs begun or ended so far."""

    def rest(self, *, foreign: bool) -> None:
        """Count a line that begins to wait."""
        self.calls += 1
        if foreign:
            self.strangers += 1
        else:
            self.awake -= 1

    def rise(self, *, foreign: bool) -> None:
        """Count a line that goes on."""
        self.calls += 1
        if foreign:
            self.strangers -= 1
        else:
            self.awake += 1

    def begin(self) -> None:
        """Count a step body that begins."""
        self.calls += 1
        self.bodies += 1

    def end(self) -> None:
        """Count a step body whose result is committed."""
        self.calls += 1
        self.bodies -= 1

    @property
    def quiet(self) -> bool:
        """Everything waits, for certain."""
        return self.bodies == 0 and self.awake == 0

    @property
    def perhaps_quiet(self) -> bool:
        """Foreign lines wait and nothing else is known to run; certain once `calls` has not moved for a while."""
        return self.bodies == 0 and self.strangers > 0

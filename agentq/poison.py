"""When a run counts as poison, purely: it has killed what ran it too often without recording anything."""

from __future__ import annotations

from typing import Final

DEATHS: Final = 3
"""So often may a run's own process die while its worker lives: there is nothing else to blame."""
LOSSES: Final = 10
"""So often may the lease of a whole worker run out that ran it alone: an outage or an eviction may be to blame as well."""


def poisoned(deaths: int, losses: int) -> bool:
    """Whether `Run.deaths` and `Run.losses` are too many; a mixture counts by its shares."""
    return deaths * LOSSES + losses * DEATHS >= DEATHS * LOSSES

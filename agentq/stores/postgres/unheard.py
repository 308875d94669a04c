"""Runs that were taken when the connection broke: the answer was lost, the runs are ours all the same."""

from __future__ import annotations

import time
from collections import defaultdict
from typing import TYPE_CHECKING

from agentq.stores.postgres import claims, rows

if TYPE_CHECKING:
    from collections.abc import Sequence

    from agentq.message import ClaimRequest
    from agentq.stores.postgres.connection import Db
    from agentq.stores.postgres.rows import Row


class Unheard:
    """What one worker asked for and got no answer to. Tokens of one taking share a base, by which they are found again."""

    def __init__(self) -> None:
        """Nothing is open."""
        self._until: dict[int, float] = {}
        self._found: dict[int, set[int]] = defaultdict(set)

    def begin(self, lease_s: float) -> int:
        """The base of a new taking, which is open until it is `heard`."""
        base = claims.new_base()
        self._until[base] = time.monotonic() + lease_s
        return base

    def heard(self, base: int, taken: Sequence[Row] = ()) -> None:
        """The answer came; ``taken`` is what is handed out with it, earlier takings included."""
        self._until.pop(base, None)
        for row in taken:
            self._found[rows.token(row) ^ rows.number(row)].add(rows.number(row))
        self._found = defaultdict(set, {open_: found for open_, found in self._found.items() if open_ in self._until})

    async def find(self, db: Db, request: ClaimRequest) -> list[Row]:
        """Runs of earlier takings, each once and no more than asked for. A taking may still be on its way for a lease."""
        for base in [base for base, until in self._until.items() if until < time.monotonic()]:
            self.heard(base)
        if not self._until:
            return []
        taken: list[Row] = []
        for row in await claims.unheard(db, request.worker, list(self._until)):
            n = rows.number(row)
            if n not in self._found[rows.token(row) ^ n] and len(taken) < request.limit:
                taken.append(row)
        return taken

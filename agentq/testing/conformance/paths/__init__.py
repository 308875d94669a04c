"""What every pair of a broker and a store must do with what is enqueued, clause by clause; a store alone is a pair, too.

``await paths.check(PathSetting(store=…, broker=…))`` answers what failed. The clauses need no empty store: each has an app and
a queue of its own, so they may run at once.
"""

from __future__ import annotations

import asyncio

from agentq.testing.conformance.paths import arriving, refusing, steering
from agentq.testing.conformance.paths.bench import PathClause, PathSetting

__all__ = ["CLAUSES", "PathClause", "PathSetting", "check"]

CLAUSES: tuple[PathClause, ...] = tuple(
    clause for module in (arriving, steering, refusing) for clause in vars(module).values() if isinstance(clause, PathClause)
)


async def check(setting: PathSetting, *, at_once: int = 6) -> dict[str, BaseException]:
    """Run every clause that applies, so many of them at once; answer those that failed, by name."""
    failed: dict[str, BaseException] = {}
    room = asyncio.Semaphore(at_once)

    async def run(clause: PathClause) -> None:
        async with room:
            try:
                await clause(setting)
            except Exception as error:  # noqa: BLE001 - whatever a clause raises is its result
                failed[str(clause)] = error

    await asyncio.gather(*(run(clause) for clause in CLAUSES if not clause.does_not_apply(setting)))
    return failed

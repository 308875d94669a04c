"""Tombstones: the ids of runs that were swept, while a broker may still deliver them again."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from agentq.message import Submitted
from agentq.stores.base import TOMBSTONE_S
from agentq.stores.columns import STATES
from agentq.stores.sqlite.rows import marks

if TYPE_CHECKING:
    from collections.abc import Sequence

    from agentq.stores.sqlite.desk import Desk

_BURY: Final = """
insert or replace into tombstone (id, args_hash, state, finished_at)
select id, args_hash, state, finished_at from run where n = ? and parent_id is null and finished_at > ?
"""

_FALLEN: Final = "delete from tombstone where id in (select id from tombstone where finished_at <= ? limit ?)"


def bury(desk: Desk, n: int) -> None:
    """Leave a tombstone of a run that is about to be deleted; children and what ended long ago need none."""
    desk.db.execute(_BURY, (n, desk.wall - TOMBSTONE_S))


def standing(desk: Desk, run_ids: Sequence[str]) -> dict[str, Submitted]:
    """Of those of ``run_ids`` (few enough for one query) that have a tombstone and no row, what is still known."""
    query = (
        f"select id, args_hash, state from tombstone where id in ({marks(run_ids)})"  # noqa: S608
        " and not exists (select 1 from run where run.id = tombstone.id)"
    )
    return {
        run_id: Submitted(id=run_id, created=False, args_hash=args_hash, state=STATES[state])
        for run_id, args_hash, state in desk.db.execute(query, tuple(run_ids))
    }


def fall(desk: Desk, limit: int) -> None:
    """Delete up to ``limit`` whose time is over."""
    desk.db.execute(_FALLEN, (desk.wall - TOMBSTONE_S, limit))

"""Lines: of the unfinished runs of one ordering key one holds it, and the others stand behind in the order of submission."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from agentq.stores.sqlite.desk import Desk

# A key counts within (app, queue), which is as many lanes as the queue has tasks: each is asked for its first by an index.

_LINE_UP: Final = """
update run set behind = 1, ready = 0, wake_at = deadline
where n > ? and ordering_key is not null and exists (
  select 1 from lane as mine cross join lane as its on its.app = mine.app and its.queue = mine.queue
    cross join run as older indexed by run_holder on older.lane = its.id and older.ordering_key = run.ordering_key
  where mine.id = run.lane and older.behind = 0 and older.state < 4 and older.n < run.n)
"""

_HOLDER: Final = """
select run.n, run.epoch from lane cross join run indexed by run_holder on run.lane = lane.id
where lane.app = ? and lane.queue = ? and run.ordering_key = ? and run.behind = 0 and run.state < 4
"""

_NEXT: Final = """
select min(first) from (
  select (select n from run indexed by run_behind where behind = 1 and run.lane = lane.id and ordering_key = ?3
    order by n limit 1) as first
  from lane where app = ?1 and queue = ?2)
"""

_FOLLOW: Final = "update run set behind = 0, since = max(?1, ifnull(due_at, ?1)) where n = ?2"

_STEP_BACK: Final = "update run set behind = 1, ready = 0, wake_at = deadline where n = ?"


def line_up(desk: Desk, newest: int) -> None:
    """Put the runs with numbers over ``newest``, all just made, behind older ones of their keys."""
    desk.db.execute(_LINE_UP, (newest,))


def leave(desk: Desk, n: int, lane: int, key: str) -> None:
    """Take a run that is final now out of its line; the next one follows where nobody holds the key."""
    app, queue, _ = desk.lanes.name(lane)
    desk.db.execute("update run set behind = 0 where n = ? and behind = 1", (n,))
    if desk.db.execute(_HOLDER, (app, queue, key)).fetchone():
        return
    (following,) = desk.db.execute(_NEXT, (app, queue, key)).fetchone()
    if following is not None:
        desk.db.execute(_FOLLOW, (desk.wall, following))
        desk.place(following)
        desk.ring(work=True)


def rejoin(desk: Desk, n: int) -> None:
    """Give a final run that is queued again its old place: behind the holder, unless that is younger and was not begun."""
    lane, key = desk.db.execute("select lane, ordering_key from run where n = ?", (n,)).fetchone()
    if key is None:
        return
    app, queue, _ = desk.lanes.name(lane)
    holder = desk.db.execute(_HOLDER, (app, queue, key)).fetchone()
    if holder is None:
        return
    other, epoch = holder
    desk.db.execute(_STEP_BACK, (n if epoch or other < n else other,))

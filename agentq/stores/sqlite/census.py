"""Queues and workers in numbers: counted from index entries of unfinished runs, however many are final."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import msgspec

from agentq.message import Census, QueueStats, Worker, WorkerState
from agentq.stores.columns import PARKED, QUEUED, RUNNING, WAITING

if TYPE_CHECKING:
    import sqlite3

    from agentq.stores.sqlite.desk import Desk

UNSEEN_LEASES: Final = 3
"""A worker that missed so many leases is left out."""

_HELD: Final = (
    "select state, count(*) from run indexed by run_paused where paused = 1 and lane = ? and state < 4 group by state"
)
_LIVE: Final = "select state, count(*) from run indexed by run_lane where lane = ? and state < 4 group by state"
_BEHIND: Final = "select paused, count(*) from run indexed by run_behind where behind = 1 and lane = ? group by paused"
_READY: Final = "select count(*), min(since) from run indexed by run_ready where ready = 1 and lane = ?"

_DUE: Final = (
    "select lane, state, paused, behind, wake_at from run where wake_at <= ?1 and ready = 0 and (not paused or deadline <= ?1)"
)
_EXPIRED: Final = "select lane, lease_until from run where lease_until <= ? and (cancelling or not paused or deadline <= ?)"

_DEAD: Final = "select queue, count(*) from letter indexed by letter_queue group by queue"

_worker = msgspec.json.Decoder(Worker)


@dataclass(slots=True)
class _Count:
    """One queue, while it is being counted."""

    runnable: int = 0
    delayed: int = 0
    running: int = 0
    waiting: int = 0
    parked: int = 0
    paused: int = 0
    ordered: int = 0
    dead: int = 0
    age_s: float = 0.0
    empty: bool = True

    def move(self, state: int, *, paused: bool, behind: bool, age_s: float) -> None:
        """One run is runnable after all: the next claim promotes it, settles it or takes it over."""
        if behind:
            self.ordered -= 1
        elif paused and state != RUNNING:
            self.paused -= 1
        elif state == RUNNING:
            self.running -= 1
        elif state == WAITING:
            self.waiting -= 1
        else:
            self.delayed -= 1
        self.runnable += 1
        self.age_s = max(self.age_s, age_s)


def census(desk: Desk) -> Census:
    """See `ReaderStore.census`."""
    queues: dict[str, _Count] = {}
    due = desk.db.execute(_DUE, (desk.wall,)).fetchall()
    for (_, queue, _), lane in desk.lanes.load().items():
        _count(desk, lane, queues.setdefault(queue, _Count()))
    for lane, state, paused, behind, wake_at in due:
        queues[desk.lanes.name(lane)[1]].move(state, paused=paused, behind=behind, age_s=desk.wall - wake_at)
    for lane, lease_until in desk.db.execute(_EXPIRED, (desk.steady, desk.wall)):
        queues[desk.lanes.name(lane)[1]].move(RUNNING, paused=False, behind=False, age_s=desk.steady - lease_until)
    for queue, dead in desk.db.execute(_DEAD):
        count = queues.setdefault(queue, _Count())
        count.dead, count.empty = dead, False
    stats = [
        QueueStats(
            queue=queue,
            runnable=count.runnable,
            delayed=count.delayed,
            running=count.running,
            waiting=count.waiting,
            parked=count.parked,
            paused=count.paused,
            ordered=count.ordered,
            dead=count.dead,
            oldest_age_s=count.age_s,
        )
        for queue, count in sorted(queues.items())
        if not count.empty
    ]
    return Census(queues=tuple(stats), workers=tuple(_workers(desk)))


def _count(desk: Desk, lane: int, count: _Count) -> None:
    """Add one lane's runs as their columns say."""
    live = _by_state(desk.db, _LIVE, lane)
    if not live:
        return
    held = _by_state(desk.db, _HELD, lane)
    behind = _by_state(desk.db, _BEHIND, lane)
    ready, since = desk.db.execute(_READY, (lane,)).fetchone()
    count.empty = False
    count.runnable += ready
    count.delayed += live.get(QUEUED, 0) - held.get(QUEUED, 0) - behind.get(0, 0) - ready
    count.ordered += sum(behind.values())
    count.running += live.get(RUNNING, 0)
    count.waiting += live.get(WAITING, 0) - held.get(WAITING, 0)
    count.parked += live.get(PARKED, 0) - held.get(PARKED, 0)
    count.paused += sum(number for state, number in held.items() if state != RUNNING) - behind.get(1, 0)
    if since is not None:
        count.age_s = max(count.age_s, desk.wall - since)


def _by_state(db: sqlite3.Connection, query: str, lane: int) -> dict[int, int]:
    return dict(db.execute(query, (lane,)).fetchall())


def _workers(desk: Desk) -> list[Worker]:
    """Workers seen within three of their leases; lost from the first on."""
    found = desk.db.execute(
        "select data, case when seen + lease_s < ?2 then 'lost' else state end from worker where seen + ?1 * lease_s >= ?2",
        (UNSEEN_LEASES, desk.steady),
    )
    return [msgspec.structs.replace(_worker.decode(data), state=WorkerState(state)) for data, state in found]

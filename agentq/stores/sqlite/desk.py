"""What a verb works with inside one transaction, and the transitions that several verbs share."""

from __future__ import annotations

import hashlib
import sqlite3
from enum import IntEnum
from typing import TYPE_CHECKING, Final

from agentq.message import Failure
from agentq.stores.columns import CANCELLED, FAILED, QUEUED, RUNNING, SUCCEEDED, WAITING, encode
from agentq.stores.sqlite import ordering
from agentq.stores.sqlite.rows import Lanes

if TYPE_CHECKING:
    from agentq.clock import Clock

INLINE_BYTES: Final = 32 * 1024
"""Larger entry values go to blobs, outside the journal's b-tree."""
INLINE_PAYLOAD_BYTES: Final = 4 * 1024
"""Larger arguments and results go to blobs, because every change of a run rewrites its row."""

_NEVER: Final = 9e99

_PLACE: Final = f"""
update run set
  ready = state = {QUEUED} and paused = 0 and behind = 0 and (due_at is null or due_at <= :wall),
  wake_at = nullif(min(ifnull(deadline, {_NEVER}), case
    when state = {QUEUED} and paused = 0 and behind = 0 and due_at > :wall then due_at
    when state = {WAITING} and due_at is not null then due_at
    else {_NEVER} end), {_NEVER})
where n = :n
"""  # noqa: S608 - constants

_QUEUE: Final = f"""
update run set state = {QUEUED}, due_at = :due, rank = ifnull(:rank, submitted_at), since = :since, lease_until = null,
  token = null, owner = null, settled = ifnull(:settled, settled)
where n = :n
"""  # noqa: S608

_FINISH: Final = """
update run set state = :state, ready = 0, wake_at = null, due_at = null, lease_until = null, token = null, owner = null,
  settled = ifnull(:settled, settled), cancelling = 0, finished_at = :wall, result = :result, result_blob = :sha,
  failure = case when :state = 4 then null else ifnull(:failure, failure) end
where n = :n returning lane, ordering_key
"""


class News(IntEnum):
    """How soon readers should hear of a commit."""

    NONE = 0
    STEPS = 1
    """Something moved: now and then is enough."""
    STATES = 2
    """A run changed its state: somebody may wait for it."""


_SUBTREE: Final = """
with recursive tree (n, id) as (
  select n, id from run where n = ?
  union
  select run.n, run.id from run join tree on run.parent_id = tree.id
)
select run.n, run.id, run.state from tree join run on run.n = tree.n
"""


class Desk:
    """One connection at work. ``wall`` and ``steady`` are the transaction's time; rings are kept until it commits."""

    __slots__ = ("clock", "db", "lanes", "news", "steady", "wall", "work")

    def __init__(self, db: sqlite3.Connection, clock: Clock) -> None:
        """Work on ``db``, in whose transaction every method runs."""
        self.db = db
        self.clock = clock
        self.lanes = Lanes(db)
        self.begin()

    def begin(self) -> None:
        """Take the time, forget earlier rings."""
        self.wall = self.clock.wall()
        self.steady = self.clock.steady()
        self.work = False
        self.news = News.NONE

    def ring(self, *, work: bool) -> None:
        """A run changed its state; ``work``: something may be claimable, or a worker has to look."""
        self.news = News.STATES
        self.work = self.work or work

    def keep(self, n: int, data: bytes) -> str:
        """Store a large value by content for run number ``n``; answer its address."""
        sha = hashlib.sha256(data).hexdigest()
        self.db.execute("insert or ignore into blob (sha, data) values (?, ?)", (sha, data))
        self.db.execute("insert or ignore into blob_ref (run, sha) values (?, ?)", (n, sha))
        return sha

    def place(self, n: int) -> None:
        """Set ``ready`` and ``wake_at`` of a queued or waiting run from its other columns."""
        self.db.execute(_PLACE, {"n": n, "wall": self.wall})

    def queue(self, n: int, *, due_at: float | None = None, rank: float | None = None, settled: int | None = None) -> None:
        """Queue a run, not before ``due_at``. ``rank`` None ranks it by its submission: what was begun goes on first."""
        since = self.wall if due_at is None else due_at
        self.db.execute(_QUEUE, {"n": n, "due": due_at, "rank": rank, "since": since, "settled": settled})
        self.place(n)
        self.ring(work=True)

    def wake(self, n: int) -> None:
        """Queue a waiting run at once; a worker that runs it is told to look."""
        state = self.db.execute("select state from run where n = ?", (n,)).fetchone()
        if state is not None and state[0] == WAITING:
            self.queue(n)
        self.work = True

    def finish(
        self,
        n: int,
        run_id: str,
        state: int,
        *,
        result: bytes | None = None,
        failure: Failure | None = None,
        settled: int | None = None,
    ) -> None:
        """Make a run final, wake those that wait for it, and let the next of its ordering key follow."""
        sha: str | None = None
        if result is not None and len(result) > INLINE_PAYLOAD_BYTES:
            sha = self.keep(n, result)
            result = None
        values = {
            "n": n,
            "state": state,
            "wall": self.wall,
            "result": result,
            "sha": sha,
            "settled": settled,
            "failure": None if failure is None else encode(failure),
        }
        lane, key = self.db.execute(_FINISH, values).fetchone()
        self.db.execute("delete from wait where run = ?", (n,))
        self.ring(work=False)
        for (waiter,) in self.db.execute("select run from wait where kind = 'child' and ref = ?", (run_id,)).fetchall():
            self.wake(waiter)
        if state == FAILED and self.db.execute("select 1 from run where parent_id = ? limit 1", (run_id,)).fetchone():
            self.cancel_subtree(n)
        if key is not None:
            ordering.leave(self, n, lane, key)

    def cancel_subtree(self, n: int) -> None:
        """Cancel a run and all below it that is not final: at once, or by the flag where a worker has it."""
        for member, run_id, state in self.db.execute(_SUBTREE, (n,)).fetchall():
            if state == RUNNING:
                self.db.execute("update run set cancelling = 1 where n = ?", (member,))
            elif state < SUCCEEDED:
                # An earlier member's end may have woken this one; it is cancelled all the same.
                self.cancel(member, run_id)
        self.ring(work=True)

    def cancel(self, n: int, run_id: str, *, settled: int | None = None) -> None:
        """Settle a run that nobody runs as cancelled."""
        self.finish(n, run_id, CANCELLED, settled=settled)

    def expire(self, n: int, run_id: str) -> None:
        """Settle a run whose deadline has passed."""
        message = f"the deadline of run {run_id} passed before it was done"
        self.finish(n, run_id, FAILED, failure=Failure(type="DeadlineExceeded", message=message, permanent=True))


assert SUCCEEDED == 4  # noqa: S101, PLR2004 - `_FINISH` says it as a literal

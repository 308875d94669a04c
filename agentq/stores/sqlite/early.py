"""Commands for runs that are still in a broker: kept in order until the run is made."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, TypeAlias

import msgspec

from agentq.message import Cancel, Pause, Reply, Resume, Send
from agentq.stores.columns import encode
from agentq.stores.sqlite import tombstones
from agentq.stores.sqlite.rows import marks

if TYPE_CHECKING:
    from collections.abc import Sequence

    from agentq.message import Command
    from agentq.stores.sqlite.desk import Desk

_Early: TypeAlias = Cancel | Pause | Resume | Send

_command: Final[msgspec.json.Decoder[_Early]] = msgspec.json.Decoder(_Early)


def keep(desk: Desk, command: Command) -> Reply:
    """What becomes of a command whose run nobody knows."""
    if not isinstance(command, _Early) or not command.early or tombstones.standing(desk, (command.run_id,)):
        return Reply.NOT_FOUND
    values = (command.run_id, desk.wall, encode(command))
    desk.db.execute("insert into early (run_id, at, command) values (?, ?, ?)", values)
    return Reply.DONE


def take(desk: Desk, run_ids: Sequence[str], newest: int) -> list[_Early]:
    """Take what waits for those of ``run_ids`` that were just made (numbers over ``newest``), in the order in which it came."""
    query = (
        "select early.k, early.command from early cross join run on run.id = early.run_id"  # noqa: S608 - marks
        f" where early.run_id in ({marks(run_ids)}) and run.n > ? order by early.k"
    )
    found = desk.db.execute(query, (*run_ids, newest)).fetchall()
    desk.db.executemany("delete from early where k = ?", [(k,) for k, _ in found])
    return [_command.decode(raw) for _, raw in found]


def forget(desk: Desk, before: float, limit: int) -> None:
    """Delete up to ``limit`` that were kept at wall time ``before`` or earlier."""
    desk.db.execute("delete from early where k in (select k from early where at <= ? limit ?)", (before, limit))

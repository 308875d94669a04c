"""The in-memory store's lines: of the unfinished runs of one ordering key, who holds it and who stands behind."""

from __future__ import annotations

from bisect import bisect_left, insort
from typing import TYPE_CHECKING, TypeAlias

if TYPE_CHECKING:
    from agentq.stores.memory_rows import Row

Key: TypeAlias = tuple[str, str, str]
"""(app, queue, ordering key)"""


class Lines:
    """Who holds each key. A run without one stands in no line."""

    def __init__(self) -> None:
        """Start with no line."""
        self._holders: dict[Key, Row] = {}
        self._behind: dict[Key, list[Row]] = {}

    def join(self, row: Row) -> None:
        """Give an unfinished run its place; one that was not begun gives way to an older one."""
        key = _key(row)
        if key is None:
            return
        holder = self._holders.get(key)
        if holder is not None and (holder.epoch or holder.order < row.order):
            self._put_behind(key, row)
            return
        if holder is not None:
            self._put_behind(key, holder)
        self._holders[key] = row

    def leave(self, row: Row, now: float) -> None:
        """Take a final run out of its line; the next one follows where it held the key. ``now`` is wall time."""
        key = _key(row)
        if key is None:
            return
        behind = self._behind.get(key, [])
        if row.behind:
            row.behind = False
            del behind[bisect_left(behind, row.order, key=_order)]
        elif behind:
            following = self._holders[key] = behind.pop(0)
            following.behind = False
            following.since = now if following.due_at is None else max(now, following.due_at)
        else:
            del self._holders[key]
        if not behind:
            self._behind.pop(key, None)

    def _put_behind(self, key: Key, row: Row) -> None:
        row.behind = True
        insort(self._behind.setdefault(key, []), row, key=_order)


def _key(row: Row) -> Key | None:
    base = row.base
    return None if base.ordering_key is None else (base.app, base.queue, base.ordering_key)


def _order(row: Row) -> int:
    return row.order

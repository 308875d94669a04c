"""Outages of a store, told once for all who meet them: when one begins, now and again while it lasts, and when it is over."""

from __future__ import annotations

import time
import weakref
from typing import Any, Final

from agentq.telemetry import emit

REMIND_S: Final = 30.0
"""Between two events that say the same outage."""
SOON_S: Final = 10.0
"""What fails so soon after an outage still belongs to it: an answer that came late."""


class Outage:
    """Whether a store answers, as all those say who ask it. Belongs to one event loop."""

    def __init__(self, where: str) -> None:
        """``where`` names the store for people."""
        self._where = where
        self._since: float | None = None
        self._told_at: float | None = None
        """When it was said last in this outage."""
        self._ended_at = float("-inf")

    def met(self, error: BaseException, **fields: Any) -> None:
        """Note that the store did not answer; tell it if that is news, or was last said long ago."""
        now = time.monotonic()
        self._since = now if self._since is None else self._since
        if (now - self._ended_at if self._told_at is None else now - self._told_at - REMIND_S + SOON_S) >= SOON_S:
            self._told_at = now
            emit("store.unavailable", **fields, store=self._where, error=str(error) or "no answer in time")

    def over(self, **fields: Any) -> None:
        """Note that it answered; tell it if the outage was told."""
        if self._since is None:
            return
        now, since = time.monotonic(), self._since
        if self._told_at is not None:
            emit("store.recovered", **fields, store=self._where, duration_s=now - since)
            self._ended_at = now
        self._since = self._told_at = None


_known: weakref.WeakKeyDictionary[Any, Outage] = weakref.WeakKeyDictionary()


def outage_of(store: Any) -> Outage:
    """The one of ``store``, which everybody shares."""
    found = _known.get(store)
    if found is None:
        found = _known[store] = Outage(store.where)
    return found

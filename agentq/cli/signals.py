"""SIGTERM and SIGINT: the first drains, the second stops at once. Only the command line installs signal handlers."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass


@dataclass(slots=True)
class Asked:
    """What the person or the platform asked for."""

    first: signal.Signals | None = None
    times: int = 0

    @property
    def exit_code(self) -> int:
        """128 plus the signal, as shells report it; 0 if there was none."""
        return 128 + self.first if self.first else 0


@contextmanager
def stopping(drain: Callable[[str], object], abort: Callable[[], object]) -> Iterator[Asked]:
    """While this is entered, on a running loop, signals call ``drain(name)`` first and ``abort()`` from the second on."""
    loop = asyncio.get_running_loop()
    asked = Asked()

    def on(which: signal.Signals) -> None:
        asked.times += 1
        if asked.first is None:
            asked.first = which
            drain(which.name)
        else:
            abort()

    handled = (signal.SIGTERM, signal.SIGINT)
    for which in handled:
        loop.add_signal_handler(which, on, which)
    try:
        yield asked
    finally:
        for which in handled:
            loop.remove_signal_handler(which)

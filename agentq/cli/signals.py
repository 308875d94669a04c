"""SIGTERM and SIGINT: the first drains, the second stops at once. Only the command line installs signal handlers."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Final


@dataclass(slots=True)
class Asked:
    """What the person or the platform asked for."""

    first: signal.Signals | None = None
    times: int = 0

    @property
    def exit_code(self) -> int:
        """128 plus the signal, as shells report it; 0 if there was none."""
        return 128 + self.first if self.first else 0


_HANDLED: Final = (signal.SIGTERM, signal.SIGINT)


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

    for which in _HANDLED:
        loop.add_signal_handler(which, on, which)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, _HANDLED)  # a process that began anew has them blocked: see `begin_anew`
    try:
        yield asked
    finally:
        for which in _HANDLED:
            loop.remove_signal_handler(which)


def remember(asked: Asked) -> None:
    """Inside `stopping`: only note signals from now on, also when the loop is closed."""
    loop = asyncio.get_running_loop()

    def on(number: int, _frame: object) -> None:
        asked.first = asked.first or signal.Signals(number)

    for which in _HANDLED:
        loop.remove_signal_handler(which)
        signal.signal(which, on)


def begin_anew(asked: Asked) -> None:
    """Replace this process by a new one with the same arguments and the same id, unless a signal came meanwhile.

    A signal that comes while the new one loads is kept for it. Returns only if a signal came.
    """
    signal.pthread_sigmask(signal.SIG_BLOCK, _HANDLED)
    if asked.first is None:
        sys.stdout.flush()
        sys.stderr.flush()
        os.execv(sys.executable, sys.orig_argv)  # noqa: S606 - ourselves

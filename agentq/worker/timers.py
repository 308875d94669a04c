"""Timeouts that a run's code has set around its waits: while one is ticking, the run must not leave the process."""

from __future__ import annotations

import asyncio
import functools
from collections.abc import Collection, Iterator
from typing import Any


def ticking(loop: asyncio.AbstractEventLoop, lines: Collection[asyncio.Task[Any]]) -> bool:
    """Whether an ``asyncio.timeout`` or ``asyncio.wait_for`` around one of these tasks has not fired yet.

    asyncio offers no way to ask, so this reads the standard loop's heap of timers; on a loop without one it is False.
    """
    return any(_is_around(handle, lines) for handle in _pending(loop))


def _pending(loop: asyncio.AbstractEventLoop) -> Iterator[asyncio.TimerHandle]:
    return (handle for handle in getattr(loop, "_scheduled", ()) if not handle.cancelled())


def _is_around(handle: asyncio.TimerHandle, lines: Collection[asyncio.Task[Any]]) -> bool:
    callback, args = handle._callback, tuple(handle._args)  # type: ignore[attr-defined]  # noqa: SLF001 - see `ticking`
    owner = getattr(callback, "__self__", None)
    if isinstance(owner, asyncio.Timeout):
        return owner._task in lines  # type: ignore[attr-defined]  # noqa: SLF001
    return getattr(callback, "__name__", "") == "_release_waiter" and any(_releases(task, args) for task in lines)


def _releases(task: asyncio.Task[Any], args: tuple[Any, ...]) -> bool:
    """Whether ``wait_for`` (before Python 3.12) waits for this task: its callback on the task has the timer's argument."""
    callbacks = getattr(task, "_callbacks", None) or ()
    return any(isinstance(each, functools.partial) and each.args == args for each, _ in callbacks)

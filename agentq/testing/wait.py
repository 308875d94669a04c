"""Waiting for something to become true, without sleeping for a guessed time."""

from __future__ import annotations

import asyncio
import inspect
import time
from collections.abc import Awaitable, Callable

_EVERY_S = 0.005
"""How often the condition is looked at: short beside what is waited for, long beside looking."""


async def wait_until(
    what: str, condition: Callable[[], object | Awaitable[object]], *, timeout_s: float = 10.0, every_s: float = _EVERY_S
) -> None:
    """Return as soon as ``condition()``, awaited if it is awaitable, is true.

    Raises:
        TimeoutError: it was not true within ``timeout_s`` seconds; the message says ``what`` was waited for.
    """
    deadline = time.monotonic() + timeout_s
    while True:
        answer = condition()
        if inspect.isawaitable(answer):
            answer = await answer
        if answer:
            return
        if time.monotonic() >= deadline:
            raise TimeoutError(_late(what, timeout_s))
        await asyncio.sleep(every_s)


def wait_until_sync(what: str, condition: Callable[[], object], *, timeout_s: float = 10.0, every_s: float = _EVERY_S) -> None:
    """Do the same from code that runs no event loop; blocks the thread.

    Raises:
        TimeoutError: it was not true within ``timeout_s`` seconds; the message says ``what`` was waited for.
    """
    deadline = time.monotonic() + timeout_s
    while not condition():
        if time.monotonic() >= deadline:
            raise TimeoutError(_late(what, timeout_s))
        time.sleep(every_s)


def _late(what: str, timeout_s: float) -> str:
    return f"waited {timeout_s:g} s in vain until {what}"

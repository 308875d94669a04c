"""What happens, told once: `emit` fans an event out to sinks (the log by default, metrics, a test's list)."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from typing import Any, TypeAlias

from agentq.telemetry.log import log_sink

__all__ = ["Sink", "add_sink", "emit", "remove_sink"]

Sink: TypeAlias = Callable[[str, dict[str, Any]], None]
"""Called with the event's name and its fields, in the thread that emits. It must be quick and must not change the fields."""

_lock = threading.Lock()
_sinks: tuple[Sink, ...] = (log_sink,)
_reported: set[int] = set()


def emit(event: str, /, **fields: Any) -> None:
    """Tell every sink that ``event`` happened. Never raises, never blocks; callable from any thread.

    Names and fields are those of `agentq.telemetry.events`.
    """
    for sink in _sinks:
        try:
            sink(event, fields)
        except Exception as error:  # noqa: BLE001 - a broken sink must not fail the run that it looks at
            _report(sink, event, error)


def add_sink(sink: Sink) -> None:
    """Call ``sink`` for every event from now on; adding it twice is once."""
    global _sinks  # noqa: PLW0603 - one process has one set of sinks; swapping a tuple keeps `emit` free of locks
    with _lock:
        if sink not in _sinks:
            _sinks = (*_sinks, sink)


def remove_sink(sink: Sink) -> None:
    """Stop calling ``sink``; one that is not there is fine."""
    global _sinks  # noqa: PLW0603 - as above
    with _lock:
        _sinks = tuple(one for one in _sinks if one != sink)
        _reported.discard(id(sink))


def _report(sink: Sink, event: str, error: Exception) -> None:
    """Say once per sink that it is broken."""
    with _lock:
        if id(sink) in _reported:
            return
        _reported.add(id(sink))
    logging.getLogger("agentq").warning("telemetry sink %r failed on %s", sink, event, exc_info=error)

"""Events as log records of the standard library's logger ``agentq``, through structlog.

The library configures nothing: whoever sets up ``logging`` decides what is shown. A record's message is the event's name and
its fields as ``key=value``; ``record.agentq`` holds them as a dict for formatters that want structure. structlog is imported
when the first event is really logged, so that a process that logs nothing does not pay for it.
"""

from __future__ import annotations

import logging
from collections.abc import MutableMapping
from typing import Any

from agentq.redact import redact_fields
from agentq.telemetry.events import LEVELS

LOGGER = "agentq"
_stdlib = logging.getLogger(LOGGER)
_structured: Any = None


def log_sink(event: str, fields: dict[str, Any]) -> None:
    """Log one event at its level, if that level is enabled."""
    level = LEVELS.get(event, logging.INFO)
    if _stdlib.isEnabledFor(level):
        (_structured or _wrap()).log(level, event, **fields)


def _wrap() -> Any:
    global _structured  # noqa: PLW0603 - built once, at the first event that is logged
    import structlog  # noqa: PLC0415 - see the module's docstring

    _structured = structlog.wrap_logger(
        _stdlib,
        processors=[structlog.contextvars.merge_contextvars, _redact, _to_record],
        wrapper_class=structlog.stdlib.BoundLogger,
    )
    return _structured


def _redact(_logger: Any, _method: str, fields: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    return redact_fields(fields)


def _to_record(_logger: Any, _method: str, fields: MutableMapping[str, Any]) -> tuple[tuple[str, str], dict[str, Any]]:
    """Turn the fields into arguments of ``Logger.log``: a readable message, and the fields under one name of the record."""
    shown = dict(fields)
    event = str(shown.pop("event", ""))
    text = " ".join([event, *(f"{key}={_word(value)}" for key, value in shown.items() if value is not None)])
    return ("%s", text), {"extra": {LOGGER: {"event": event, **shown}}}


def _word(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:.6g}"
    text = str(value)
    return repr(text) if not text or any(c.isspace() or c in "\"'=" for c in text) else text

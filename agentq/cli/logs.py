"""How ``agentq worker`` logs: lines for people on a terminal, one JSON object per line otherwise."""

from __future__ import annotations

import logging
import sys
import traceback
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any, Final

import msgspec

from agentq.redact import redact
from agentq.settings import LogSettings

_SHORT: Final = ("run_id", "worker", "child")
_ID_CHARACTERS: Final = 12
_EVENT_WIDTH: Final = 18
Render = Callable[[dict[str, Any]], str]


def configure(settings: LogSettings) -> None:
    """Send the logs of this process to stderr, as ``settings`` say."""
    console = settings.format == "console" or (settings.format == "auto" and sys.stderr.isatty())
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(EventFormatter(_console(colours=sys.stderr.isatty()) if console else _json))
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(logging.WARNING)
    logging.getLogger("agentq").setLevel(settings.level.upper())
    if settings.level != "debug":
        logging.getLogger("aiokafka").setLevel(logging.CRITICAL)  # it tells every failed attempt; our events tell the outage


class EventFormatter(logging.Formatter):
    """Renders agentq's events by their fields, and any other record by its message."""

    def __init__(self, render: Render) -> None:
        """``render`` turns time, level, event and fields into a line."""
        super().__init__()
        self._render = render

    def format(self, record: logging.LogRecord) -> str:
        """Return one record as a line; a traceback is part of it."""
        fields = getattr(record, "agentq", None)
        line: dict[str, Any] = {"timestamp": record.created, "level": record.levelname.lower()}
        if isinstance(fields, dict):
            line |= {name: value for name, value in fields.items() if value is not None}
        else:
            line |= {"event": redact(record.getMessage()), "logger": record.name}
        if record.exc_info:
            line["exception"] = redact("".join(traceback.format_exception(*record.exc_info)).rstrip())
        return self._render(line)


def _json(line: dict[str, Any]) -> str:
    at = datetime.fromtimestamp(line.pop("timestamp"), UTC)
    stamp = at.isoformat(timespec="milliseconds").replace("+00:00", "Z")
    return msgspec.json.encode({"timestamp": stamp, **line}, enc_hook=str).decode()


def _console(*, colours: bool) -> Render:
    import structlog  # noqa: PLC0415 - JSON lines do not need it

    def plain(key: str, value: object) -> str:
        del key
        return str(value)

    column, keys = structlog.dev.Column, structlog.dev.KeyValueColumnFormatter
    styles: Any = structlog.dev.ConsoleRenderer.get_default_column_styles(colors=colours)
    faint = {"value_style": styles.timestamp, "reset_style": styles.reset}
    render = structlog.dev.ConsoleRenderer(
        columns=[
            column("", keys(key_style=styles.timestamp, value_style="", reset_style=styles.reset, value_repr=_value)),
            column("timestamp", keys(key_style=None, value_repr=str, **faint)),
            column("level", plain),
            column("event", plain),
        ],
        sort_keys=False,
        exception_formatter=structlog.dev.plain_traceback,
    )
    signs = _signs(structlog.dev, colours=colours)

    def line(fields: dict[str, Any]) -> str:
        fields["timestamp"] = datetime.fromtimestamp(fields["timestamp"]).astimezone().strftime("%H:%M:%S")
        for name in _SHORT:
            if isinstance(fields.get(name), str):
                fields[name] = fields[name][:_ID_CHARACTERS]
        before, after = signs.get(fields["level"], ("", ""))
        fields["level"], fields["event"] = before, f"{fields['event']:<{_EVENT_WIDTH}}{after}"
        return str(render(None, "", fields)).rstrip()

    return line


def _signs(dev: Any, *, colours: bool) -> dict[str, tuple[str, str]]:
    """Return what stands before and after an event of a level: a sign where something is wrong, and its colour."""
    if not colours:
        return {"debug": (" ", ""), "info": (" ", ""), "warning": ("!", ""), "error": ("x", ""), "critical": ("x", "")}
    red, yellow, reset = dev.RED, dev.YELLOW, dev.RESET_ALL
    return {
        "debug": (f" {dev.DIM}", reset),
        "info": (" ", ""),
        "warning": (f"{yellow}!", reset),
        "error": (f"{red}✗", reset),
        "critical": (f"{red}✗", reset),
    }


def _value(value: object) -> str:
    """Render a value of a field: rounded, joined, quoted only where it has blanks."""
    if isinstance(value, float):
        return f"{value:.3g}"
    if isinstance(value, tuple | list):
        return ",".join(map(str, value))
    text = str(value)
    return repr(text) if " " in text else text

"""Printing: tables that are calm to read on a terminal, and JSON that programs read."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

import click
import msgspec
from rich.console import Console, RenderableType
from rich.table import Table
from rich.text import Text

from agentq.cli.text import SYMBOLS, clean, iso, what_now

if TYPE_CHECKING:
    from agentq.message import Entry, Failure, Run, Wait, Worker

_PIPE_WIDTH = 200
"""Columns when nobody looks: nothing is cut that a program may want."""
_TIMES = ("submitted_at", "due_at", "deadline", "started_at", "finished_at", "ended_at", "seen_at", "at")
_PAYLOADS = ("args", "result", "value", "payload")


def console(*, stderr: bool = False) -> Console:
    """Return a console for stdout or stderr. It obeys NO_COLOR, COLUMNS and FORCE_COLOR."""
    made = Console(stderr=stderr, highlight=False, emoji=False, markup=False)
    if not made.is_terminal and made.width == 80 and "COLUMNS" not in made._environ:  # noqa: PLR2004, SLF001 - rich's default
        made.width = _PIPE_WIDTH
    return made


def table(*columns: str, right: Iterable[str] = (), grow: str = "", cut: Iterable[str] = ()) -> Table:
    """Return a table without lines.

    ``right`` names the columns of numbers, ``grow`` the one that takes the room there is. Where room is short, those of
    ``cut`` give way, the widest first; their cells are made by `short`.
    """
    made = Table(box=None, pad_edge=False, header_style="bright_black", padding=(0, 2, 0, 0), expand=bool(grow))
    for column in columns:
        made.add_column(
            column,
            justify="right" if column in right else "left",
            no_wrap=column not in cut,
            overflow="ellipsis",
            ratio=1 if column == grow else None,
        )
    return made


def short(text: str | Text, style: str = "") -> Text:
    """Return a cell for a column that gives way: it is cut, not wrapped."""
    made = text.copy() if isinstance(text, Text) else Text(clean(text), style=style)
    made.no_wrap, made.overflow = True, "ellipsis"
    return made


def cells(*values: Any, dim: Sequence[int] = ()) -> list[RenderableType]:
    """Turn values into cells; zeros and those at the positions ``dim`` recede."""
    return [
        value
        if isinstance(value, Text)
        else Text(clean(str(value)), style="bright_black" if n in dim or value in (0, "0") else "")
        for n, value in enumerate(values)
    ]


def state(run: Run) -> Text:
    """Render a run's state with its sign and colour, and what holds it."""
    sign, colour = SYMBOLS[run.state]
    text = Text(f"{sign} {run.state.value}", style=colour)
    if more := what_now(run):
        text.append(f" {more}", style="yellow")
    return text


def write_json(value: Any) -> None:
    """Print a value as JSON: indented on a terminal, one line otherwise."""
    raw = msgspec.json.encode(value, enc_hook=str)
    if sys.stdout.isatty():
        raw = msgspec.json.format(raw, indent=2)
    click.echo(raw.decode())


def plain(value: Run | Entry | Wait | Worker | Failure) -> dict[str, Any]:
    """Return a value as a JSON object: times in RFC 3339, payloads as the JSON that they are, money in dollars."""
    shown: dict[str, Any] = {}
    for name in value.__struct_fields__:
        item = getattr(value, name)
        if name in _TIMES:
            shown[name] = iso(item or None)
        elif name in _PAYLOADS and isinstance(item, bytes):
            shown[name] = embedded(item)
        elif name == "cost_nanos":
            shown["cost_usd"] = item / 1e9
        elif isinstance(item, msgspec.Struct):
            shown[name] = msgspec.to_builtins(item)
        else:
            shown[name] = item
    return shown


def embedded(raw: bytes | None) -> Any:
    """Return JSON bytes as something that is embedded as it is."""
    if raw is None:
        return None
    try:
        msgspec.json.decode(raw)
    except msgspec.DecodeError:
        return raw.decode(errors="replace")
    return msgspec.Raw(raw)


def jsonable(value: Any) -> Any:
    """Return a result as plain JSON data, whatever typed value it is."""
    from agentq.codec import codec_for  # noqa: PLC0415 - only results need it

    return msgspec.Raw(codec_for(type(value)).encode(value))

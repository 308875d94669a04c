"""How numbers, times and states read in a terminal."""

from __future__ import annotations

import re
from collections.abc import Sequence
from datetime import datetime
from decimal import Decimal
from typing import TYPE_CHECKING, Final

import msgspec

from agentq.message import RunState, WorkerState

if TYPE_CHECKING:
    from agentq.message import Failure, Run

SYMBOLS: Final = {
    RunState.SUBMITTED: ("◦", "bright_black"),
    RunState.QUEUED: ("○", "default"),
    RunState.RUNNING: ("●", "cyan"),
    RunState.WAITING: ("◔", "yellow"),
    RunState.PARKED: ("◌", "magenta"),
    RunState.SUCCEEDED: ("✓", "green"),
    RunState.FAILED: ("✗", "red"),
    RunState.CANCELLED: ("⊘", "bright_black"),
}
"""State to its sign and colour."""
WORKER_COLOURS: Final = {
    WorkerState.ACTIVE: "green",
    WorkerState.CORDONED: "yellow",
    WorkerState.DRAINING: "magenta",
    WorkerState.LOST: "red",
}
_MIN_ID: Final = 10
_MINUTE, _HOUR, _DAY = 60, 3600, 86400
_EIGHTHS: Final = " ▏▎▍▌▋▊▉█"
_CONTROL: Final = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]")


def duration(seconds: float | None) -> str:
    """Render a duration in at most two units: ``412 ms``, ``12.3 s``, ``3 m 20 s``, ``2 h 05 m``, ``3 d 4 h``."""
    if seconds is None:
        return ""
    if seconds < 0:
        return f"-{duration(-seconds)}"
    if round(seconds, 1) < _MINUTE:
        return _short(seconds)
    whole = round(seconds)
    if whole < _HOUR:
        return f"{whole // _MINUTE} m {whole % _MINUTE:02d} s"
    if whole < _DAY:
        return f"{whole // _HOUR} h {whole % _HOUR // _MINUTE:02d} m"
    return f"{whole // _DAY} d {whole % _DAY // _HOUR} h"


def _short(seconds: float) -> str:
    digits = 0 if seconds >= 0.01 or not seconds else 1 if seconds >= 0.001 else 2  # noqa: PLR2004 - 10 ms, 1 ms
    return f"{seconds:.1f} s" if seconds >= 0.9995 else f"{seconds * 1000:.{digits}f} ms"  # noqa: PLR2004 - rounds to 999 ms


def age(seconds: float | None) -> str:
    """Render how long ago something was, in one unit: ``now``, ``12 s``, ``3 m``, ``2 h``, ``5 d``."""
    if seconds is None:
        return ""
    if seconds < 1:
        return "now"
    for unit, size in (("d", _DAY), ("h", _HOUR), ("m", _MINUTE)):
        if seconds >= size:
            return f"{seconds // size:.0f} {unit}"
    return f"{seconds:.0f} s"


def moment(at: float | None) -> str:
    """Render a time of day in the local zone, with the date."""
    return "" if at is None else datetime.fromtimestamp(at).astimezone().strftime("%Y-%m-%d %H:%M:%S")


def iso(at: float | None) -> str | None:
    """Render a time for machines: RFC 3339 in the local zone."""
    return None if at is None else datetime.fromtimestamp(at).astimezone().isoformat(timespec="milliseconds")


def money(nanos: int) -> str:
    """Render nano-dollars: ``$0.0123``."""
    if not nanos:
        return ""
    dollars = Decimal(nanos).scaleb(-9)
    return f"${dollars:.2f}" if dollars >= Decimal("0.1") else f"${dollars:.4f}"


def count(number: int, one: str, many: str = "") -> str:
    """Render a number with its noun: ``1 run``, ``3 runs``."""
    return f"{number:,} {one if number == 1 else many or one + 's'}"


def bar(share: float, width: int) -> str:
    """Render a share of 0 to 1 as a bar of eighths of cells."""
    eighths = round(max(0.0, min(1.0, share)) * width * 8)
    return ("█" * (eighths // 8) + (_EIGHTHS[eighths % 8] if eighths % 8 else "")).ljust(width)


def clean(text: str) -> str:
    """Take out control characters: a run's texts must not move the cursor of who reads them."""
    return _CONTROL.sub("", text)


def one_line(text: str, width: int) -> str:
    """Put a text on one line of at most ``width`` characters."""
    flat = clean(" ".join(text.split()))
    return flat if len(flat) <= width else f"{flat[: max(0, width - 1)]}…"


def payload(raw: bytes | None, width: int) -> str:
    """Render a JSON payload on one line; a plain text without its quotes."""
    if raw is None:
        return ""
    try:
        value = msgspec.json.decode(raw)
    except msgspec.DecodeError:
        return f"<{len(raw)} bytes>"
    return one_line(value if isinstance(value, str) else msgspec.json.format(raw, indent=-1).decode(), width)


def pretty(raw: bytes) -> str:
    """Render a JSON payload on as many lines as it takes; a plain text without its quotes."""
    try:
        value = msgspec.json.decode(raw)
    except msgspec.DecodeError:
        return f"<{len(raw)} bytes>"
    text = value if isinstance(value, str) else msgspec.json.format(raw, indent=2).decode()
    return "\n".join(map(clean, text.splitlines()))


def reason(failure: Failure) -> str:
    """Say why something failed: ``ValueError: no such page``; our own wrapping says it all in its message."""
    if failure.type.endswith((".StepFailed", ".ChildFailed", "UnfitSignal")):
        return failure.message
    return f"{failure.type.removeprefix('agentq.errors.')}: {failure.message}"


def where(failure: Failure) -> str:
    """Say where in the user's code something failed: the last frame of its traceback; empty where there is none."""
    frames = [line.strip() for line in failure.traceback.splitlines() if line.lstrip().startswith("File ")]
    return clean(frames[-1]) if frames else ""


def short_ids(ids: Sequence[str]) -> dict[str, str]:
    """Shorten ids to prefixes that tell them apart and that every command accepts."""
    for length in range(_MIN_ID, 27):
        if len({one[:length] for one in ids}) == len(set(ids)):
            return {one: one[:length] for one in ids}
    return {one: one for one in ids}


def what_now(run: Run) -> str:
    """Say what a run is about, beyond its state: held, asked to end, due later, suspect."""
    words = []
    if run.paused:
        words.append("paused")
    if run.cancelling and not run.state.final:
        words.append("cancelling")
    if run.suspect:
        words.append("suspect")
    if run.state is RunState.RUNNING and run.lease_s is not None and run.lease_s < 0:
        words.append("its worker is gone")
    return ", ".join(words)

"""Watching one run live: a page that is redrawn, or lines that scroll by with the present at the bottom."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import ExitStack
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final, Self

import msgspec
from rich.console import Console
from rich.live import Live
from rich.text import Text

from agentq.cli import output
from agentq.cli.expected import answering, example
from agentq.cli.reading import find_run
from agentq.cli.shown import RESERVED, branch_of, failure_of, load_view, name_of
from agentq.cli.text import SYMBOLS, bar, clean, count, duration, moment, one_line, payload, reason, where
from agentq.cli.timeline import DIM, render
from agentq.journal import ABANDONED
from agentq.message import Entry, EntryKind, Failure, Run, RunQuery, RunState, Wait, WaitKind
from agentq.retry import Retry, decide

if TYPE_CHECKING:
    from agentq.cli.code import Code
    from agentq.message import Chunk
    from agentq.stores.base import Store

_LOOK_S: Final = 0.5
"""How often the screen moves though nothing happened: ages and durations grow."""
_PACE_S: Final = 0.08
"""How often it is redrawn at most."""
_BURST: Final = 20
"""More new steps than so many at once are counted, not listed."""
_BAR: Final = 20
_TAIL: Final = 4000
_LONG_S: Final = 1.0
"""A sleep that lasts longer than that is announced, not only told of when it is over."""
_REASON: Final = 400
"""Characters of an error's message; its advice is often at its end."""
_SPINNER: Final = "⠋⠙⠹⠸⠼⠴⠦⠧⠇⠏"


@dataclass(slots=True)
class Moment:
    """A run at one moment of being watched."""

    run: Run
    entries: list[Entry]
    """New since the last moment."""
    waits: list[Wait] = field(default_factory=list)
    chunks: list[Chunk] = field(default_factory=list)
    """Streamed since the last moment."""


async def moments(store: Store, run_id: str, after: int = -1) -> AsyncIterator[Moment]:
    """Tell how a run goes until it is final, from the journal entry ``after`` on: at news, and now and then without."""
    seq, offset, tick = after, 0, -1
    while True:
        tick = await store.watch("news", tick, 0.0 if tick < 0 else _LOOK_S)
        (run,) = await store.runs(RunQuery(ids=(run_id,), limit=1))
        entries = await store.journal(run_id, seq) if run.entries > seq + 1 else []
        chunks = await store.stream(run_id, offset)
        waits = await store.waits(run_id) if run.state in {RunState.WAITING, RunState.RUNNING} else []
        seq = entries[-1].seq if entries else seq
        offset = chunks[-1].offset if chunks else offset
        yield Moment(run, entries, waits, chunks)
        if run.state.final:
            return
        await asyncio.sleep(_PACE_S)


async def follow_run(store: Store, word: str, *, values: bool) -> None:
    """Redraw the page of a run until it is final."""
    run = await find_run(store, word)
    console = output.console()
    with Live(console=console, auto_refresh=False, vertical_overflow="crop") as live:
        async for moment in moments(store, run.id):
            view = await load_view(store, moment.run, values=values)
            rows = 0 if moment.run.state.final else max(5, console.height - 16)
            live.update(render(view, width=console.width, now=time.time(), values=values, rows=rows), refresh=True)


class Progress:
    """Lines about a run on stderr: each step as it is recorded, and on a terminal a last line about now."""

    def __init__(self, code: Code | None = None, *, quiet: bool = False) -> None:
        """``code`` knows how often steps are tried and what answers look like; ``quiet`` prints questions alone."""
        self._code = code
        self._quiet = quiet
        self._console = Console(stderr=True, highlight=False, emoji=False, markup=False)
        self._stack = ExitStack()
        self._live: Live | None = None
        self._attempt = 1
        self._asked: set[tuple[str, str, int]] = set()
        self._streamed = ""
        self._since = time.monotonic()

    def __enter__(self) -> Self:
        """Begin; a live line only where somebody looks."""
        if self._console.is_terminal and not self._quiet:
            self._live = self._stack.enter_context(Live(console=self._console, auto_refresh=False, transient=True))
        return self

    def __exit__(self, *_exc: object) -> None:
        """Leave the lines, take the live one away."""
        self._stack.close()

    def begin(self, run: Run, journal: list[Entry]) -> int:
        """Say what was done before; returns the last journal entry that there is."""
        self._attempt = run.attempt
        steps = [entry for entry in journal if entry.kind is EntryKind.DONE and not entry.step.startswith(RESERVED)]
        waits = [entry for entry in journal if _over(entry)]
        if (steps or waits) and not run.state.final:
            done = " and ".join([count(len(some), one) for some, one in ((steps, "step"), (waits, "wait")) if some])
            last = max(steps[-1:] + waits[-1:], key=lambda entry: entry.seq)
            text = f"{done} done before, the last one {one_line(name_of(last), 40)}: going on there"
            self._print(Text(f"↻ {text}", style="magenta"))
        return journal[-1].seq if journal else -1

    def say(self, text: str) -> None:
        """Print a line of the command's own."""
        self._print(Text(text, style=DIM))

    def show(self, moment: Moment) -> None:
        """Print what is new."""
        self._steps(moment.entries)
        if moment.run.attempt > self._attempt and moment.run.failure is not None:
            self._attempted(moment.run, moment.run.failure)
        self._attempt = moment.run.attempt
        for wait in moment.waits:
            self._ask(moment.run, wait)
        for chunk in moment.chunks:
            self._streamed = (self._streamed + _text(chunk.payload))[-_TAIL:]
        if self._live is not None:
            self._live.update(self._now(moment), refresh=True)

    def _steps(self, entries: list[Entry]) -> None:
        shown = [entry for entry in entries if _told(entry)]
        if len(shown) > _BURST:
            self._print(Text(f"  … {len(shown) - _BURST:,} more", style=DIM))
        for entry in shown[-_BURST:]:
            policy = self._code.policy(entry.step) if self._code is not None else None
            self._print(_step_line(entry, policy), whole=failure_of(entry) is not None)
            if entry.kind is EntryKind.TRIED:
                self._asked.discard(entry.identity)  # what came was no answer: it is asked again

    def _attempted(self, run: Run, failure: Failure) -> None:
        """Say that an attempt failed, and when the next begins."""
        most = run.max_attempts or (self._code.retry.max_attempts if self._code is not None else None)
        left = run.due_at - time.time() if run.state is RunState.QUEUED and run.due_at else None
        text = f"attempt {_tried(self._attempt, most, left)}: {reason(failure)}"
        self._print(Text(f"↻ {one_line(text, _REASON)}", style="yellow"), whole=True)
        if place := where(failure):
            self._print(Text(f"  {place}", style=DIM))

    def _ask(self, run: Run, wait: Wait) -> None:
        place = (wait.branch, wait.step, wait.occurrence)
        if place in self._asked or wait.kind is WaitKind.CHILD:
            return
        self._asked.add(place)
        if wait.kind is WaitKind.TIMER:
            left = (wait.due_at or 0.0) - time.time()
            if left > _LONG_S:
                self._print(Text(f"◔ {place[1].removeprefix(RESERVED)}  until {moment(wait.due_at)}, {duration(left)} more"))
            return
        signal = self._code.signal(wait.ref) if self._code is not None else None
        command, *about = answering(run.id, wait, example(signal) if signal is not None else None)
        self._print(Text.assemble(("? ", "yellow"), (clean(wait.ask or f"waits for {wait.ref}"), "bold")), quietly=True)
        self._print(Text(f"  {command}", style="cyan"), whole=True, quietly=True)
        for line in about:
            self._print(Text(f"  {line}", style=DIM), quietly=True)

    def _now(self, moment: Moment) -> Text:
        run = moment.run
        sign, colour = SYMBOLS[run.state]
        if run.state is RunState.RUNNING:
            sign = _SPINNER[int((time.monotonic() - self._since) * 10) % len(_SPINNER)]
        text = Text.assemble((f"{sign} {run.state.value}", colour), "  ")
        if run.progress is not None:
            text.append(bar(run.progress, _BAR), style="cyan on grey23").append(f" {run.progress:.0%}  ")
        since = run.started_at or run.submitted_at
        text.append(f"{count(run.steps, 'step')} · {duration(max(0.0, time.time() - since))}  ", style=DIM)
        text.append(one_line(run.progress_note, 60))
        if self._streamed:
            room = max(10, self._console.width - 4)
            text.append("\n  " + clean(self._streamed.replace("\n", " ")).strip()[-room:], style=DIM)
        return text

    def _print(self, text: Text, *, whole: bool = False, quietly: bool = False) -> None:
        """Print a line, cut to the terminal; ``whole`` lets it wrap, so that it can be copied; ``quietly``: in any case."""
        if self._quiet and not quietly:
            return
        if whole or not self._console.is_terminal:
            self._console.print(text, soft_wrap=True)
        else:
            self._console.print(text, overflow="ellipsis", no_wrap=True)


def _over(entry: Entry) -> bool:
    """Whether a wait is over, and was not given up."""
    return entry.kind is EntryKind.WAITED and entry.value != ABANDONED


def _told(entry: Entry) -> bool:
    """Whether an entry is worth a line: a step that ended or was tried, a wait that is over or got what does not fit."""
    if entry.kind in {EntryKind.DONE, EntryKind.FAILED}:
        return not entry.step.startswith(RESERVED)
    return entry.kind is EntryKind.TRIED or _over(entry)


def _step_line(entry: Entry, policy: Retry | None) -> Text:
    name = f"{name_of(entry)}{f' [{branch}]' if (branch := branch_of(entry)) else ''}"
    failure = failure_of(entry)
    if failure is not None:
        sign, colour = ("✗", "red") if entry.kind is EntryKind.FAILED else ("↻", "yellow")
        text = one_line(f"{_tries(entry, failure, policy)}{reason(failure)}", _REASON)
        return Text(f"{sign} {name}  {text}", style=colour)
    waited = entry.kind is EntryKind.WAITED  # its times are those of its last look, not of the whole wait
    took = duration(max(0.0, entry.ended_at - entry.started_at)) if entry.started_at and not waited else ""
    sign, colour = ("◔ ", "yellow") if waited else ("✓ ", "green")
    return Text.assemble((sign, colour), name_of(entry), (name.removeprefix(name_of(entry)), DIM), "  ", (took, DIM))


def _tries(entry: Entry, failure: Failure, policy: Retry | None) -> str:
    """Say which try it was, of how many, and when the next comes, as far as it is known."""
    if entry.step.startswith(RESERVED) or (entry.kind is EntryKind.FAILED and entry.attempt == 1):
        return ""
    if policy is None:
        return f"try {entry.attempt}: "
    delay = decide(policy, entry.attempt, failure, None, 0.0) if entry.kind is EntryKind.TRIED else None
    return f"try {_tried(entry.attempt, policy.max_attempts, delay)}: "


def _tried(number: int, most: int | None, delay_s: float | None) -> str:
    """``2 of 4, again in 1.0 s``; after `runs retry` the numbers go on beyond what a policy allows, and mean nothing."""
    of = f" of {most}" if most and number <= most else ""
    return f"{number}{of}" + (f", again in {duration(delay_s)}" if delay_s is not None and delay_s > 0 else "")


def _text(raw: bytes) -> str:
    try:
        value = msgspec.json.decode(raw)
    except msgspec.DecodeError:
        return ""
    return value if isinstance(value, str) else payload(raw, 200) + " "

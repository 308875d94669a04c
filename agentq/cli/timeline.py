"""One run as a page: a head, a timeline of its steps with duration bars, its open waits, its children, its end."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Final

from rich.console import Group, RenderableType
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from agentq.cli.axis import Axis
from agentq.cli.expected import answering
from agentq.cli.interrupted import doubt_of, ways
from agentq.cli.output import state, table
from agentq.cli.reading import told
from agentq.cli.shown import Row, RunView, branch_of, failure_of, fork_at, name_of
from agentq.cli.text import SYMBOLS, age, bar, clean, count, duration, moment, money, one_line, payload, pretty, reason, where
from agentq.message import EntryKind, Run, RunState, WaitKind

if TYPE_CHECKING:
    from agentq.message import Entry, Wait

DIM: Final = "bright_black"
_HEAD_ROWS: Final = 8
_TAIL_ROWS: Final = 32
"""How many steps are shown of a long journal, from its start and from its end."""
_RESULT_LINES: Final = 40
_PROGRESS: Final = 24
_BLINK_S: Final = 0.01
"""What agentq does itself (the clock, what was spent, the end of a wait) is no duration below this."""
_MIN_NAME: Final = 18
_MAX_NAME: Final = 44
_FIXED: Final = 23
"""Cells that sign, tries, duration and the gaps between the columns take."""
_SIGNS: Final = {
    EntryKind.DONE: ("✓", "green"),
    EntryKind.FAILED: ("✗", "red"),
    EntryKind.WAITED: ("◔", "yellow"),
    EntryKind.APPENDED: ("+", DIM),
    EntryKind.SAVED: ("▪", DIM),
    EntryKind.STARTED: ("…", "yellow"),
    EntryKind.TRIED: ("↻", "yellow"),
}


def render(
    view: RunView, *, width: int, now: float, everything: bool = False, values: bool = False, rows: int = 0
) -> RenderableType:
    """Return the page. ``rows`` limits the steps shown to the last so many (0: a long journal is cut in its middle)."""
    parts: list[RenderableType] = [head(view, width, now)]
    if view.rows:
        parts.append(Padding(_steps(view, width, now, everything=everything, values=values, rows=rows), (1, 0, 0, 0)))
    if view.waits:
        parts.append(Padding(_waits(view.run, view.waits, view.children, now), (1, 0, 0, 0)))
    if view.children:
        parts.append(Padding(_children(view.children, now), (1, 0, 0, 0)))
    parts.extend(_end(view, width))
    return Group(*parts)


def head(view: RunView, width: int, now: float) -> RenderableType:
    """Return the facts about a run."""
    run = view.run
    title = Text.assemble((run.task, "bold"), "  ", (run.id, DIM), "  ", state(run))
    facts = Table.grid(padding=(0, 2, 0, 0))
    facts.add_column(style=DIM, no_wrap=True, min_width=11)
    facts.add_column(overflow="fold")
    for name, value in _facts(view, width, now):
        facts.add_row(f"  {name}", value)
    return Group(title, facts)


def _facts(view: RunView, width: int, now: float) -> Iterator[tuple[str, Text]]:
    run = view.run
    if run.args not in {b"{}", b""}:
        yield "arguments", Text(payload(run.args, max(20, width - 16)))
    yield "queue", _joined(run.queue, f"priority {run.priority}" if run.priority else "", _labelled("tenant", run.tenant),
                           _labelled("key", run.key), _labelled("ordering key", run.ordering_key),
                           *(f"{k}={v}" for k, v in run.tags.items()))  # fmt: skip
    yield "submitted", _joined(moment(run.submitted_at), f"{age(now - run.submitted_at)} ago", _lineage(run))
    if run.started_at is not None:
        spent = duration(max(0.0, (run.finished_at or now) - run.started_at))
        attempt = f"attempt {run.attempt}" + (f" of {run.max_attempts}" if run.max_attempts else "")
        yield (
            "took" if run.state.final else "since",
            _joined(
                spent,
                f"{duration(run.running_s)} running" if run.running_s else "",
                attempt,
                f"epoch {run.epoch}",
                _hardships(run),
            ),
        )
    if view.worker or run.owner:
        yield "worker", _worker(view)
    if run.state is RunState.QUEUED and run.due_at and run.due_at > now:
        yield "due", Text(f"in {duration(run.due_at - now)}")
    if view.strange:
        yield "but", Text(view.strange, style="yellow")
    if run.progress is not None or run.progress_note:
        yield "progress", _progress(run)
    if run.tokens or run.cost_nanos:
        yield "spent", _joined(f"{run.tokens:,} tokens" if run.tokens else "", money(run.cost_nanos))


def _joined(*words: str) -> Text:
    return Text(" · ").join(Text(word) for word in words if word)


def _labelled(label: str, value: str | None) -> str:
    return f"{label} {value}" if value else ""


def _lineage(run: Run) -> str:
    return f"called by {run.parent_id}" if run.parent_id else f"forked from {run.fork_of}" if run.fork_of else ""


def _hardships(run: Run) -> str:
    taken = f"taken over {count(run.takeovers, 'time')}" if run.takeovers else ""
    died = f"died alone {count(run.deaths, 'time')}" if run.deaths else ""
    lost = f"lost alone {count(run.losses, 'time')}" if run.losses else ""
    return " · ".join(filter(None, [taken, died, lost]))


def _worker(view: RunView) -> Text:
    run, worker = view.run, view.worker
    if run.lease_s is None:
        lease = ""
    elif run.lease_s < 0:
        lease = f"its lease ran out {duration(-run.lease_s)} ago: the next worker takes over"
    else:
        lease = f"lease for {duration(run.lease_s)} more"
    if worker is None:
        return _joined(str(run.owner)[:8], "not seen any more", lease)
    return _joined(worker.id[:8], worker.pod or f"{worker.host} process {worker.pid}", lease)


def _progress(run: Run) -> Text:
    text = Text()
    if run.progress is not None:
        text.append(bar(run.progress, _PROGRESS), style="cyan on grey23").append(f" {run.progress:.0%}  ")
    return text.append(one_line(run.progress_note, 100))


def _steps(view: RunView, width: int, now: float, *, everything: bool, values: bool, rows: int) -> RenderableType:
    shown, left_out, cut_at = _cut(view.rows, everything=everything, last=rows)
    page = _Page(shown, width, values=view.values if values else None)
    lines: list[Text] = [page.line("", Text("STEP"), "TRIES", "TOOK", Text("")) if shown else Text("")]
    lines[0].stylize(DIM)
    previous: Row | None = None
    for index, row in enumerate(shown):
        if left_out and index == cut_at:
            lines.append(Text(f"   … {left_out:,} more" + ("" if rows else " (--all)"), style=DIM))
        if previous is not None and row.entry.epoch > previous.entry.epoch:
            lines.append(_epoch(previous, row))
        lines.append(page.row(row))
        lines.extend(_troubles(row, width))
        previous = row
    if view.run.state is RunState.RUNNING and previous is not None:
        orphaned = view.run.lease_s is not None and view.run.lease_s < 0
        word, colour = ("its worker is gone", "yellow") if orphaned else ("working", "cyan")
        lines.append(page.line("●", Text(word), "", duration(max(0.0, now - previous.ended_at)), Text("")))
        lines[-1].stylize(colour)
    return Group(*lines)


class _Page:
    """Lines of the timeline in columns: sign, name, tries, duration, bar, and the value where values are shown."""

    def __init__(self, rows: Sequence[Row], width: int, *, values: Mapping[int, bytes] | None) -> None:
        names = max((_name(row).cell_len for row in rows), default=4)
        self._name = max(_MIN_NAME, min(names, _MAX_NAME, width // 2))
        self._values = values
        left = width - self._name - _FIXED
        self._bar = max(8, min(left, 60) if values is None else min(left // 3, 24))
        self._value = max(10, left - self._bar - 2)
        self._axis = Axis([(row.started_at, row.ended_at) for row in rows if not _waiting(row)], self._bar)

    def line(self, sign: str, name: Text, tries: str, took: str, bar: Text, *, value: str = "", colour: str = "") -> Text:
        """Return one line; every column has its width."""
        name = name.copy()
        name.truncate(self._name, overflow="ellipsis", pad=True)
        line = Text.assemble((f" {sign:1} ", colour), name, (f"  {tries:>5}", "yellow"), (f"  {took:>9}  ", DIM), no_wrap=True)
        if value:
            bar = bar.copy()
            bar.truncate(self._bar, pad=True)
        line.append_text(bar)
        return line.append(f"  {value}", style=DIM) if value else line

    def row(self, row: Row) -> Text:
        """Return the line of one step."""
        kind = row.entry.kind
        sign, colour = ("↻", "yellow") if row.superseded else _SIGNS.get(kind, ("·", DIM))
        silent = kind in {EntryKind.APPENDED, EntryKind.SAVED} or ((row.own or _waiting(row)) and row.took_s < _BLINK_S)
        if _waiting(row):
            drawn = Text(f"{self._axis.indent(row.ended_at)}┊", style="yellow")
        else:
            drawn = Text("" if silent else self._axis.draw(row.started_at, row.ended_at), style="red" if row.failed else "blue")
        took = "" if silent else duration(row.took_s)
        value = "" if row.failed else payload((self._values or {}).get(row.entry.seq), self._value)
        return self.line(sign, _name(row), str(row.tries) if row.tries > 1 else "", took, drawn, value=value, colour=colour)


def _cut(rows: Sequence[Row], *, everything: bool, last: int) -> tuple[list[Row], int, int]:
    """Return the rows to show, how many are left out, and before which of them."""
    if last and len(rows) > last:
        return list(rows[-last:]), len(rows) - last, 0
    if everything or last or len(rows) <= _HEAD_ROWS + _TAIL_ROWS + 1:
        return list(rows), 0, 0
    return [*rows[:_HEAD_ROWS], *rows[-_TAIL_ROWS:]], len(rows) - _HEAD_ROWS - _TAIL_ROWS, _HEAD_ROWS


def _waiting(row: Row) -> bool:
    return row.entry.kind is EntryKind.WAITED


def _name(row: Row) -> Text:
    """Name a step with the depth of its branch, which call it was, and its branch."""
    entry = row.entry
    text = Text("  " * _depth(entry))
    text.append(one_line(name_of(entry), 40), style=DIM if row.own else "")
    if entry.occurrence:
        text.append(f" #{entry.occurrence}", style=DIM)
    if where := branch_of(entry):
        text.append(f" [{where}]", style=DIM)
    return text


def _depth(entry: Entry) -> int:
    return len([part for part in entry.branch.split("/") if part])


def _epoch(before: Row, after: Row) -> Text:
    gap = max(0.0, after.started_at - before.ended_at)
    verb = "woke up" if _waiting(after) else "went on"
    worker = f"epoch {after.entry.epoch}"
    return Text(f" ↻ {verb} {duration(gap)} later · {worker}", style="magenta")


def _troubles(row: Row, width: int) -> Iterator[Text]:
    depth = "   " + "  " * (1 + _depth(row.entry))
    for entry in row.tried:
        failure = failure_of(entry)
        if failure is not None:
            yield Text(depth + one_line(f"try {entry.attempt}: {reason(failure)}", width - len(depth)), style="yellow")
    failure = failure_of(row.entry)
    if failure is not None:
        style = "red" if row.failed else "yellow"
        yield Text(depth + one_line(reason(failure), width - len(depth)), style=style)
    elif row.entry.kind is EntryKind.STARTED:
        yield Text(f"{depth}begun, and its end is not recorded", style="yellow")


def _waits(run: Run, waits: Iterable[Wait], children: Sequence[Run], now: float) -> RenderableType:
    grid = Table.grid(padding=(0, 2, 0, 0))
    grid.add_column(no_wrap=True)
    grid.add_column(overflow="fold")
    states = {child.id: child for child in children}
    commands: list[Text] = []
    for wait in waits:
        until = f" · for {duration(wait.due_at - now)} more" if wait.due_at and wait.due_at > now else ""
        if wait.kind is WaitKind.TIMER:
            due = f"until {moment(wait.due_at)}{until}"
            grid.add_row(Text("  a moment"), Text(due))
        elif wait.kind is WaitKind.CHILD:
            child = states.get(wait.ref)
            what = Text.assemble(f"{child.task} {child.id}  ", state(child)) if child else Text(wait.ref)
            grid.add_row(Text("  a child"), what)
        else:
            grid.add_row(Text("  an answer"), Text.assemble((clean(wait.ask or wait.ref), "bold"), (until, DIM)))
            command, *about = answering(run.id, wait)
            commands += [Text(f"  {command}", style="cyan"), *(Text(f"  {line}", style=DIM) for line in about)]
    return Group(Text("waits for", style="yellow"), grid, *commands)


def _children(children: Sequence[Run], now: float) -> RenderableType:
    grid = table("", "", "", "", right=())
    grid.show_header = False
    for child in children:
        sign, colour = SYMBOLS[child.state]
        took = duration((child.finished_at or now) - child.started_at) if child.started_at else ""
        grid.add_row(Text(f"  {sign}", style=colour), child.task, Text(child.id, style=DIM), Text(took, style=DIM))
    return Group(Text(f"called {count(len(children), 'run')}", style=DIM), grid)


def _end(view: RunView, width: int) -> Iterator[RenderableType]:
    run = view.run
    if run.state is RunState.SUCCEEDED and run.result is not None:
        result = pretty(run.result).splitlines()
        more = (
            [Text(f"  … {len(result) - _RESULT_LINES:,} more lines (--json)", style=DIM)] if len(result) > _RESULT_LINES else []
        )
        body = Text("\n".join(result[:_RESULT_LINES]))
        yield Padding(Group(Text("returned", style="green"), Padding(body, (0, 0, 0, 2)), *more), (1, 0, 0, 0))
    if run.failure is None or run.state is RunState.SUCCEEDED:
        return
    final = run.state is RunState.FAILED
    step = f" in step {run.failure.step}" if run.failure.step else ""
    what = "failed" if final else f"attempt {max(1, run.attempt - 1)} failed"
    title = Text(what + step, style="red" if final else "yellow")
    lines: list[RenderableType] = [title, Text("  " + one_line(reason(run.failure), 4 * width))]
    if place := where(run.failure):
        lines.append(Text("  " + one_line(place, width - 4), style=DIM))
    if doubt := doubt_of(run, (row.entry for row in view.rows if not row.superseded)):
        lines += [Text(line, style="cyan" if line.startswith(" ") else "") for line in ways(doubt)]
    elif final:
        lines.append(Text(told(f"runs retry {run.id}"), style="cyan"))
        if start := fork_at(run.failure):
            lines.append(Text(told(f"runs fork {run.id} --keep {start}"), style="cyan"))
    yield Padding(Group(*lines), (1, 0, 0, 0))

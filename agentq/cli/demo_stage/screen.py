"""One calm screen: runs with step and progress, workers with their slots, and what happened."""

from __future__ import annotations

from collections.abc import Mapping

from rich.console import Group, RenderableType
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from agentq.cli.demo_stage.crew import Fate, Member
from agentq.cli.demo_stage.story import Event, Look, Story
from agentq.cli.output import table
from agentq.cli.text import SYMBOLS, bar, one_line
from agentq.message import Run, RunState

DIM = "bright_black"
_TONES: Mapping[str, str] = {"plain": "", "bad": "red", "warn": "yellow", "good": "green"}
_FATES: Mapping[Fate, tuple[str, str]] = {
    Fate.WORKING: ("", "cyan"),
    Fate.KILLED: ("killed", "red"),
    Fate.DRAINING: ("draining", "yellow"),
    Fate.DRAINED: ("drained", "yellow"),
    Fate.DIED: ("died", "red"),
}
_PROGRESS = 14
_WIDTHS = (3, 12, _PROGRESS, 5, 9, 14, 7)
_GAPS = 6
"""Lines of the screen that are neither a run, a worker nor an event."""


def render(look: Look, story: Story, *, title: str, width: int, height: int) -> RenderableType:
    """Draw a look; the events get the lines that are left."""
    rows = [run for run in look.runs if run.parent_id is None or not run.state.final]
    left = height - len(rows) - len(story.crew.members) - _GAPS
    head = Text.assemble(("agentq demo", "bold"), ("  " + title, DIM), f"  {look.at_s:4.1f} s")
    parts: list[RenderableType] = [head, Padding(_runs(rows, look, story, width), (1, 0, 0, 0))]
    parts.append(Padding(_workers(look, story), (1, 0, 0, 0)))
    if left > 0 and story.events:
        parts.append(Padding(_events(story.events[-left:], width), (1, 0, 0, 0)))
    return Group(*parts)


def event_line(event: Event, width: int) -> Text:
    """One event as a line."""
    text = one_line(event.text, max(width - 10, 20))
    return Text.assemble((f"{event.at_s:5.1f} s  ", DIM), (text, _TONES[event.tone]))


def _runs(rows: list[Run], look: Look, story: Story, width: int) -> Table:
    made = table("run", "goal", "", "steps", "last", "", "resumed", right=("steps",), grow="goal")
    for column, width_of in zip(made.columns, _WIDTHS, strict=True):
        column.min_width = width_of  # so that nothing moves when a word changes
    for run in sorted(rows, key=lambda run: [int(part) for part in story.label(run).split(".")]):
        made.add_row(
            Text(story.label(run), style=DIM if run.parent_id else ""),
            _goal(run, story, width),
            _progress(run),
            Text(str(run.steps) if run.steps else "", style=DIM),
            Text(story.steps.get(run.id, ""), style=DIM),
            _state(run, look, story),
            Text(f"at {story.marks[run.id]}" if run.id in story.marks else "", style="green"),
        )
    return made


def _goal(run: Run, story: Story, width: int) -> Text:
    text = story.goals.get(run.id, run.task)
    return Text(one_line(text, width), style=DIM if run.parent_id else "")


def _progress(run: Run) -> Text:
    share = 1.0 if run.state is RunState.SUCCEEDED else run.progress or 0.0
    return Text(bar(share, _PROGRESS), style=SYMBOLS[run.state][1])


def _state(run: Run, look: Look, story: Story) -> Text:
    sign, colour = SYMBOLS[run.state]
    word = run.state.value
    if run.state is RunState.WAITING:
        word = "for a person" if run.id in look.asks else "for children"
    if run.state is RunState.RUNNING:
        owner = next((worker for worker in look.workers if worker.id == run.owner), None)
        member = story.crew.by_pid(owner.pid) if owner else None
        gone = member is None or not member.alive
        word, colour = (member.name if member else "—", "red" if gone else colour)
    return Text(f"{sign} {word}", style=colour)


def _workers(look: Look, story: Story) -> Table:
    made = Table.grid(padding=(0, 2, 0, 0))
    for member in story.crew.members:
        busy = _busy(look, member) if member.alive else 0
        note, colour = _FATES[member.fate]
        shown = Text("●" * busy, style=colour) + Text("○" * max(story.crew.slots - busy, 0), style=DIM)
        ended = not member.alive
        made.add_row(
            Text(member.name, style=DIM if ended else ""),
            Text(f"pid {member.pid}", style=DIM),
            Text("") if ended else shown,
            Text(note or ("starting" if look.worker_of(member.pid) is None else ""), style=colour if note else DIM),
        )
    return made


def _busy(look: Look, member: Member) -> int:
    worker = look.worker_of(member.pid)
    return len(look.owned_by(worker.id)) if worker else 0


def _events(events: list[Event], width: int) -> RenderableType:
    return Group(*(event_line(event, width) for event in events))

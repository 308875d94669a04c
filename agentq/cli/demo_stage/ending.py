"""The end of the demo: the tally with its sources, and one report as the user would get it."""

from __future__ import annotations

from collections.abc import Mapping

from rich.console import Group, RenderableType
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from agentq.cli.demo_agent.values import Report
from agentq.cli.demo_stage.tally import Tally
from agentq.cli.text import count

DIM = "bright_black"
_FINDINGS = 5


def render_tally(tally: Tally, strikes: Mapping[str, int]) -> RenderableType:
    """Draw the numbers; those that must be zero are green when they are."""
    killed, drained = strikes.get("kill", 0), strikes.get("drain", 0)
    grid = Table.grid(padding=(0, 2, 0, 0))
    grid.add_column(justify="right")
    grid.add_column(no_wrap=True)
    grid.add_column(style=DIM)
    kept = count(tally.kept, "finished step")
    rows = [
        (tally.runs, "runs", f"{tally.succeeded} succeeded, {tally.children} of them children", ""),
        (killed + drained, "workers taken away", f"{killed} by SIGKILL, {drained} by SIGTERM, while they worked", ""),
        (
            tally.resumed_after_kill + tally.resumed_after_drain,
            "runs resumed elsewhere",
            f"{tally.resumed_after_kill} after the kill, {tally.resumed_after_drain} after the drain; {kept} not repeated",
            "",
        ),
        (
            tally.executed,
            "steps executed",
            f"bodies that began, by the effects file; {tally.committed} steps in the journals",
            "",
        ),
        (
            tally.repeated,
            "steps executed again",
            _why_again(tally),
            "" if tally.repeated == tally.by_kill + tally.by_failure else "red",
        ),
        (tally.twice, "steps committed twice", "same place in a journal, two results", "must"),
        (tally.unexplained, "steps unaccounted for", "in the journal but not in the effects file, or the reverse", "must"),
        (tally.lost, "runs lost", "enqueued and not succeeded", "must"),
    ]
    for number, name, why, style in rows:
        colour = ("red" if number else "green") if style == "must" else style
        grid.add_row(Text(f"{number:,}", style=f"bold {colour}".strip()), Text(name, style=colour), why)
    return grid


def _why_again(tally: Tally) -> str:
    parts = [f"{tally.by_kill} were under way in the killed worker"]
    if tally.by_failure:
        parts.append(f"{tally.by_failure} had failed")
    if other := tally.repeated - tally.by_kill - tally.by_failure:
        parts.append(f"{other} for no known reason")
    return ", ".join(parts)


def render_report(report: Report) -> RenderableType:
    """Draw a report: goal, answer, findings with the lines they stand on."""
    lines: list[RenderableType] = [
        Text(report.goal, style="bold"),
        Text(f"{report.model}; {count(report.turns, 'turn')}, {count(report.tool_calls, 'tool call')}", style=DIM),
        Padding(Text(report.answer), (1, 0, 1, 0)),
    ]
    for finding in report.findings[:_FINDINGS]:
        lines.append(Text(f"• {finding.claim}", overflow="ellipsis", no_wrap=True))
        lines += [
            Text(f"  {s.file}:{s.line}  {s.text}", style=DIM, overflow="ellipsis", no_wrap=True) for s in finding.sources[:1]
        ]
    if more := len(report.findings) - _FINDINGS:
        lines.append(Text(f"  and {more} more" if more > 0 else "", style=DIM))
    return Group(*lines)

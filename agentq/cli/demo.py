"""``agentq demo``: see runs survive, on this machine, in half a minute."""

from __future__ import annotations

import asyncio
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import click
from rich.console import Console
from rich.live import Live
from rich.text import Text

from agentq.cli.demo_agent.model import model_from
from agentq.cli.demo_stage.ending import render_report, render_tally
from agentq.cli.demo_stage.screen import DIM, event_line, render
from agentq.cli.demo_stage.story import Look, Story
from agentq.cli.demo_stage.tally import Tally
from agentq.cli.output import console as new_console
from agentq.cli.problem import EX_FAILED
from agentq.cli.teach import Teaching

_WIDTH = 120
"""Longer lines are hard to read, however wide the terminal is."""

_ALL_LINES = 10_000

Show = Callable[[Look, Story], None]


@click.command(cls=Teaching, short_help="See it work: kill and drain workers, lose nothing.")
@click.option("--plain", is_flag=True, help="Print lines instead of a live screen; the default where there is no terminal.")
@click.option("--keep", is_flag=True, help="Keep the demo's folder and say how to look around in it.")
def demo(*, plain: bool, keep: bool) -> None:
    r"""See it work: kill and drain workers, lose nothing.

    Starts three worker processes on a SQLite file in a temporary folder and gives them research questions about Python's
    own standard library. Kills one worker in the middle of a step, drains another, and shows how their runs go on
    elsewhere. Every number at the end is counted, from the store and from a file that the steps write to. Takes about
    half a minute; nothing leaves this machine unless AGENTQ_DEMO_MODEL names a model (with OPENAI_BASE_URL and
    OPENAI_API_KEY). Exits with 1 if a promise was broken.

    \b
    Examples:
      agentq demo
      agentq demo --plain --keep
    """
    console = new_console()
    console.width = min(console.width, _WIDTH)
    folder = Path(tempfile.mkdtemp(prefix="agentq-demo-"))
    try:
        true, run_id = _perform(console, folder, live=console.is_terminal and not plain)
        if keep:
            _tour(console, folder, run_id)
    finally:
        if not keep:
            shutil.rmtree(folder, ignore_errors=True)
    if not true:
        raise SystemExit(EX_FAILED)


def _perform(console: Console, folder: Path, *, live: bool) -> tuple[bool, str]:
    from agentq.cli.demo_stage.stage import Stage  # noqa: PLC0415 - the help does not need the agent

    title = f"SQLite, {model_from().name}"
    with (_screen if live else _lines)(console, title) as show:
        stage = Stage(folder, show)
        tally, report = asyncio.run(stage.play())
    console.print()
    console.print(render_tally(tally, stage.strikes))
    if report:
        console.print()
        console.rule(Text("one of the reports", style=DIM), style=DIM, align="left")
        console.print(render_report(report))
    console.print()
    resumed = stage.story.resumptions
    return _verdict(console, tally, stage.strikes), resumed[0].run_id if resumed else "last"


def _verdict(console: Console, tally: Tally, strikes: dict[str, int]) -> bool:
    if not tally.true:
        console.print(Text("A promise was broken: see the numbers in red. Run it again with --keep and look.", style="red"))
    elif not (strikes.get("kill") and strikes.get("drain") and tally.resumed_after_kill):
        console.print(Text("The runs were over before a worker could be taken away: this demo has shown nothing.", style="red"))
        return False
    return tally.true


@contextmanager
def _screen(console: Console, title: str) -> Iterator[Show]:
    with Live(console=console, auto_refresh=False, vertical_overflow="crop") as live:
        seen: list[tuple[Look, Story]] = []

        def show(look: Look, story: Story) -> None:
            seen[:] = [(look, story)]
            live.update(render(look, story, title=title, width=console.width, height=console.height), refresh=True)

        yield show
        live.vertical_overflow = "visible"
        for look, story in seen:  # what stays on the screen is the whole story
            live.update(render(look, story, title=title, width=console.width, height=_ALL_LINES), refresh=True)


@contextmanager
def _lines(console: Console, title: str) -> Iterator[Show]:
    console.print(f"agentq demo: {title}")
    printed = 0

    def show(look: Look, story: Story) -> None:
        del look
        nonlocal printed
        for event in story.events[printed:]:
            console.print(event_line(event, console.width))
        printed = len(story.events)

    yield show


def _tour(console: Console, folder: Path, run_id: str) -> None:
    store = f"--store sqlite:///{folder / 'agentq.db'}"
    console.print("Look around:")
    for command in (f"agentq runs list {store}", f"agentq runs show {run_id} {store}", f"ls {folder}"):
        console.print(f"  {command}", soft_wrap=True)

"""``agentq top``: one live screen of queues, workers with their slots, and the runs that are on their way."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import click
from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.padding import Padding
from rich.text import Text

from agentq.cli import output
from agentq.cli.brokers import meant_broker
from agentq.cli.problem import Problem
from agentq.cli.queues import QueueSight, notes, queue_table, sight_of
from agentq.cli.reading import broker_option, json_option, read, refuse_unnamed, store_option
from agentq.cli.runs import about, asked
from agentq.cli.target import load_app
from agentq.cli.teach import Teaching
from agentq.cli.text import age, count, duration, short_ids
from agentq.cli.workers import worker_table
from agentq.message import Census, Run, RunQuery, RunState
from agentq.settings import redacted

if TYPE_CHECKING:
    from agentq.app import AgentQ
    from agentq.stores.base import Store

_ACTIVE = (RunState.RUNNING, RunState.WAITING)
_QUIET_S = 2.0
"""How often the screen moves when nothing happens."""
_BROKER_S = 3.0
"""Between two looks into the broker: its figures are estimates, and each look is a request."""
_CUT = ("TASK", "LAST STEP", "")


@click.command(cls=Teaching, short_help="Watch queues, workers and running runs on one screen.")
@click.argument("target", required=False, metavar="[MODULE:AQ]")
@click.option("--once", is_flag=True, help="Print it once and exit.")
@click.option(
    "--interval",
    default=0.5,
    show_default=True,
    metavar="SECONDS",
    type=click.FloatRange(0.1, 60),
    help="Between two looks at least.",
)
@store_option
@broker_option
@json_option
def top(
    *, target: str | None, once: bool, interval: float, store_url: str | None, broker_url: str | None, as_json: bool
) -> None:
    r"""Watch queues, workers and running runs on one screen. Ctrl-C leaves.

    With a broker, MODULE:AQ names the app whose queues are asked for; without it, live workers and the newest runs tell.

    \b
    Examples:
      agentq top
      agentq top --once
    """
    app = load_app(target) if target else None
    url = meant_broker(broker_url, app)
    refuse_unnamed(store_url, url, app)
    if as_json:
        sight = read(store_url, lambda store: _look(store, 1000), app=app)
        output.write_json({
            "queues": list(sight.census.queues),
            "workers": [output.plain(worker) for worker in sight.census.workers],
            "runs": [output.plain(run) for run in sight.active],
        })  # fmt: skip
        return
    console = output.console()
    if not once and not console.is_terminal:
        raise Problem("`agentq top` draws on a terminal, and stdout is none", hint="agentq top --once prints it once", code=2)
    try:
        read(
            store_url,
            lambda store: _once(store, console, url, app) if once else _live(store, console, interval, url, app),
            app=app,
        )
    except KeyboardInterrupt:
        return


@dataclass(frozen=True, slots=True)
class Sight:
    """What is on the screen."""

    queues: QueueSight
    active: Sequence[Run]
    ended: Sequence[Run]
    waits: Mapping[str, str]
    """Run id to what it waits for."""

    @property
    def census(self) -> Census:
        """Queues and workers."""
        return self.queues.census


async def _look(store: Store, limit: int, broker: QueueSight | None = None) -> Sight:
    """Look into the store; what lies in the broker was looked up before."""
    queues = QueueSight(await store.census()) if broker is None else replace(broker, census=await store.census())
    active = await store.runs(RunQuery(states=_ACTIVE, limit=limit))
    ended = await store.runs(RunQuery(states=(RunState.SUCCEEDED, RunState.FAILED, RunState.CANCELLED), limit=5))
    active.sort(key=lambda run: (run.state is not RunState.RUNNING, run.started_at or run.submitted_at))
    return Sight(queues, active, ended, await asked(store, active))


async def _once(store: Store, console: Console, url: str | None, app: AgentQ | None) -> None:
    sight = await _look(store, 50, await sight_of(store, url, app))
    console.print(screen(sight, where=store.where, width=console.width, height=0, now=time.time()))


async def _live(store: Store, console: Console, interval: float, url: str | None, app: AgentQ | None) -> None:
    tick = -1
    seen = await sight_of(store, url, app)
    looking = asyncio.create_task(sight_of(store, url, app)) if url else None
    asked_at = time.monotonic()
    with Live(console=console, screen=True, auto_refresh=False) as live:
        while True:
            if looking is not None and looking.done() and time.monotonic() - asked_at >= _BROKER_S:
                seen, looking = looking.result(), asyncio.create_task(sight_of(store, url, app))
                asked_at = time.monotonic()
            sight = await _look(store, console.height, seen)
            size = {"width": console.width, "height": console.height}
            live.update(screen(sight, where=store.where, now=time.time(), **size), refresh=True)
            await asyncio.sleep(interval)
            tick = await store.watch("news", tick, max(0.0, _QUIET_S - interval))


def screen(sight: Sight, *, where: str, width: int, height: int, now: float) -> RenderableType:
    """Return the whole screen; with a ``height`` the runs are cut to what fits."""
    census, active, ended = sight.census, sight.active, sight.ended
    busy, slots = (sum(getattr(worker, name) for worker in census.workers) for name in ("busy", "slots"))
    waiting = sum(stats.runnable for stats in census.queues)
    inbox = sum(one.ready for one in sight.queues.inboxes.values() if not one.error)
    arriving = f" · inbox {inbox:,}" if sight.queues.inboxes else ""
    title = Text.assemble(
        ("agentq top", "bold"),
        (f"  {time.strftime('%H:%M:%S', time.localtime(now))}  ", "bright_black"),
        f"{count(len(census.workers), 'worker')} · {busy} of {count(slots, 'slot')} busy · backlog {waiting:,}{arriving}",
        (f"  {redacted(where)}", "bright_black"),
        overflow="ellipsis",
        no_wrap=True,
    )
    parts: list[RenderableType] = [title]
    ids = short_ids([run.id for run in (*active, *ended)])
    remarks = list(notes(sight.queues))
    if sight.queues.rows:
        parts.append(_section(Group(queue_table(sight.queues), *remarks)))
    if census.workers:
        parts.append(_section(worker_table(census.workers, now)))
    room = height - 8 - len(sight.queues.rows) - len(remarks) - len(census.workers) - len(ended) if height else len(active)
    parts.append(_section(_runs(sight, ids, max(3, room), width, now)))
    if ended:
        parts.append(_section(_ended(ended, ids, width, now)))
    return Group(*parts)


def _section(inner: RenderableType) -> Padding:
    return Padding(inner, (1, 0, 0, 0))


def _runs(sight: Sight, ids: Mapping[str, str], room: int, width: int, now: float) -> RenderableType:
    active = sight.active
    if not active:
        return Text("nothing runs or waits", style="bright_black")
    made = output.table("RUN", "TASK", "STATE", "STEPS", "FOR", "LAST STEP", "", right=("STEPS", "FOR"), cut=_CUT)
    for run in active[:room]:
        made.add_row(
            Text(ids[run.id], style="bold"),
            output.short(run.task),
            output.state(run),
            Text(str(run.steps)),
            Text(duration(max(0.0, now - (run.started_at or run.submitted_at))), style="bright_black"),
            output.short(run.last_step),
            output.short(about(run, width, sight.waits.get(run.id, ""))),
        )
    more = Text(f"… and {len(active) - room} more", style="bright_black") if len(active) > room else Text("")
    return Group(made, more) if more.plain else made


def _ended(ended: Sequence[Run], ids: Mapping[str, str], width: int, now: float) -> RenderableType:
    made = output.table("ENDED", "TASK", "STATE", "STEPS", "AGO", "", right=("STEPS", "AGO"), cut=_CUT)
    for run in ended:
        made.add_row(
            ids[run.id],
            output.short(run.task),
            output.state(run),
            *output.cells(run.steps, age(max(0.0, now - (run.finished_at or now))), dim=(0, 1)),
            output.short(about(run, width)),
        )
    return made

"""``agentq runs``: list them, look into one, steer them. Needs only the store, not the code of the tasks."""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING

import click
from rich.text import Text

from agentq.cli import output, steer
from agentq.cli.early import arrived, find_or_submitted, told_submitted
from agentq.cli.problem import Problem, note
from agentq.cli.reading import RunId, broker_option, find_run, json_option, read, store_option, told
from agentq.cli.shown import RunView, load_view, view_json
from agentq.cli.teach import TeachingGroup
from agentq.cli.text import age, bar, count, duration, moment, one_line, reason, short_ids
from agentq.cli.timeline import render
from agentq.message import Run, RunQuery, RunState, Wait, WaitKind

if TYPE_CHECKING:
    from agentq.stores.base import Store

_BAR = 8
_STATES = [one.value for one in RunState if one is not RunState.SUBMITTED]
"""Those that a row can have."""
_UNFINISHED = tuple(one for one in RunState if not one.final)
_MANY = 100_000


@click.group(cls=TeachingGroup)
def runs() -> None:
    r"""List runs, look into one, cancel, pause, retry, answer or fork it.

    RUN is a run's id, its first characters (4 or more), or `last`: the newest run that no other run called.

    \b
    Examples:
      agentq runs list --state running --state waiting
      agentq runs show last
      agentq runs signal 06cknh approved true
    """


@runs.command("list")
@click.option("-s", "--state", "states", multiple=True, type=click.Choice(_STATES), help="Only these.")
@click.option("-q", "--queue", metavar="NAME", help="Only of this queue.")
@click.option("-t", "--task", metavar="NAME", help="Only of this task.")
@click.option("--tenant", metavar="NAME", help="Only of this tenant.")
@click.option("--paused", is_flag=True, help="Only those that were paused and are not over.")
@click.option("--parent", "parent_id", metavar="RUN", type=RunId(), help="Only the children of this run.")
@click.option("-n", "--limit", default=30, show_default=True, metavar="N", type=click.IntRange(1, 100_000), help="At most.")
@store_option
@json_option
def list_runs(
    *,
    states: tuple[str, ...],
    queue: str | None,
    task: str | None,
    tenant: str | None,
    parent_id: str | None,
    paused: bool,
    limit: int,
    store_url: str | None,
    as_json: bool,
) -> None:
    r"""List runs, newest first.

    \b
    Examples:
      agentq runs list
      agentq runs list --state failed --task report
      agentq runs list --json | jq -r '.[].id'
    """

    async def query(store: Store) -> list[Run]:
        parent = (await find_run(store, parent_id)).id if parent_id else None
        among = tuple(RunState(one) for one in states) or (_UNFINISHED if paused else ())
        wanted = RunQuery(
            states=among, queue=queue, task=task, tenant=tenant, parent_id=parent, limit=_MANY if paused else limit
        )
        listed = await store.runs(wanted)
        return [run for run in listed if run.paused and not run.state.final][:limit] if paused else listed

    async def look(store: Store) -> tuple[list[Run], dict[str, str]]:
        listed = await query(store)
        return listed, {} if as_json else await asked(store, listed)

    found, waits = read(store_url, look)
    if as_json:
        output.write_json([output.plain(run) for run in found])
        return
    if not found:
        click.echo("no runs" + (" match" if any((states, queue, task, tenant, parent_id, paused)) else " yet"))
        return
    _table(found, waits, full=len(found) == limit)


def _table(found: list[Run], waits: Mapping[str, str], *, full: bool) -> None:
    console = output.console()
    ids = short_ids([run.id for run in found])
    now = time.time()
    tried = any(run.attempt > 1 for run in found)
    numbers = ("TRY",) * tried + ("STEPS", "AGE", "TOOK")
    shown = output.table("RUN", "TASK", "STATE", *numbers, "", right=numbers, cut=("TASK", ""))
    for run in found:
        steps, old, took = output.cells(run.steps, age(now - run.submitted_at), _took(run, now), dim=(1,))
        shown.add_row(
            Text(ids[run.id], style="bold" if not run.state.final else ""),
            output.short(run.task),
            output.state(run),
            *output.cells(run.attempt, dim=(0,) if run.attempt == 1 else ())[:tried],
            steps,
            old,
            took,
            output.short(about(run, console.width, waits.get(run.id, ""))),
        )
    console.print(shown)
    if full:
        console.print(Text(f"… the newest {len(found)}; -n shows more", style="bright_black"))


def _took(run: Run, now: float) -> str:
    """How long from its first start to its end, or to now."""
    if run.started_at is None:
        return ""
    return duration(max(0.0, (run.finished_at or now) - run.started_at))


async def asked(store: Store, runs: Iterable[Run], most: int = 50) -> dict[str, str]:
    """Say what waiting runs wait for: run id to a few words; only for the first ``most``."""
    waiting = [run for run in runs if run.state is RunState.WAITING][:most]
    return {run.id: waits_for(await store.waits(run.id)) for run in waiting}


def waits_for(waits: Sequence[Wait]) -> str:
    """Say what a run waits for; what a person is asked comes first."""
    for wait in sorted(waits, key=lambda one: one.kind is not WaitKind.SIGNAL):
        if wait.kind is WaitKind.SIGNAL:
            return f"? {wait.ask or wait.ref}"
        children = sum(one.kind is WaitKind.CHILD for one in waits)
        if children:
            return f"for {count(children, 'child', 'children')}"
        return f"until {moment(wait.due_at)}"
    return ""


def about(run: Run, width: int, waits: str = "") -> Text:
    """Say in one line what a run is doing, what it waits for, or what became of it."""
    if run.state is RunState.FAILED and run.failure:
        return Text(one_line(reason(run.failure), width), style="red")
    if run.state.final:
        return Text("")
    text = Text()
    if run.progress is not None:
        text.append(bar(run.progress, _BAR), style="cyan on grey23").append(f" {run.progress:4.0%} ", style="cyan")
    if run.state is RunState.QUEUED and run.due_at and run.due_at > time.time():
        text.append(f"in {duration(run.due_at - time.time())} ", style="bright_black")
    if run.failure and run.state is RunState.QUEUED:
        text.append(one_line(f"after {reason(run.failure)}", width), style="yellow")
    elif waits:
        text.append(one_line(waits, width), style="yellow")
    else:
        text.append(one_line(run.progress_note or run.last_step, width))
    return text


@runs.command("show", short_help="Show one run: a timeline of its steps, what it waits for, its end.")
@click.argument("run", type=RunId(), metavar="RUN")
@click.option("-f", "--follow", is_flag=True, help="Keep looking until the run is final.")
@click.option("--all", "everything", is_flag=True, help="Show every step, not only the first and last ones.")
@click.option("--values", is_flag=True, help="Show what each step returned.")
@store_option
@broker_option
@json_option
def show(
    *,
    run: str,
    follow: bool,
    everything: bool,
    values: bool,
    store_url: str | None,
    broker_url: str | None,
    as_json: bool,
) -> None:
    r"""Show one run: what it is, a timeline of its steps, what it waits for, what became of it.

    With a broker, a run whose whole id is not in the store is `submitted`: in the broker, or never heard of.

    \b
    Examples:
      agentq runs show last
      agentq runs show 06cknh --follow
      agentq runs show 06cknh --json | jq .steps
    """
    if follow and as_json:
        raise Problem("--follow draws a screen; --json prints once", hint="leave one of them out", code=2)
    if follow:
        read(store_url, lambda store: _follow(store, run, broker_url, values=values))
        return

    async def look(store: Store) -> RunView:
        found = await find_or_submitted(store, run, broker_url)
        if found.state is RunState.SUBMITTED:
            return RunView(run=found, rows=())
        return await load_view(store, found, values=values or as_json)

    view = read(store_url, look)
    if view.run.state is RunState.SUBMITTED:
        _submitted(view.run, as_json=as_json)
        return
    if as_json:
        output.write_json(view_json(view))
        return
    console = output.console()
    console.print(render(view, width=console.width, now=time.time(), everything=everything, values=values))


async def _follow(store: Store, word: str, broker_url: str | None, *, values: bool) -> None:
    from agentq.cli.follow import follow_run  # noqa: PLC0415 - draws live, which the others do not

    found = await find_or_submitted(store, word, broker_url)
    if found.state is RunState.SUBMITTED:
        note(f"{told_submitted(found)}; waiting for it to arrive")
        await arrived(store, found.id)
    await follow_run(store, found.id, values=values)


def _submitted(run: Run, *, as_json: bool) -> None:
    if as_json:
        output.write_json({"id": run.id, "state": run.state.value})
        return
    click.echo(told_submitted(run))
    note(
        f"a worker of its queue takes it into the store: {told('queues')} shows who serves it, {told('dead list')} what failed"
    )


for _command in steer.COMMANDS:
    runs.add_command(_command)

"""``agentq workers``: who is there, and what each may do."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import TYPE_CHECKING

import click
from rich.table import Table
from rich.text import Text

from agentq.cli import output
from agentq.cli.problem import Problem
from agentq.cli.reading import find_worker, json_option, read, store_option
from agentq.cli.teach import TeachingGroup
from agentq.cli.text import WORKER_COLOURS, age, count
from agentq.message import Reply, SetWorker, Worker, WorkerState

if TYPE_CHECKING:
    from agentq.stores.base import Store

_QUIET_S = 15.0
"""A worker that was not seen for so long has missed heartbeats."""


@click.group(cls=TeachingGroup)
def workers() -> None:
    r"""List workers, cordon, uncordon or drain them.

    WORKER is a worker's id, the first characters of it, or its pod's name.
    A cordoned worker claims nothing more but finishes what it has; a draining one hands its runs back at their next step.

    \b
    Examples:
      agentq workers list
      agentq workers cordon 3f2a
      agentq workers drain --all
    """


@workers.command("list")
@store_option
@json_option
def list_workers(*, store_url: str | None, as_json: bool) -> None:
    r"""List the live workers with their slots and where they are, and for a while those that are lost.

    A worker is lost when it was not seen for its lease: it has died, or cannot reach the store.

    \b
    Examples:
      agentq workers list
      agentq workers list --json | jq -r '.[] | select(.busy == 0).id'
    """
    found = read(store_url, lambda store: store.census()).workers
    if as_json:
        output.write_json([output.plain(worker) for worker in found])
    elif not found:
        click.echo("no workers: start one with `agentq worker module:aq`")
    else:
        output.console().print(worker_table(found, time.time()))


def worker_table(found: Sequence[Worker], now: float) -> Table:
    """Return the table of workers."""
    columns = ("WORKER", "STATE", "SLOTS", "", "UP", "SEEN", "POOL", "WHERE", "QUEUES")
    made = output.table(*columns, right=("SLOTS", "UP", "SEEN"), cut=("POOL", "WHERE", "QUEUES"))
    for worker in found:
        quiet = now - worker.seen_at > _QUIET_S
        made.add_row(
            Text(worker.id[:8], style="bold"),
            Text(worker.state.value, style=WORKER_COLOURS[worker.state]),
            Text("none" if worker.state is WorkerState.LOST else f"{worker.busy}/{worker.slots}"),
            slots_bar(worker),
            Text(age(now - worker.started_at), style="bright_black"),
            Text(age(max(0.0, now - worker.seen_at)), style="yellow" if quiet else "bright_black"),
            output.short(worker.pool + (f" {worker.version}" if worker.version else "")),
            output.short(worker.pod or f"{worker.host} {worker.pid}"),
            output.short(" ".join(worker.queues), style="bright_black"),
        )
    return made


def slots_bar(worker: Worker, most: int = 16) -> Text:
    """Draw slots as squares; with many, each stands for several."""
    if not worker.slots or worker.state is WorkerState.LOST:
        return Text("")
    shown = min(worker.slots, most)
    full = min(shown, -(-worker.busy * shown // worker.slots))
    return Text.assemble(("■" * full, "cyan"), ("□" * (shown - full), "bright_black"))


def _setter(verb: str, target: WorkerState, text: str) -> click.Command:
    examples = "\n".join(f"  agentq workers {verb} {words}" for words in ("3f2a", "--pool gpu", "--all"))

    @click.command(verb, help=f"{text}\n\n\b\nExamples:\n{examples}", short_help=text.partition(".")[0] + ".")
    @click.argument("names", nargs=-1, metavar="WORKER…")
    @click.option("--all", "every", is_flag=True, help="Every live worker.")
    @click.option("--pool", metavar="NAME", help="Every live worker of this pool.")
    @store_option
    @json_option
    def command(*, names: tuple[str, ...], every: bool, pool: str | None, store_url: str | None, as_json: bool) -> None:
        if not (names or every or pool):
            raise Problem("say which: WORKER…, --pool NAME or --all", hint="agentq workers list", code=2)

        async def send(store: Store) -> list[tuple[Worker, Reply]]:
            if every or pool:
                found = [one for one in (await store.census()).workers if every or one.pool == pool]
            else:
                found = [await find_worker(store, name) for name in names]
            return [(one, await store.command(SetWorker(worker_id=one.id, state=target))) for one in found]

        outcomes = read(store_url, send)
        if as_json:
            output.write_json([{"id": worker.id, "state": target.value, "reply": reply.value} for worker, reply in outcomes])
            return
        if not outcomes:
            click.echo("no live worker matches")
        for worker, reply in outcomes:
            more = f", {count(worker.busy, 'run')} to end" if worker.busy and target is not WorkerState.ACTIVE else ""
            said = "it has gone" if reply is Reply.NOT_FOUND else f"{target.value}{more}"
            click.echo(f"{worker.id}  {worker.pod or worker.host}  {said}")

    return command


workers.add_command(_setter("cordon", WorkerState.CORDONED, "Let workers claim nothing more; they finish what they have."))
workers.add_command(_setter("uncordon", WorkerState.ACTIVE, "Let cordoned workers claim again."))
workers.add_command(
    _setter("drain", WorkerState.DRAINING, "Let workers hand their runs back at the next step, and exit. Within a heartbeat.")
)

"""``agentq queues``: what is queued, running, waiting, and who serves it."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

import click
from rich.table import Table
from rich.text import Text

from agentq.cli import output
from agentq.cli.reading import json_option, read, store_option
from agentq.cli.teach import Teaching
from agentq.cli.text import age

if TYPE_CHECKING:
    from agentq.message import QueueStats, Worker


@click.command(cls=Teaching, short_help="Show queues: backlog, oldest age, what runs and waits.")
@store_option
@json_option
def queues(*, store_url: str | None, as_json: bool) -> None:
    r"""Show every queue: its backlog and oldest age, what runs, what waits, and who serves it.

    BACKLOG is what a worker would get now; DELAYED comes later; WAITING needs no worker.

    \b
    Examples:
      agentq queues
      agentq queues --json | jq '.[] | select(.runnable > 100)'
    """
    census = read(store_url, lambda store: store.census())
    if as_json:
        output.write_json([{**_fields(stats), "slots": _slots(stats, census.workers)} for stats in census.queues])
    elif not census.queues:
        click.echo("nothing is queued, running or waiting, and no worker serves a queue")
    else:
        output.console().print(queue_table(census.queues, census.workers))


def _fields(stats: QueueStats) -> dict[str, object]:
    return {name: getattr(stats, name) for name in stats.__struct_fields__}


def _slots(stats: QueueStats, workers: Iterable[Worker]) -> int:
    """Count the slots of active workers that serve a queue; a worker of several queues counts for each."""
    return sum(worker.slots for worker in workers if stats.queue in worker.queues and worker.state.value == "active")


def queue_table(queues: Sequence[QueueStats], workers: Sequence[Worker]) -> Table:
    """Return the table of queues."""
    numbers = ("BACKLOG", "OLDEST", "RUNNING", "DELAYED", "WAITING", "PARKED", "PAUSED", "SLOTS")
    made = output.table("QUEUE", *numbers, right=numbers, cut=("QUEUE",))
    for stats in queues:
        slots = _slots(stats, workers)
        unserved = stats.runnable and not slots
        made.add_row(
            output.short(stats.queue),
            Text(f"{stats.runnable:,}", style="bold" if stats.runnable else "bright_black"),
            Text(age(stats.oldest_age_s) if stats.runnable else "", style="yellow" if stats.oldest_age_s > 60 else ""),  # noqa: PLR2004 - a minute is long
            Text(f"{stats.running:,}", style="cyan" if stats.running else "bright_black"),
            *output.cells(stats.delayed, stats.waiting, stats.parked, stats.paused),
            Text("none" if unserved else str(slots), style="red" if unserved else "" if slots else "bright_black"),
        )
    return made

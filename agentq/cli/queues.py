"""``agentq queues``: what lies in the broker, what is queued, running, waiting, and who serves it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final, TypeAlias

import click
import msgspec
from rich.table import Table
from rich.text import Text

from agentq.brokers.base import Backlog
from agentq.cli import output
from agentq.cli.brokers import UNNAMED, backlogs, meant_broker, queues_of, shown
from agentq.cli.reading import broker_option, json_option, read, refuse_unnamed, store_option, told
from agentq.cli.strangers import strangers
from agentq.cli.target import load_app
from agentq.cli.teach import Teaching
from agentq.cli.text import age, clean, count
from agentq.message import Census, QueueStats, RunQuery, RunState, WorkerState

if TYPE_CHECKING:
    from agentq.app import AgentQ
    from agentq.message import Worker
    from agentq.stores.base import Store

_LONG_S: Final = 60.0
"""An oldest age that is worth a colour."""
_DIM: Final = "bright_black"
_RUNS_ASKED: Final = 200
"""Newest queued runs that are looked at for a task or a queue that nobody has."""
Row: TypeAlias = tuple[QueueStats, Backlog | None]


@dataclass(frozen=True, slots=True)
class QueueSight:
    """Queues at one moment, in the store and in the broker."""

    census: Census
    inboxes: Mapping[str, Backlog] = field(default_factory=dict)
    """Queue to what lies of it in the broker."""
    brokered: bool = False
    trouble: str = ""
    """Why the broker could not be asked about any queue."""

    @property
    def rows(self) -> list[Row]:
        """Every queue of either, and every one that a worker serves, by name."""
        there = {stats.queue: stats for stats in self.census.queues}
        served = {queue for worker in self.census.workers if worker.state is WorkerState.ACTIVE for queue in worker.queues}
        names = sorted({*there, *self.inboxes, *served})
        return [(there.get(name) or QueueStats(queue=name), self.inboxes.get(name)) for name in names]


async def sight_of(store: Store, url: str | None, app: AgentQ | None = None) -> QueueSight:
    """Look at the queues, in the broker behind ``url`` too; what is wrong with that one is part of the answer."""
    census = await store.census()
    if url is None:
        return QueueSight(census)
    apps = await queues_of(store, census, app, strays=app is None)
    if not apps:
        return QueueSight(census, brokered=True, trouble=UNNAMED)
    rows = await backlogs(url, apps)
    return QueueSight(census, {row.queue: row for row in rows}, brokered=True)


@click.command(cls=Teaching, short_help="Show queues: backlog, oldest age, what runs and waits.")
@click.argument("target", required=False, metavar="[MODULE:AQ]")
@store_option
@broker_option
@json_option
def queues(*, target: str | None, store_url: str | None, broker_url: str | None, as_json: bool) -> None:
    r"""Show every queue: its backlog and oldest age, what runs and waits, what failed to arrive, and who serves it.

    \b
      INBOX    in the broker: a worker would receive it now
      TAKEN    delivered by the broker, not in the store yet
      BACKLOG  in the store: a worker would get it now
      DELAYED  comes later, in the broker and in the store together
      ORDERED  behind another run of its ordering key
      WAITING  needs no worker now
      DEAD     messages that could not become a run: agentq dead list

    Columns without figures are left out; ~ marks what the broker only estimates. The names of queues in a broker begin with
    the app's: MODULE:AQ tells it; without that, live workers and the newest runs do.

    \b
    Examples:
      agentq queues
      agentq queues hello:aq --broker sqs://eu-central-1
      agentq queues --json | jq '.[] | select(.runnable > 100)'
    """
    app = load_app(target) if target else None
    url = meant_broker(broker_url, app)
    refuse_unnamed(store_url, url, app)

    async def look(store: Store) -> tuple[QueueSight, list[str]]:
        sight = await sight_of(store, url, app)
        queued = () if as_json else await store.runs(RunQuery(states=(RunState.QUEUED,), limit=_RUNS_ASKED))
        return sight, strangers(queued, sight.census, app)

    sight, strange = read(store_url, look, app=app)
    if as_json:
        output.write_json([_json(stats, inbox, sight) for stats, inbox in sight.rows])
        return
    console = output.console()
    if sight.rows:
        console.print(queue_table(sight))
    elif not sight.trouble:
        click.echo("nothing is queued, running or waiting, and no worker serves a queue")
    for line in (*notes(sight), *(Text(line, style="yellow") for line in strange)):
        console.print(line, soft_wrap=True)


def _json(stats: QueueStats, inbox: Backlog | None, sight: QueueSight) -> dict[str, Any]:
    """Return one queue as a JSON object; what lies in the broker is null where there is none, else figures or an ``error``."""
    there: dict[str, Any] | None = None
    if inbox is not None and not inbox.error:
        there = {name: value for name, value in msgspec.structs.asdict(inbox).items() if name not in {"queue", "error"}}
    elif sight.brokered:
        there = {"error": shown(inbox.error) if inbox is not None else sight.trouble or "not asked: no app has this queue"}
    return {**msgspec.structs.asdict(stats), "slots": _slots(stats, sight.census.workers), "broker": there}


def _slots(stats: QueueStats, workers: Iterable[Worker]) -> int:
    """Count the slots of active workers that serve a queue; a worker of several queues counts for each."""
    return sum(worker.slots for worker in workers if stats.queue in worker.queues and worker.state.value == "active")


def queue_table(sight: QueueSight) -> Table:
    """Return the table of queues; columns in which no queue has anything are left out."""
    rows = sight.rows
    columns: dict[str, list[Text]] = {
        "INBOX": [_inbox(inbox) for _, inbox in rows],
        "TAKEN": [_number(inbox.taken if inbox else 0) for _, inbox in rows],
        "BACKLOG": [_number(stats.runnable, "bold") for stats, _ in rows],
        "OLDEST": [_oldest(stats, inbox) for stats, inbox in rows],
        "RUNNING": [_number(stats.running, "cyan") for stats, _ in rows],
        "DELAYED": [_number(stats.delayed + (inbox.delayed if inbox else 0)) for stats, inbox in rows],
        "WAITING": [_number(stats.waiting) for stats, _ in rows],
        "ORDERED": [_number(stats.ordered) for stats, _ in rows],
        "PARKED": [_number(stats.parked) for stats, _ in rows],
        "PAUSED": [_number(stats.paused) for stats, _ in rows],
        "DEAD": [_number(stats.dead + (inbox.dead if inbox else 0), "red") for stats, inbox in rows],
        "SLOTS": [_served(stats, inbox, _slots(stats, sight.census.workers)) for stats, inbox in rows],
    }
    always = {"BACKLOG", "RUNNING", "SLOTS"} | ({"INBOX"} if sight.brokered else set())
    kept = {
        name: cells for name, cells in columns.items() if name in always or any(cell.plain not in {"", "0"} for cell in cells)
    }
    made = output.table("QUEUE", *kept, right=kept, cut=("QUEUE",))
    for number, (stats, _) in enumerate(rows):
        made.add_row(output.short(stats.queue), *(cells[number] for cells in kept.values()))
    return made


def _number(value: int, style: str = "") -> Text:
    return Text(f"{value:,}", style=style if value else _DIM)


def _inbox(inbox: Backlog | None) -> Text:
    if inbox is None:
        return Text("")
    if inbox.error:
        return Text("?", style="red")
    return Text(f"{'~' if inbox.approximate and inbox.ready else ''}{inbox.ready:,}", style="bold" if inbox.ready else _DIM)


def _oldest(stats: QueueStats, inbox: Backlog | None) -> Text:
    """Return the age of the oldest that could start now, wherever it lies."""
    ages = [stats.oldest_age_s] if stats.runnable else []
    if inbox is not None and inbox.oldest_age_s is not None and not inbox.error:
        ages.append(inbox.oldest_age_s)
    oldest = max(ages, default=None)
    return Text(age(oldest), style="yellow" if oldest is not None and oldest > _LONG_S else "")


def _served(stats: QueueStats, inbox: Backlog | None, slots: int) -> Text:
    unserved = (stats.runnable or (inbox is not None and inbox.ready)) and not slots
    return Text("none" if unserved else str(slots), style="red" if unserved else "" if slots else _DIM)


def notes(sight: QueueSight) -> Iterator[Text]:
    """Say below the table what a figure alone does not: why one is missing, and what to do about dead letters."""
    if sight.trouble:
        yield Text(f"the broker's backlog is unknown: {sight.trouble}", style="red")
    inboxes = [inbox for _, inbox in sight.rows if inbox is not None]
    reasons: dict[str, list[str]] = {}
    for inbox in inboxes:
        if inbox.error:
            reasons.setdefault(shown(inbox.error), []).append(clean(inbox.queue))
    for reason, names in reasons.items():
        yield Text(f"{' '.join(names)}: the broker's backlog is unknown: {reason}", style="red")
    letters = sum(stats.dead for stats, _ in sight.rows)
    there = sum(inbox.dead for inbox in inboxes if not inbox.error)
    if letters:
        yield Text(f"{count(letters, 'dead letter')}: {told('dead list')}", style=_DIM)
    if there:
        said = (
            f"{count(there, 'message')} that the broker gave up {'lies' if there == 1 else 'lie'} in its own dead-letter queue"
        )
        yield Text(f"{said}: {told('dead collect')}", style=_DIM)

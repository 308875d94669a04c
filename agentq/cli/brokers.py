"""What the commands that look into a broker share: which one is meant, whose queues it has, and what lies in them."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Final, TypeVar

from agentq import settings
from agentq.brokers.base import Backlog
from agentq.cli.problem import Problem
from agentq.cli.reading import told
from agentq.cli.target import meant
from agentq.cli.text import clean
from agentq.errors import AgentQError, BrokerUnavailable
from agentq.message import RunQuery
from agentq.redact import redact

if TYPE_CHECKING:
    from collections.abc import Awaitable

    from agentq.app import AgentQ
    from agentq.brokers.base import Broker
    from agentq.message import Census
    from agentq.stores.base import Store

T = TypeVar("T")
_PATIENCE_S: Final = 10.0
"""How long a broker may take to answer a command line."""
_RUNS_ASKED: Final = 200
"""Newest runs that are asked for the names of their apps, where no worker tells them."""

FIX: Final = "agentq doctor --fix"
"""What a broker says that is asked for a queue which it does not have."""
UNNAMED: Final = "no worker and no run tells the app's name; give MODULE:AQ"


def meant_broker(given: str | None, app: AgentQ | None = None) -> str | None:
    """Return the URL that is meant: the option, the app's own, the environment; None is no broker."""
    return given or (broker_of(app) if app is not None else settings.load().broker.url)


def broker_of(app: AgentQ) -> str | None:
    """Return the URL of the broker that an app names in its code, else that of the environment."""
    given: str | None = getattr(app, "broker_url", None)
    return given or settings.load().broker.url


def needed(given: str | None, app: AgentQ | None = None) -> str:
    """Return the URL that is meant; a `Problem` where there is none."""
    url = meant_broker(given, app)
    if url is None:
        raise Problem("no broker is named", hint="--broker sqs://… or kafka://…, or AGENTQ_BROKER", code=2)
    return url


@asynccontextmanager
async def connected(url: str, app: str) -> AsyncIterator[Broker]:
    """Open the broker behind ``url`` as that of the app of this name."""
    from agentq.brokers import open_broker  # noqa: PLC0415 - a command without a broker does not pay for it

    async with open_broker(url, app=app) as broker:
        yield broker


async def answered(asked: Awaitable[T]) -> T:
    """Await an answer of a broker, but not for ever; `BrokerUnavailable` if it takes too long."""
    try:
        return await asyncio.wait_for(asked, _PATIENCE_S)
    except TimeoutError as error:
        raise BrokerUnavailable(f"the broker does not answer within {_PATIENCE_S:g} s") from error


async def queues_of(
    store: Store, census: Census, app: AgentQ | None = None, *, strays: bool = True
) -> dict[str, tuple[str, ...]]:
    """Return which app has which queues, as far as its code, live workers and the newest runs tell.

    Without ``strays``, runs tell only of apps that neither code nor a worker tells of: anybody may submit to a queue that
    is none.
    """
    there = [stats.queue for stats in census.queues]
    if app is not None:
        mine = {queue for worker in census.workers if worker.app == app.name for queue in worker.queues}
        return {app.name: tuple(sorted({*app.queues, *mine, *(there if strays else ())}))}
    found: dict[str, set[str]] = {}
    for worker in census.workers:
        found.setdefault(worker.app, set()).update(worker.queues)
    sure = frozenset() if strays else frozenset(found)
    for run in await store.runs(RunQuery(limit=_RUNS_ASKED)):
        if run.app not in sure:
            found.setdefault(run.app, set()).add(run.queue)
    found.pop("", None)
    if len(found) == 1 and not sure:
        next(iter(found.values())).update(there)
    return {name: tuple(sorted(queues)) for name, queues in sorted(found.items())}


def one_app(apps: Iterable[str], command: str) -> str:
    """Return the only app there is; a `Problem` that says how to name it otherwise."""
    names = sorted(apps)
    if len(names) == 1:
        return names[0]
    said = f"the store knows several apps: {' '.join(names)}" if names else "no worker and no run tells the app's name"
    raise Problem(f"{said}, and queues in the broker are named after it", hint=f"agentq {command} MODULE:AQ", code=2)


async def backlogs(url: str, apps: Mapping[str, Sequence[str]]) -> list[Backlog]:
    """Return what lies in the broker, queue by queue; where that cannot be read, the rows say why."""
    found: dict[str, Backlog] = {}
    for app, queues in apps.items():
        for row in await _rows(url, app, queues):
            found[row.queue] = _sum(found[row.queue], row) if row.queue in found else row
    return [found[queue] for queue in sorted(found)]


async def _rows(url: str, app: str, queues: Sequence[str]) -> Sequence[Backlog]:
    try:
        async with connected(url, app) as broker:
            return await answered(broker.backlog(queues))
    except (AgentQError, OSError) as error:
        return [Backlog(queue=queue, ready=0, error=shown(error)) for queue in queues]


def shown(error: BaseException | str) -> str:
    """Say an error on one line, without secrets and control characters."""
    text = error if isinstance(error, str) else str(error) or type(error).__name__
    return clean(redact(with_module(" ".join(text.split()))))


def with_module(text: str) -> str:
    """Let the remedy of a broker be one to copy: with the MODULE:NAME, the store and the broker that this command was given."""
    return text.replace(FIX, told(f"doctor {target} --fix" if (target := meant()) else "doctor --fix"))


def _sum(one: Backlog, other: Backlog) -> Backlog:
    """Add up what two apps have in a queue of the same name."""
    ages = [age for age in (one.oldest_age_s, other.oldest_age_s) if age is not None]
    return Backlog(
        queue=one.queue,
        ready=one.ready + other.ready,
        delayed=one.delayed + other.delayed,
        taken=one.taken + other.taken,
        dead=one.dead + other.dead,
        oldest_age_s=max(ages, default=None),
        approximate=one.approximate or other.approximate,
        error=one.error or other.error,
    )

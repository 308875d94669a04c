"""What the commands that work have in common: opening the app, health and metrics, signals, the end."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from contextlib import AbstractAsyncContextManager, contextmanager
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Final, Protocol, TypeVar

import click

from agentq import settings
from agentq.cli.brokers import broker_of, shown
from agentq.cli.problem import Problem, warn
from agentq.cli.reading import OWN_BROKER, OWN_STORE
from agentq.errors import AgentQError
from agentq.telemetry import add_sink, remove_sink

if TYPE_CHECKING:
    from agentq.app import AgentQ
    from agentq.message import Census
    from agentq.settings import Settings, WorkerSettings
    from agentq.telemetry.metrics import BacklogSource

F = TypeVar("F", bound=Callable[..., Any])
_CENSUS_WAIT_S = 2.0
"""How long a scrape waits for the store before it shows the figures of the scrape before."""


def read_settings() -> Settings:
    """Read the environment and say what in it means nothing."""
    found = settings.load()
    for text in found.warnings:
        warn(text)
    return found


def opened(
    app: AgentQ, store_url: str | None, broker_url: str | None = None, *, direct: bool = False
) -> AbstractAsyncContextManager[AgentQ]:
    """Return the app as a context manager, on the store of ``--store`` and the broker of ``--broker`` where they are given.

    With ``direct`` it has no broker, whatever is set.
    """
    context = click.get_current_context(silent=True)
    found = settings.load()
    store, broker = store_url or app.store_url, broker_url or broker_of(app)
    if context is not None and store != found.store.url:
        context.meta[OWN_STORE] = store
    if context is not None and broker != found.broker.url:
        context.meta[OWN_BROKER] = broker
    given: dict[str, Any] = {name: url for name, url in (("store", store_url), ("broker", broker_url)) if url}
    if direct:
        given["broker"] = None
    return app.using(**given) if given else app


def unshared(app: AgentQ, store_url: str | None) -> str:
    """Say which steps cannot work on the store that is meant, because it shares no transactions; empty if all can."""
    from agentq.stores import open_store  # noqa: PLC0415 - `--help` needs no store
    from agentq.stores.transactional import Transactional  # noqa: PLC0415 - as above

    url = store_url or app.store_url
    if not app.transactional or url is None:
        return ""
    try:
        store = open_store(url)
    except AgentQError:
        return ""  # whoever opens it says so
    if isinstance(store, Transactional):
        return ""
    steps = sorted(app.transactional)
    named = f"step {steps[0]} is" if len(steps) == 1 else f"steps {', '.join(steps)} are"
    return f"{named} transactional, and {store.where} shares no transactions: every run will fail there"


UNSHARED: Final = "use a postgresql:// store, or effect='at_least_once' with current().idempotency_key"
"""What to do about it."""


def warn_unshared(app: AgentQ, store_url: str | None) -> None:
    """Warn at the start of what a run would find out after its other steps."""
    if said := unshared(app, store_url):
        warn(f"{said}; {UNSHARED}")


def changed(base: WorkerSettings, **given: Any) -> WorkerSettings:
    """Return the settings with what was given on the command line."""
    return replace(base, **{name: value for name, value in given.items() if value is not None})


def weights(words: tuple[str, ...]) -> tuple[tuple[str, int], ...] | None:
    """Read ``--queue urgent=3 --queue reports``; None when there is none."""
    if not words:
        return None
    try:
        return tuple(pair for word in words for pair in settings.weighted_queues(word))
    except ValueError as error:
        raise click.BadParameter(str(error), param_hint="--queue") from error


def worker_options(command: F) -> F:
    """Add the options that every command with a worker has."""
    for option in (
        click.option("--log-level", type=click.Choice(["debug", "info", "warning", "error"]), help="Default info."),
        click.option(
            "--log", "log_format", type=click.Choice(["auto", "console", "json"]), help="Default: console on a terminal."
        ),
        click.option("-q", "--queue", "queues", multiple=True, metavar="NAME[=WEIGHT]", help="Serve only these; repeat it."),
    ):
        command = option(command)
    return command


class Watched(Protocol):
    """What health is asked of: a worker, or what stands for it before it is there."""

    @property
    def ready(self) -> bool:
        """Whether it is ready for work."""
        ...

    def alive(self) -> tuple[bool, str]:
        """Whether it lives, and why not."""
        ...

    def status(self) -> dict[str, Any]:
        """Everything about it."""
        ...


@contextmanager
def serving(
    worker: Watched,
    limits: WorkerSettings,
    census: Callable[[], Census | None] | None,
    backlog: BacklogSource | None = None,
) -> Iterator[int | None]:
    """Serve health and metrics of ``worker`` if a port is set; yields the port."""
    if limits.health_port is None:
        yield None
        return
    from agentq.telemetry.metrics import MetricsSink  # noqa: PLC0415 - a worker without a port does not pay for it
    from agentq.worker.health import HealthServer  # noqa: PLC0415 - as above

    sink = MetricsSink(status=worker.status, census=census, backlog=backlog)
    with health_port(limits):
        server = HealthServer(
            alive=worker.alive,
            ready=lambda: _ready(worker),
            status=worker.status,
            metrics=sink.render,
            host=limits.health_host,
            port=limits.health_port,
        )
    add_sink(sink)
    try:
        with server:
            yield server.port
    finally:
        remove_sink(sink)


def _ready(worker: Watched) -> tuple[bool, str]:
    if worker.ready:
        return True, "ready"
    status = worker.status()
    if status["state"] == "draining":
        return False, "draining"
    why = shown(str(status["store"]["error"]))
    return False, "no contact with the store yet" + (f": {why}" if why else "")


@contextmanager
def health_port(limits: WorkerSettings) -> Iterator[None]:
    """Say it in one line if the port cannot be bound."""
    try:
        yield
    except OSError as error:
        place = f"{limits.health_host}:{limits.health_port}"
        raise Problem(f"cannot serve health on {place}: {error.strerror}", hint="--health-port 0 takes a free port") from error


def census_of(app: AgentQ) -> Callable[[], Census | None]:
    """Return a function for other threads that reads the queues; None when the store does not answer in time."""

    def look() -> Census | None:
        async def inside() -> Census:
            return await asyncio.wait_for(app.store.census(), _CENSUS_WAIT_S)

        try:
            return asyncio.run(inside())
        except Exception:  # noqa: BLE001 - a scrape must answer whatever is wrong with the store
            return None

    return look

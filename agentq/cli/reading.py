"""What commands that need only the store have in common: their options, opening it, finding a run by the start of its id."""

from __future__ import annotations

import asyncio
import shlex
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar
from urllib.parse import unquote

import click

from agentq import settings
from agentq.cli.problem import EX_NO_INPUT, Problem
from agentq.errors import AgentQError, InvalidArgument, NotFound, StoreMissing, StoreUnnamed
from agentq.message import Run, RunQuery, Worker
from agentq.stores import refuse_maimed

if TYPE_CHECKING:
    from agentq.app import AgentQ
    from agentq.stores.base import Store

T = TypeVar("T")
F = TypeVar("F", bound=Callable[..., Any])
OWN_STORE = "agentq.store"
"""Key in click's ``meta``: URL of the store that the app in hand brings itself, where that is not the default."""
OWN_BROKER = "agentq.broker"
"""Likewise the URL of its broker."""
STORE_VARIABLE = "_AGENTQ_STORE"
"""What stands for ``--store`` in a process started by ours: everybody can read a command line, a URL may hold a password."""
BROKER_VARIABLE = "_AGENTQ_BROKER"
"""Likewise for ``--broker``."""
NOT_YET = "a worker, `agentq run` or `agentq enqueue` creates it; --store or AGENTQ_STORE says where it is"
"""What to do about a store that is not there."""
_KNOW_BROKERS = (
    "worker",
    "job",
    "enqueue",
    "queues",
    "top",
    "doctor",
    "dead",
    "runs show",
    "runs cancel",
    "runs pause",
    "runs resume",
    "runs signal",
)
"""Beginnings of commands that take ``--broker``."""
_MIN_PREFIX = 4
_FULL_ID = 26


def store_option(command: F) -> F:
    """Add ``--store``."""
    text = "The store; AGENTQ_STORE, else ./agentq.db."
    return click.option("--store", "store_url", metavar="URL", envvar=STORE_VARIABLE, callback=_not_empty, help=text)(command)


def broker_option(command: F) -> F:
    """Add ``--broker``."""
    text = "Where runs arrive: sqs://… or kafka://…; AGENTQ_BROKER, else none, and the store is the queue."
    made = click.option("--broker", "broker_url", metavar="URL", envvar=BROKER_VARIABLE, callback=_not_empty, help=text)
    return made(command)


def _not_empty(ctx: click.Context, param: click.Parameter, value: str | None) -> str | None:
    """Refuse an empty URL, as a template leaves it that found no value: it would mean ./agentq.db in silence."""
    del ctx
    if value is not None and not value.strip():
        raise Problem(f"{param.opts[0]} is empty", hint=f"give a URL, or leave {param.opts[0]} out", code=2)
    return value


def json_option(command: F) -> F:
    """Add ``--json``."""
    return click.option("--json", "as_json", is_flag=True, help="Print JSON for programs.")(command)


def given_urls(store_url: str | None, broker_url: str | None) -> dict[str, str]:
    """Return what tells a process of ours ``--store`` and ``--broker`` by its environment."""
    return {name: url for name, url in ((STORE_VARIABLE, store_url), (BROKER_VARIABLE, broker_url)) if url}


def store_url(given: str | None) -> str:
    """Return the URL that is meant: the option, the environment, the default."""
    return given or settings.load().store.url


def refuse_unnamed(given: str | None, broker: str | None, app: AgentQ | None) -> None:
    """Look into no store that nobody named where there is a broker: ./agentq.db is not what its workers use.

    Raises:
        StoreUnnamed: saying what to set.
    """
    unnamed = given is None and store_url(app.store_url if app is not None else None) == settings.DEFAULT_STORE
    if broker is not None and unnamed:
        raise StoreUnnamed


def told(words: str) -> str:
    """Return a command for a person to copy; it uses the store and broker that this one uses.

    Of a url with a secret in it only the option's name is repeated.
    """
    context = click.get_current_context(silent=True)
    line = f"agentq {words}"
    if context is None:
        return line
    line += _option("--store", context.params.get("store_url") or context.meta.get(OWN_STORE))
    if words.startswith(_KNOW_BROKERS):
        line += _option("--broker", context.params.get("broker_url") or context.meta.get(OWN_BROKER))
    return line


def _option(name: str, url: str | None) -> str:
    if not url:
        return ""
    return f" {name} {shlex.quote(url) if settings.redacted(url) == url else '…'}"


def store_file(url: str) -> Path | None:
    """Return the file behind a SQLite URL or bare path, as `agentq.stores.open_store` reads it; None for other stores.

    Raises:
        InvalidArgument: it has a typing error before its server.
    """
    refuse_maimed(url)
    scheme, colon, rest = url.partition(":")
    if not colon or len(scheme) == 1 or "/" in scheme:
        return Path(url)
    if scheme != "sqlite":
        return None
    return Path(unquote("/" + rest.lstrip("/") if rest.startswith("///") else rest))


def read(url: str | None, action: Callable[[Store], Awaitable[T]], *, app: AgentQ | None = None) -> T:
    """Open the store that exists already, do ``action`` with it, close it.

    It is that of ``url``, else that of ``app``, else the environment's or the default.
    """
    meant = store_url(url or (app.store_url if app is not None else None))
    if meant.startswith("memory:"):
        raise Problem(
            "memory: is seen by the process that made it alone", hint="give --store a file, such as sqlite:./agentq.db"
        )

    async def inside() -> T:
        from agentq.stores import open_store  # noqa: PLC0415 - help and completion need no store

        async with open_store(meant, create=False) as store:
            return await action(store)

    try:
        return asyncio.run(inside())
    except StoreMissing as error:
        raise Problem(str(error), hint=NOT_YET, code=EX_NO_INPUT) from error


async def find_run(store: Store, word: str) -> Run:
    """Return the run whose id starts with ``word``; ``last`` is the newest one that no other run called."""
    if word == "last":
        return await _last(store)
    if len(word) < _MIN_PREFIX:
        raise InvalidArgument("RUN", word, f"give at least {_MIN_PREFIX} characters of the run's id, or `last`")
    word = word.lower()
    found = [run for run in await store.runs(RunQuery(ids=(word,), limit=20)) if run.id.startswith(word)]
    if not found:
        raise NotFound(f"no run's id starts with {word!r}" if len(word) < _FULL_ID else f"there is no run {word}")
    if len(found) > 1:
        shown = "\n".join(f"{run.id}  {run.task}  {run.state.value}" for run in found)
        raise Problem(f"{word!r} is the start of several runs", hint=shown)
    return found[0]


async def _last(store: Store) -> Run:
    limit = 50
    while True:
        newest = await store.runs(RunQuery(limit=limit))
        for run in newest:
            if run.parent_id is None:
                return run
        if len(newest) < limit:
            break
        limit *= 20
    if not newest:
        raise NotFound("there are no runs yet")
    return newest[0]


async def find_worker(store: Store, word: str) -> Worker:
    """Return the live worker whose id, or pod, starts with ``word``."""
    workers = (await store.census()).workers
    found = [worker for worker in workers if worker.id.startswith(word) or worker.pod == word]
    if not found:
        raise NotFound(f"no live worker's id starts with {word!r}, and none runs in a pod of that name")
    if len(found) > 1:
        raise Problem(f"{word!r} is the start of several workers", hint="\n".join(worker.id for worker in found))
    return found[0]


class RunId(click.ParamType):  # type: ignore[type-arg]  # generic from click 8.2 on only
    """A run id, its start, or ``last``; completed from the store."""

    name = "run"

    def shell_complete(self, ctx: click.Context, param: click.Parameter, incomplete: str) -> list[Any]:
        """Offer the newest runs; nothing if the store cannot be read."""
        del param
        from click.shell_completion import CompletionItem  # noqa: PLC0415 - only for completion

        try:
            runs = read(ctx.params.get("store_url"), lambda store: store.runs(RunQuery(limit=50)))
        except (AgentQError, click.ClickException, OSError):
            return []
        return [CompletionItem(run.id, help=f"{run.task} {run.state.value}") for run in runs if run.id.startswith(incomplete)]

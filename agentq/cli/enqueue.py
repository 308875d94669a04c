"""``agentq enqueue``: put a run into the queue."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any, TypeVar

import click

from agentq.cli import output
from agentq.cli.arguments import called_with, parse_arguments
from agentq.cli.problem import EX_FAILED, Problem, note
from agentq.cli.reading import broker_option, json_option, store_option, told
from agentq.cli.target import app_of, app_target, load_task
from agentq.cli.teach import Teaching
from agentq.cli.working import opened
from agentq.errors import KeyConflict, RunCancelled, RunFailed, StoreUnavailable
from agentq.message import Run, RunQuery, WorkerState
from agentq.settings import seconds
from agentq.wire import same_args

if TYPE_CHECKING:
    from agentq.app import AgentQ
    from agentq.brokers.base import Broker
    from agentq.handle import RunHandle
    from agentq.task import Task

F = TypeVar("F", bound=Callable[..., Any])


def call_options(command: F) -> F:
    """Add the options of one submission."""
    for option in (
        click.option("--tag", "tags", multiple=True, metavar="NAME=VALUE", help="A tag; repeat it."),
        click.option("--max-attempts", metavar="N", type=click.IntRange(1), help="Instead of the task's own."),
        click.option("--timeout", metavar="TIME", type=seconds, help="Running time, such as 2h; waits do not count."),
        click.option("--priority", metavar="N", type=int, help="Higher starts first. Default 0."),
        click.option("--ordering-key", metavar="KEY", help="Runs of one ordering key go one after the other."),
        click.option("--tenant", metavar="NAME", help="Whose run it is."),
        click.option("-k", "--key", metavar="KEY", help="The same key is the same run, never a second one."),
    ):
        command = option(command)
    return command


def bound(task: Task[..., Any], words: tuple[str, ...], options: dict[str, Any]) -> Any:
    """Return the call of ``task`` that the command line describes."""
    args, kwargs = called_with(task, parse_arguments(task, words))
    return with_options(task, options).bind(*args, **kwargs)


def with_options(task: Task[..., Any], options: dict[str, Any]) -> Task[..., Any]:
    """Return the task with the options that were given."""
    given = {name: value for name, value in options.items() if value is not None and value != ()}
    for name in ("delay", "timeout", "deadline"):
        if name in given:
            if given[name] <= 0 and name != "delay":
                raise click.BadParameter("give a time longer than zero, such as 5m", param_hint=f"--{name}")
            given[name] = timedelta(seconds=given[name])
    if "tags" in given:
        given["tags"] = _tags(given["tags"])
    return task.options(**given) if given else task


def _tags(words: tuple[str, ...]) -> dict[str, str]:
    pairs = [word.partition("=") for word in words]
    if any(not name or not equals for name, equals, _ in pairs):
        raise click.BadParameter("write --tag name=value", param_hint="--tag")
    return {name: value for name, _, value in pairs}


def _at(_ctx: click.Context, _param: click.Parameter, value: str | None) -> datetime | None:
    if value is None:
        return None
    try:
        return datetime.fromisoformat(value).astimezone()
    except ValueError as error:
        raise click.BadParameter(f"{value!r} is no time such as 2030-01-31T18:00") from error


@click.command(cls=Teaching, short_help="Put a run into the queue.")
@click.argument("target", metavar="MODULE:TASK")
@click.argument("words", nargs=-1, metavar="[NAME=VALUE]… | JSON | -")
@call_options
@click.option("--delay", metavar="TIME", type=seconds, help="Start not before so long from now, such as 5m.")
@click.option("--at", callback=_at, metavar="TIME", help="Start not before this moment, such as 2030-01-31T18:00.")
@click.option("--deadline", metavar="TIME", type=seconds, help="Give up so long from now, waits included.")
@click.option("-w", "--wait", is_flag=True, help="Wait for the result and print it.")
@store_option
@broker_option
@json_option
def enqueue(
    target: str,
    words: tuple[str, ...],
    *,
    wait: bool,
    store_url: str | None,
    broker_url: str | None,
    as_json: bool,
    **options: Any,
) -> None:
    r"""Put a run of MODULE:TASK into the queue and print its id.

    With a broker it is sent there, and a worker takes it into the store; without one the store is the queue.

    Arguments are name=value, converted by the task's annotations: a list by repeating the name or as JSON, a record as
    JSON. Or one JSON object with all of them (- reads it from stdin).

    \b
    Examples:
      agentq enqueue hello:report topic=k8s
      agentq enqueue hello:report topic=k8s limit=5 --key r-42 --delay 5m
      agentq enqueue hello:report topic=k8s file=a.md file=b.md 'range={"from": 1, "to": 9}'
      agentq enqueue hello:report '{"topic": "k8s", "limit": 5}' --wait
    """
    task = load_task(target)
    call = bound(task, words, options)

    async def submit() -> None:
        app = app_of(task)
        async with opened(app, store_url, broker_url):
            if not app.store.shared:
                raise Problem(
                    f"{app.store.where}: what is enqueued here is gone when this command ends",
                    hint="--store sqlite:./agentq.db, or `agentq run`, which works on it at once",
                )
            handle = await _enqueue(app, call, quiet=wait, as_json=as_json)
            if not as_json and not await _served(app, task.queue):
                note(f"no worker serves queue {task.queue} now; start one: {told(f'worker {app_target(target)}')}")
            if wait:
                await _wait(handle, as_json=as_json)

    try:
        asyncio.run(submit())
    except KeyConflict as error:
        raise Problem(str(error), code=EX_FAILED) from error


async def _enqueue(app: AgentQ, call: Any, *, quiet: bool, as_json: bool) -> RunHandle[Any]:
    """Put the run on its way, and say where it is now unless that is to be ``quiet``."""
    key = call.call.key
    before = await app.store.runs(RunQuery(ids=(_known_id(call),), limit=1)) if key else []
    if app.broker is not None:
        _refuse_conflict(call, before)
    (handle,) = await app.enqueue_many([call])
    if not quiet:
        _submitted(handle.id, call.task, existed=bool(before), broker=app.broker, as_json=as_json)
    return handle


async def _wait(handle: RunHandle[Any], *, as_json: bool) -> None:
    try:
        result = await handle.result()
    except (RunFailed, RunCancelled) as error:
        raise Problem(str(error), hint=told(f"runs show {handle.id}"), code=EX_FAILED) from error
    print_result(result, run_id=handle.id, as_json=as_json)


def _refuse_conflict(call: Any, before: list[Run]) -> None:
    """Say at once what intake would say to nobody: behind a broker, a key used again with other arguments is a dead letter."""
    for run in before:
        if run.args_hash != call.args_hash and not same_args(run.args, call.args):
            raise KeyConflict(call.call.key, run.id, run.args.decode(), call.args.decode())


async def _served(app: AgentQ, queue: str) -> bool:
    """Whether a worker is there that claims from the queue."""
    try:
        workers = (await app.store.census()).workers
    except StoreUnavailable:
        return True  # the run is in; a remark is not worth an error
    return any(queue in one.queues and one.state is WorkerState.ACTIVE for one in workers)


def _known_id(call: Any) -> str:
    """Return the run id that the call's key determines."""
    from agentq.message import keyed_run_id  # noqa: PLC0415 - only with a key

    app = app_of(call.task)
    return keyed_run_id(app.name, call.call.tenant, call.task.name, call.call.key)


def _submitted(run_id: str, task: Task[..., Any], *, existed: bool, broker: Broker | None, as_json: bool) -> None:
    """Say where the run is now. What became of a message that was sent, its broker does not tell."""
    if as_json:
        shown: dict[str, Any] = {"id": run_id, "task": task.name, "queue": task.queue, "created": not existed}
        output.write_json(shown if broker is None else shown | {"broker": broker.where})
        return
    click.echo(run_id)
    became = "there already" if existed else "queued" if broker is None else f"sent to {_place(broker, task.queue)}"
    click.echo(click.style(f"{became} · {task.name} · {told(f'runs show {run_id}')}", dim=True), err=True)


def _place(broker: Broker, queue: str) -> str:
    """Name the queue or topic itself, where the broker can."""
    place: Callable[[str], str] | None = getattr(broker, "place", None)
    return broker.where if place is None else place(queue)


def print_result(result: Any, *, run_id: str, as_json: bool) -> None:
    """Print what a run returned: a text as it is, anything else as JSON."""
    if as_json:
        output.write_json({"id": run_id, "state": "succeeded", "result": output.jsonable(result)})
    elif isinstance(result, str):
        click.echo(result)
    elif result is not None:
        output.write_json(output.jsonable(result))

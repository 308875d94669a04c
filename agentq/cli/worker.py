"""``agentq worker``: serve an app's queues until told to stop."""

from __future__ import annotations

import asyncio
import gc
import os
import sys
from contextlib import AsyncExitStack
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import click

from agentq.cli import logs
from agentq.cli.backlogs import BacklogWatch
from agentq.cli.problem import EX_FAILED, note, warn
from agentq.cli.reading import broker_option, given_urls, store_option
from agentq.cli.reading import store_url as meant_store
from agentq.cli.signals import Asked, begin_anew, remember, stopping
from agentq.cli.standby import Standby
from agentq.cli.target import load_app
from agentq.cli.teach import Teaching
from agentq.cli.text import count
from agentq.cli.working import census_of, changed, opened, read_settings, serving, warn_unshared, weights, worker_options
from agentq.errors import StoreUnavailable
from agentq.message import RunQuery, RunState
from agentq.settings import redacted, seconds, share

if TYPE_CHECKING:
    from agentq.app import AgentQ
    from agentq.settings import WorkerSettings
    from agentq.worker import WorkerReport


@click.command(cls=Teaching, short_help="Work on the runs of an AgentQ until told to stop.")
@click.argument("target", metavar="MODULE:AQ")
@click.option("-c", "--concurrency", metavar="N", type=click.IntRange(1), help="Slots: runs at a time. Default 8.")
@click.option("-p", "--processes", metavar="N", type=click.IntRange(1), help="Processes, each with so many slots. Default 1.")
@click.option(
    "--health-port",
    metavar="PORT",
    type=click.IntRange(0, 65535),
    help="Serve health and metrics here; 0: any port.",
)
@click.option("--health-host", metavar="ADDRESS", help="For it. Default 0.0.0.0.")
@click.option("--drain", "drain_s", metavar="TIME", type=seconds, help="For running steps to end after SIGTERM. Default 25s.")
@click.option("--max-runs", metavar="N", type=click.IntRange(1), help="Begin anew after so many runs.")
@click.option("--max-memory", metavar="SHARE", type=share, help="Begin anew above this share of the memory limit, such as 80%.")
@click.option("--pool", metavar="NAME", help="The deployment it belongs to.")
@click.option("--with-parent", is_flag=True, hidden=True, help="Drain when stdin, a pipe held by the parent, closes.")
@worker_options
@store_option
@broker_option
def worker(
    target: str,
    store_url: str | None,
    broker_url: str | None,
    log_level: str | None,
    log_format: str | None,
    *,
    with_parent: bool,
    **given: Any,
) -> None:
    r"""Work on the runs of an AgentQ, in slots, until SIGTERM or Ctrl-C.

    The first signal drains: each run stops at its next step and is handed back, then the worker exits 0.
    The second stops at once; the next worker goes on where the journal ends.
    A store that is down, at the start too, is waited for. With a broker, runs that arrive there are taken in.

    \b
    Examples:
      agentq worker hello:aq
      agentq worker hello:aq --concurrency 16 --processes 2
      agentq worker hello:aq --queue urgent=3 --queue reports
      agentq worker hello:aq --health-port 8080 --log json
      agentq worker hello:aq --broker sqs://eu-central-1 --store postgresql://db/agentq

    Everything can be set by environment too: AGENTQ_STORE, AGENTQ_BROKER, AGENTQ_CONCURRENCY, AGENTQ_QUEUES, …
    """
    found = read_settings()
    given["queues"] = weights(given["queues"])
    limits = changed(found.worker, **given)
    logs.configure(changed_log(found.log, log_level, log_format))
    if limits.processes > 1:
        from agentq.cli.processes import supervise  # noqa: PLC0415 - one process needs none of it

        warn_unshared(load_app(target), store_url)  # what is wrong with it is said once, not by each process
        words = _words(found.worker, limits, log_level, log_format)
        sys.exit(supervise(target, limits, given_urls(store_url, broker_url), words=words))
    app = load_app(target)
    if not app.tasks:
        warn(f"{target} has no tasks: nothing will be claimed. Import the modules that declare them.")
    elif unused := [name for name, _ in limits.queues if name not in app.queues]:
        warn(f"no task of {target} uses queue {' or '.join(unused)}; its queues: {' '.join(app.queues)}")
    if not with_parent:
        warn_unshared(app, store_url)
    sys.exit(ended(*asyncio.run(serve(app, limits, store_url, broker_url, with_parent=with_parent))))


def changed_log(base: Any, level: str | None, form: str | None) -> Any:
    """Return the log settings with what was given on the command line."""
    return replace(base, level=level or base.level, format=form or base.format)


async def serve(
    app: AgentQ, limits: WorkerSettings, store_url: str | None, broker_url: str | None = None, *, with_parent: bool = False
) -> tuple[WorkerReport | None, Asked]:
    """Run one worker in this process until it has drained; without a report if it never began."""
    from agentq.worker import Worker  # noqa: PLC0415 - `--help` does not load the runtime

    standby = Standby(app, limits, where=redacted(meant_store(store_url or app.store_url)))
    with (
        serving(standby, limits, census_of(app), BacklogWatch(app)) as port,
        stopping(standby.drain, standby.abort) as asked,
    ):
        if with_parent:
            _watch_parent(standby)
        async with AsyncExitStack() as stack:
            if not await standby.open(stack, lambda: opened(app, store_url, broker_url)):
                return None, asked
            standby.worker = made = Worker(app, limits)
            if not with_parent:
                _greet(app, limits, port)
                await _strangers(app, limits)
            gc.freeze()  # what is loaded now stays: no collection needs to look at it again
            report = await made.run()
            if report.recycled:
                remember(asked)
    if report.abandoned:
        ended(report, asked)  # here: a loop that closes would wait for the code that does not end
    return report, asked


def _watch_parent(standby: Standby) -> None:
    """Drain when the parent is gone, however it went: the pipe that it holds closes."""
    loop = asyncio.get_running_loop()

    def gone() -> None:
        loop.remove_reader(0)
        standby.drain("the parent process has ended")

    loop.add_reader(0, gone)


def ended(report: WorkerReport | None, asked: Asked) -> int:
    """Turn the end of a worker into an exit code.

    A recycled one begins anew under the same process id. Code that does not end is ended with the process.
    """
    if report is not None and report.recycled:
        begin_anew(asked)
    code = asked.exit_code if asked.times > 1 else 0
    if report is not None and report.abandoned:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code or EX_FAILED)
    return code


def _greet(app: AgentQ, limits: WorkerSettings, port: int | None) -> None:
    if not sys.stderr.isatty():
        return
    queues = ", ".join(f"{name}={weight}" if weight > 1 else name for name, weight in limits.queues) or ", ".join(app.queues)
    note(f"{app.name}: {count(len(app.tasks), 'task')}, {count(limits.concurrency, 'slot')}, queues {queues}")
    arrives = f" · broker {app.broker.where}" if app.broker is not None else ""
    health = f" · health on port {port}" if port else ""
    note(f"store {app.store.where}{arrives}{health} · Ctrl-C drains, twice stops at once")


async def _strangers(app: AgentQ, limits: WorkerSettings) -> None:
    """Warn about queued runs of tasks that this code does not have."""
    queues = {name for name, _ in limits.queues} or set(app.queues)
    try:
        queued = await app.store.runs(RunQuery(states=(RunState.QUEUED,), limit=1000))
    except StoreUnavailable:
        return  # the worker waits for its store; a warning is not worth an end
    strange = [run.task for run in queued if run.app == app.name and run.queue in queues and run.task not in app.tasks]
    for task in sorted(set(strange)):
        warn(f"{count(strange.count(task), 'queued run')} of task {task}, which this code does not have: left alone")


def _words(base: WorkerSettings, limits: WorkerSettings, log_level: str | None, log_format: str | None) -> list[str]:
    """Return the options that a child process needs to work like its parent; the environment is inherited."""
    words = ["--concurrency", str(limits.concurrency), "--drain", f"{limits.drain_s}s", "--pool", limits.pool]
    for name, weight in limits.queues:
        words += ["--queue", f"{name}={weight}"]
    for option, value in (("--max-runs", limits.max_runs), ("--max-memory", limits.max_memory)):
        if value is not None and value != getattr(base, option[2:].replace("-", "_")):
            words += [option, str(value)]
    for option, word in (("--log-level", log_level), ("--log", log_format)):
        words += [option, word] if word else []
    return words

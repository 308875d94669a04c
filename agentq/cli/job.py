"""``agentq job``: exactly one run, then exit with a code that a Kubernetes Job can decide on."""

from __future__ import annotations

import asyncio
import os
import sys
import time
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from typing import TYPE_CHECKING, Any

import click

from agentq.cli import logs
from agentq.cli.backlogs import BacklogWatch
from agentq.cli.problem import EX_FAILED, EX_NO_INPUT, EX_TEMPFAIL, Problem, note
from agentq.cli.reading import broker_option, find_run, store_option, told
from agentq.cli.signals import stopping
from agentq.cli.target import load_app
from agentq.cli.teach import Teaching
from agentq.cli.text import count
from agentq.cli.worker import changed_log
from agentq.cli.working import census_of, changed, opened, read_settings, serving, warn_unshared, weights, worker_options
from agentq.errors import NotFound, StoreUnavailable
from agentq.message import QueueStats, Run, RunState
from agentq.settings import seconds

if TYPE_CHECKING:
    from agentq.app import AgentQ
    from agentq.settings import WorkerSettings
    from agentq.worker import Worker, WorkerReport

_CODES = {"succeeded": 0, "failed": EX_FAILED, "cancelled": EX_FAILED}
"""How a claim ended, to the exit code; any other end is `EX_TEMPFAIL`."""
_LOOK_S = 0.25
"""Between two looks for a run."""


@click.command(cls=Teaching, short_help="Take one run, work on it, exit: for Kubernetes Jobs.")
@click.argument("target", metavar="MODULE:AQ")
@click.option("--run", "run_id", metavar="RUN", help="This run, and no other.")
@click.option("--idle-ok", is_flag=True, help="Exit with 0, not 66, when there is nothing to do.")
@click.option("--wait", "wait_s", default="5s", show_default=True, metavar="TIME", type=seconds, help="For a run to turn up.")
@click.option("--health-port", metavar="PORT", type=click.IntRange(0, 65535), help="Serve health and metrics here.")
@click.option("--drain", "drain_s", metavar="TIME", type=seconds, help="For a running step to end after SIGTERM. Default 25s.")
@worker_options
@store_option
@broker_option
def job(
    target: str,
    *,
    run_id: str | None,
    wait_s: float,
    idle_ok: bool,
    queues: tuple[str, ...],
    store_url: str | None,
    broker_url: str | None,
    log_level: str | None,
    log_format: str | None,
    **given: Any,
) -> None:
    r"""Take one run, work on it, exit. For Kubernetes Jobs and for cron.

    \b
    Exit codes:
      0    the run is done
      1    it failed for good, or was cancelled: do not try again
      66   there was nothing to do
      75   hand me back: it was drained, waits, or will be tried again; or runs are under way elsewhere; or the
           store does not answer

    \b
    In a Job (restartPolicy: Never), let 1 and 66 end it, and 75 start another pod without counting as a failure:
      backoffLimit: 6
      podFailurePolicy:
        rules:
          - {action: FailJob, onExitCodes: {operator: In, values: [1, 66]}}
          - {action: Ignore, onExitCodes: {operator: In, values: [75]}}

    \b
    Examples:
      agentq job hello:aq
      agentq job hello:aq --run 06cknh2m4q
    """
    found = read_settings()
    logs.configure(changed_log(found.log, log_level, log_format))
    limits = changed(found.worker, queues=weights(queues), concurrency=1, **given)
    app = load_app(target)
    warn_unshared(app, store_url)
    try:
        code = asyncio.run(_one(app, lambda: opened(app, store_url, broker_url), limits, run_id, wait_s))
    except StoreUnavailable as error:
        raise Problem(str(error), hint=told("doctor"), code=EX_TEMPFAIL) from error
    sys.exit(0 if idle_ok and code == EX_NO_INPUT else code)


async def _one(
    app: AgentQ,
    opening: Callable[[], AbstractAsyncContextManager[AgentQ]],
    limits: WorkerSettings,
    word: str | None,
    wait_s: float,
) -> int:
    async with opening():
        try:
            wanted = await find_run(app.store, word) if word else None
        except NotFound as error:
            if app.broker is None:
                raise
            note(f"{error}; it may still be in the broker")
            return EX_TEMPFAIL
        if wanted is not None and wanted.state.final:
            return EX_FAILED if wanted.state is not RunState.SUCCEEDED else 0
        report = await _work(app, limits, wanted.id if wanted else None, time.monotonic() + wait_s)
        if report is None or report.last is None:
            code = await _empty_handed(app, limits, wanted)
        else:
            code = _CODES.get(report.last[1].value, EX_TEMPFAIL)
    if report is not None and report.abandoned:
        os._exit(code)  # its code does not end: the process takes it along
    return code


async def _work(app: AgentQ, limits: WorkerSettings, root: str | None, until: float) -> WorkerReport | None:
    """Work on the first run that turns up until ``until``, on the monotonic clock; None if there is none."""
    from agentq.worker import Worker  # noqa: PLC0415 - `--help` does not load the runtime

    hand = _Hand()
    with stopping(hand.drain, hand.abort):
        while not hand.stopped:
            patience = max(0.0, until - time.monotonic())
            hand.worker = made = Worker(app, limits, root=root, one=True, patience_s=patience)
            with serving(made, limits, census_of(app), BacklogWatch(app)):
                report = await made.run()
            if report.last is None:
                return None
            if root in {None, report.last[0]}:  # else it was a run that ours calls
                return report
    return None


async def _empty_handed(app: AgentQ, limits: WorkerSettings, wanted: Run | None) -> int:
    """Say why there was nothing to work on. What runs elsewhere may yet need us: its worker may be dead, its lease not over."""
    if wanted is not None:
        note(f"{wanted.id} could not be taken: it is {wanted.state.value}")
        return EX_TEMPFAIL
    elsewhere = sum(stats.running for stats in await _queues(app, limits))
    note(f"nothing to do now; {count(elsewhere, 'run')} under way elsewhere" if elsewhere else "nothing to do")
    return EX_TEMPFAIL if elsewhere else EX_NO_INPUT


async def _queues(app: AgentQ, limits: WorkerSettings) -> list[QueueStats]:
    mine = {name for name, _ in limits.queues} or set(app.queues)
    return [stats for stats in (await app.store.census()).queues if stats.queue in mine]


class _Hand:
    """Passes signals on to the worker there is, and remembers them while there is none."""

    def __init__(self) -> None:
        self.stopped = False
        self.worker: Worker | None = None

    def drain(self, reason: str) -> None:
        self.stopped = True
        if self.worker is not None:
            self.worker.drain(reason)

    def abort(self) -> None:
        if self.worker is not None:
            self.worker.abort()

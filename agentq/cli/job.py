"""``agentq job``: exactly one run, then exit with a code that a Kubernetes Job can decide on."""

from __future__ import annotations

import asyncio
import sys
from typing import TYPE_CHECKING, Any

import click

from agentq.cli import logs
from agentq.cli.problem import EX_FAILED, EX_NO_INPUT, EX_TEMPFAIL, note
from agentq.cli.reading import find_run, store_option
from agentq.cli.signals import stopping
from agentq.cli.target import load_app
from agentq.cli.teach import Teaching
from agentq.cli.worker import changed_log
from agentq.cli.working import census_of, changed, opened, read_settings, serving, weights, worker_options
from agentq.message import Run, RunQuery, RunState
from agentq.settings import seconds
from agentq.telemetry import add_sink, remove_sink

if TYPE_CHECKING:
    from agentq.app import AgentQ
    from agentq.settings import WorkerSettings
    from agentq.worker import Worker

_CODES = {RunState.SUCCEEDED: 0, RunState.FAILED: EX_FAILED, RunState.CANCELLED: EX_FAILED}
_ENDS = frozenset(
    f"run.{end}"
    for end in ("succeeded", "failed", "cancelled", "retrying", "suspended", "released", "crashed", "lost", "abandoned")
)


@click.command(cls=Teaching, short_help="Take one run, work on it, exit: for Kubernetes Jobs.")
@click.argument("target", metavar="MODULE:AQ")
@click.option("--run", "run_id", metavar="RUN", help="This run, and no other.")
@click.option("--wait", "wait_s", default="5s", show_default=True, metavar="TIME", type=seconds, help="For a run to turn up.")
@click.option("--health-port", metavar="PORT", type=click.IntRange(0, 65535), help="Serve health and metrics here.")
@click.option("--drain", "drain_s", metavar="TIME", type=seconds, help="For a running step to end after SIGTERM. Default 25s.")
@worker_options
@store_option
def job(
    target: str,
    *,
    run_id: str | None,
    wait_s: float,
    queues: tuple[str, ...],
    store_url: str | None,
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
      75   hand me back: it was drained, waits, or will be tried again

    \b
    In a Job, let 1 and 66 end it and 75 start another pod without counting as a failure:
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
    limits = changed(found.worker, queues=weights(queues), concurrency=1, max_runs=1, **given)
    sys.exit(asyncio.run(_one(load_app(target), limits, store_url, run_id, wait_s)))


async def _one(app: AgentQ, limits: WorkerSettings, store_url: str | None, run_id: str | None, wait_s: float) -> int:
    from agentq.worker import Worker  # noqa: PLC0415 - `--help` does not load the runtime

    async with opened(app, store_url):
        wanted = await find_run(app.store, run_id) if run_id else None
        if wanted is not None and wanted.state.final:
            return _code(wanted)
        made = Worker(app, limits, root=wanted.id if wanted else None)
        watch = _Watch(made, only=wanted.id if wanted else None)
        add_sink(watch)
        try:
            with serving(made, limits, census_of(app)), stopping(made.drain, made.abort):
                patience = asyncio.create_task(_give_up(watch, made, wait_s))
                await made.run()
                patience.cancel()
        finally:
            remove_sink(watch)
        if watch.run_id is None:
            note("nothing to do" if wanted is None else f"{wanted.id} could not be taken: it is {wanted.state.value}")
            return EX_NO_INPUT if wanted is None else EX_TEMPFAIL
        found = await app.store.runs(RunQuery(ids=(watch.run_id,), limit=1))
        return _code(found[0]) if found else EX_TEMPFAIL


def _code(run: Run) -> int:
    return _CODES.get(run.state, EX_TEMPFAIL)


class _Watch:
    """A telemetry sink that notices which run was taken, and drains the worker when that has ended."""

    def __init__(self, worker: Worker, *, only: str | None) -> None:
        self.run_id: str | None = None
        self.taken = asyncio.Event()
        self._worker = worker
        self._only = only

    def __call__(self, event: str, fields: dict[str, Any]) -> None:
        run_id = fields.get("run_id")
        if event in {"run.claimed", "run.resumed", "run.taken_over"} and self._only in {None, run_id} and self.run_id is None:
            self.run_id = run_id
            self.taken.set()
        elif event in _ENDS and run_id == self.run_id:
            self._worker.drain("its one run has ended")


async def _give_up(watch: _Watch, worker: Worker, wait_s: float) -> None:
    """Stop the worker if nothing turns up."""
    try:
        await asyncio.wait_for(watch.taken.wait(), wait_s)
    except TimeoutError:
        worker.drain("nothing to do")

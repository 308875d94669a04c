"""``agentq run``: enqueue a run and work on it in this process, with progress; started again, it goes on."""

from __future__ import annotations

import asyncio
import logging
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import click

from agentq.cli import output
from agentq.cli.code import Code
from agentq.cli.enqueue import bound, call_options, print_result
from agentq.cli.follow import Progress, moments
from agentq.cli.interrupted import confirm_again, doubt_of, ways
from agentq.cli.problem import EX_FAILED, Problem, note, warn
from agentq.cli.reading import json_option, store_option, told
from agentq.cli.shown import fork_at
from agentq.cli.signals import stopping
from agentq.cli.target import app_of, app_target, load_task
from agentq.cli.teach import Teaching
from agentq.cli.text import clean, count, reason, where
from agentq.cli.working import changed, opened, read_settings, warn_unshared
from agentq.errors import NotFound
from agentq.message import Reply, Requeue, Run, RunQuery, RunState
from agentq.telemetry import add_sink, remove_sink

if TYPE_CHECKING:
    from agentq.app import AgentQ
    from agentq.settings import WorkerSettings


@click.command(cls=Teaching, short_help="Enqueue a run and work on it here; started again, it goes on.")
@click.argument("target", metavar="MODULE:TASK")
@click.argument("words", nargs=-1, metavar="[NAME=VALUE]… | JSON | -")
@call_options
@click.option(
    "-c",
    "--concurrency",
    metavar="N",
    type=click.IntRange(1),
    help="Runs at a time, those that it calls too. Default 8.",
)
@click.option("--retry", "again", is_flag=True, help="If the run of this key has failed, give it another set of attempts.")
@click.option("--quiet", is_flag=True, help="No progress on stderr; questions alone.")
@store_option
@json_option
def run(
    target: str,
    words: tuple[str, ...],
    *,
    concurrency: int | None,
    again: bool,
    quiet: bool,
    store_url: str | None,
    as_json: bool,
    **options: Any,
) -> None:
    r"""Enqueue MODULE:TASK and work on it and the runs that it calls; print its result on stdout, progress on stderr.

    With --key it can be started again: after a crash or a kill it goes on at once where the journal ends, and when it
    is done its result is printed again. Ctrl-C hands it back cleanly, twice stops at once; nothing recorded is lost.
    Arguments are name=value, converted by the task's annotations (see `agentq enqueue --help`), or one JSON object.
    It goes straight into the store, past the broker if there is one: nobody else shall take it.

    \b
    Examples:
      agentq run hello:agent goal="what is new?" --key g1
      agentq run hello:report topic=k8s limit=5 --json | jq .result
    """
    task = load_task(target)
    call = bound(task, words, options)
    warn_unshared(app_of(task), store_url)
    limits = changed(read_settings().worker, concurrency=concurrency, health_port=None)
    logging.getLogger("agentq").setLevel(logging.CRITICAL)  # the progress says it all
    sys.exit(asyncio.run(_run(target, call, limits, store_url, again=again, quiet=quiet, as_json=as_json)))


async def _run(
    target: str, call: Any, limits: WorkerSettings, store_url: str | None, *, again: bool, quiet: bool, as_json: bool
) -> int:
    from agentq.worker import Worker  # noqa: PLC0415 - `--help` does not load the runtime

    app = app_of(call.task)
    async with opened(app, store_url, direct=True):
        (handle,) = await app.enqueue_many([call])
        if again:
            await confirm_again(app.store, [await _look(app, handle.id)], (), ask=True)
        if again and await app.store.command(Requeue(run_id=handle.id)) is Reply.DONE and not quiet:
            note(f"{handle.id} gets another set of attempts")
        if not quiet:
            note(f"{call.task.name} {handle.id} · {app.store.where}")
        made, progress = Worker(app, limits, root=handle.id), Progress(Code(call.task), quiet=quiet)

        def drain(reason: str) -> None:
            progress.say("stopping when the steps that run have ended; once more stops at once")
            made.drain(reason)

        with stopping(drain, made.abort) as asked, progress, _store_trouble():
            after = progress.begin(await _look(app, handle.id), await app.store.journal(handle.id))
            working = asyncio.create_task(made.run())
            try:
                last = await _watch(app, handle.id, working, progress, after)
            finally:
                made.drain("the run is over")
                await working
        if not last.state.final:
            return _interrupted(last, asked.exit_code, target, quiet=quiet)
        return await _finish(app, handle, last, as_json=as_json)


@contextmanager
def _store_trouble() -> Iterator[None]:
    """Say, once for each kind, that the store cannot be reached: the log is off here."""
    said: set[str] = set()

    def sink(event: str, fields: dict[str, Any]) -> None:
        text = str(fields.get("error") or fields.get("reason") or "")
        if event == "store.unavailable" and text not in said:
            said.add(text)
            warn(f"the store does not answer: {clean(text)}")

    add_sink(sink)
    try:
        yield
    finally:
        remove_sink(sink)


async def _look(app: AgentQ, run_id: str) -> Run:
    found = await app.store.runs(RunQuery(ids=(run_id,), limit=1))
    if not found:
        raise NotFound(f"run {run_id} is not there any more")
    return found[0]


async def _watch(app: AgentQ, run_id: str, working: asyncio.Task[Any], progress: Progress, after: int) -> Run:
    """Show progress until the run is final or the worker has stopped; returns the run as it is then."""

    async def look() -> None:
        async for moment in moments(app.store, run_id, after):
            progress.show(moment)

    looking = asyncio.create_task(look())
    done, _ = await asyncio.wait({looking, working}, return_when=asyncio.FIRST_COMPLETED)
    if looking in done:
        looking.result()
    else:
        looking.cancel()
        await asyncio.wait({looking})
        working.result()
    return await _look(app, run_id)


def _interrupted(last: Run, exit_code: int, target: str, *, quiet: bool) -> int:
    if not quiet:
        again = "the same command goes on there" if last.key else f"`{told(f'worker {app_target(target)}')}` goes on there"
        note(f"stopped after {count(last.steps, 'step')}; {again}")
    return exit_code or EX_FAILED


async def _finish(app: AgentQ, handle: Any, last: Run, *, as_json: bool) -> int:
    if last.state is RunState.SUCCEEDED:
        print_result(await handle.result(), run_id=handle.id, as_json=as_json)
        return 0
    if as_json:
        output.write_json({"id": last.id, "state": last.state.value, "failure": last.failure})
        return EX_FAILED
    if last.failure is None:
        raise Problem(f"run {last.id} was {last.state.value}", code=EX_FAILED)
    here = "; or here: the same command with --retry" if last.key else ""
    hint = f"{told(f'runs show {last.id}')}    what happened\n"
    if doubt := doubt_of(last, await app.store.journal(last.id)):
        hint += "\n".join(ways(doubt))
    else:
        hint += f"{told(f'runs retry {last.id}')}   another set of attempts, for a worker{here}"
    if start := fork_at(last.failure):
        hint += f"\n{told(f'runs fork {last.id} --keep {start}')}   a new run from before it, for a worker"
    if place := where(last.failure):
        hint = f"{place}\n{hint}"
    step = f" in step {last.failure.step}" if last.failure.step else ""
    raise Problem(f"run {last.id} failed{step}: {clean(reason(last.failure))}", hint=hint, code=EX_FAILED)

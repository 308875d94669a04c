"""The commands of ``agentq runs`` that change a run: cancel, pause, resume, retry, signal, fork."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Final, TypeVar

import click

from agentq.cli import output
from agentq.cli.answer import signal
from agentq.cli.early import find_or_submitted, told_submitted
from agentq.cli.interrupted import confirm_again
from agentq.cli.problem import Problem
from agentq.cli.reading import RunId, broker_option, find_run, json_option, read, store_option, told
from agentq.cli.shown import branch_of, label_of, name_of
from agentq.cli.target import did_you_mean
from agentq.cli.teach import Teaching
from agentq.message import Cancel, Command, Entry, Fork, Pause, Reply, Requeue, Resume, Run, RunQuery, RunState, new_run_id

if TYPE_CHECKING:
    from agentq.stores.base import Store

F = TypeVar("F", bound=Callable[..., Any])
_REFUSED: Final = {
    "cancel": "it is final already",
    "pause": "it is final already",
    "resume": "it is not paused",
    "retry": "only a failed or cancelled run can be retried",
    "fork": "its journal is shorter than that",
}
_UNCHANGED: Final = {
    "cancel": "was cancelled before",
    "pause": "was paused before",
    "resume": "was not paused",
    "retry": "is on its way already",
}
_DONE: Final = {"cancel": "cancelled", "pause": "paused", "resume": "resumed", "retry": "queued again"}
_ASKED: Final = {
    "cancel": "will be cancelled: by its worker within a heartbeat, or by the next one",
    "pause": "will pause at its next step",
}
"""What is said instead while the run is in a worker's hands."""

_EARLY: Final = {"cancel": "will be cancelled", "pause": "will be held", "resume": "will not be held"}
"""What is said, before "when it arrives", of a run that may still be in the broker."""

_PLACE: Final = re.compile(r"(?P<name>.+?)\s*(?:#(?P<call>\d+))?\s*(?:\[(?P<branch>[^\]]+)\])?")
"""A step as the timeline names it: ``ask``, ``ask #1``, ``read [0.1]``."""
_SHOWN: Final = 30


def _report(verb: str, outcomes: list[tuple[Run, Reply]], *, as_json: bool) -> None:
    if as_json:
        output.write_json([{"id": run.id, "reply": reply.value, "state": run.state.value} for run, reply in outcomes])
    for run, reply in outcomes:
        line = f"{run.id}  {run.task}  "
        if reply in {Reply.REFUSED, Reply.NOT_FOUND}:
            why = _REFUSED[verb] if reply is Reply.REFUSED else "it is not there any more"
            raise Problem(f"{verb} refused for {run.id}: {why} ({run.state.value})", hint=told(f"runs show {run.id}"))
        if run.state is RunState.SUBMITTED and not as_json:
            click.echo(f"{told_submitted(run)}; if it arrives, it {_EARLY[verb]}")
        elif not as_json:
            done = _ASKED.get(verb, _DONE[verb]) if run.state is RunState.RUNNING else _DONE[verb]
            click.echo(line + (_UNCHANGED.get(verb, "") if reply is Reply.UNCHANGED else done))


_again_option = click.option(
    "--again",
    metavar="STEP",
    multiple=True,
    help="Execute this interrupted step again: you have looked, and it did not happen.",
)


def _simple(name: str, build: Callable[..., Command], text: str, example: str) -> click.Command:
    """Make a command that sends one verb to each of the runs named; some verbs may come before the run."""
    early, retries = name in _EARLY, build is Requeue
    if early:
        text += " With a broker, a whole id that the store does not know yet is remembered until the run arrives."

    @click.command(name, help=f"{text}\n\n\b\nExample:\n  {example}", short_help=text.partition(".")[0] + ".")
    @click.argument("runs", nargs=-1, required=True, metavar="RUN…", type=RunId())
    @store_option
    @(broker_option if early else _again_option if retries else _as_it_is)
    @json_option
    def command(
        *,
        runs: tuple[str, ...],
        store_url: str | None,
        as_json: bool,
        broker_url: str | None = None,
        again: tuple[str, ...] = (),
    ) -> None:
        async def send(store: Store) -> list[tuple[Run, Reply]]:
            if early:
                found = [await find_or_submitted(store, word, broker_url) for word in runs]
                replies = [await store.command(build(run_id=run.id, early=run.state is RunState.SUBMITTED)) for run in found]
            else:
                found = [await find_run(store, word) for word in runs]
                if retries:
                    await confirm_again(store, found, again, ask=not as_json)
                replies = [await store.command(build(run_id=run.id)) for run in found]
            now = {run.id: run for run in await store.runs(RunQuery(ids=tuple(run.id for run in found), limit=len(found)))}
            return [(now.get(run.id, run), reply) for run, reply in zip(found, replies, strict=True)]

        _report(name, read(store_url, send), as_json=as_json)

    return command


def _as_it_is(command: F) -> F:
    return command


@click.command(cls=Teaching, short_help="Start a new run with the first steps of an old one.")
@click.argument("run", type=RunId(), metavar="RUN")
@click.option(
    "--from",
    "--at",
    "--keep",
    "place",
    required=True,
    metavar="STEP|N",
    help="The first that is done again; what is before is kept.",
)
@store_option
@json_option
def fork(*, run: str, place: str, store_url: str | None, as_json: bool) -> None:
    r"""Start a new run with the first steps of an old one, so that only the rest is executed.

    STEP is named as `agentq runs show` names it: that step, and all that was recorded after it, is done again. N is an
    entry of the journal, from 0, as error messages and --json (seq) count them.

    \b
    Examples:
      agentq runs fork 06cknh --from draft             from the first `draft` on
      agentq runs fork 06cknh --from 'ask #3'          from its fourth call on
      agentq runs fork 06cknh --from 'read [0.1]'      from the one in that branch on
      agentq runs fork 06cknh --from wait_for:approved
      agentq runs fork 06cknh --keep 12
    """

    async def send(store: Store) -> tuple[Run, str, int, Reply]:
        found = await find_run(store, run)
        upto = _before(found, await store.journal(found.id), place)
        new_id = new_run_id()
        return found, new_id, upto, await store.command(Fork(run_id=found.id, new_id=new_id, upto=upto))

    found, new_id, upto, reply = read(store_url, send)
    if reply is not Reply.DONE:
        _report("fork", [(found, reply)], as_json=False)
    if as_json:
        output.write_json({"id": new_id, "fork_of": found.id, "kept": upto})
    else:
        click.echo(f"{new_id}  {found.task}  forked from {found.id}, keeping {upto} of {found.entries} entries")


def _before(run: Run, journal: list[Entry], place: str) -> int:
    """Return how many entries come before the step, or before the entry, that ``place`` names."""
    if found := _PLACE.fullmatch(place.strip()):
        name, call, branch = found["name"], found["call"], found["branch"]
        for entry in journal:
            right_call = call is None or entry.occurrence == int(call)
            if name in {entry.step, name_of(entry)} and right_call and branch in {None, branch_of(entry)}:
                return entry.seq
    if place.isdecimal() and int(place) <= len(journal):
        return int(place)
    known = list(dict.fromkeys(label_of(entry) for entry in journal))
    shown = " · ".join(known[:_SHOWN]) + (f" · … ({len(known)} in all)" if len(known) > _SHOWN else "")
    hint = f"{did_you_mean(place, known)}\nits steps: {shown}" if known else "its journal is empty"
    raise Problem(f"run {run.id} has no step {place!r}", hint=hint.strip())


COMMANDS: Final = (
    _simple(
        "cancel",
        Cancel,
        "Cancel runs and everything they started. A running one stops within a heartbeat.",
        "agentq runs cancel 06cknh",
    ),
    _simple(
        "pause",
        Pause,
        "Hold runs at their next step. They keep what they have done and take no slot.",
        "agentq runs pause 06cknh",
    ),
    _simple("resume", Resume, "Let paused runs go on.", "agentq runs resume 06cknh"),
    _simple(
        "retry",
        Requeue,
        "Give failed or cancelled runs a fresh set of attempts. They go on at the step that failed. One that failed because "
        "a step with effect='at_most_once' was interrupted goes on only with --again STEP, or after a question.",
        "agentq runs retry 06cknh",
    ),
    signal,
    fork,
)

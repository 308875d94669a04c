"""The commands of ``agentq runs`` that change a run: cancel, pause, resume, retry, signal, fork."""

from __future__ import annotations

import secrets
from collections.abc import Callable
from typing import TYPE_CHECKING, Final

import click
import msgspec

from agentq.cli import output
from agentq.cli.problem import Problem
from agentq.cli.reading import RunId, find_run, json_option, read, store_option
from agentq.cli.teach import Teaching
from agentq.cli.text import payload
from agentq.message import Cancel, Command, Fork, Pause, Reply, Requeue, Resume, Run, Send, Wait, WaitKind, new_run_id

if TYPE_CHECKING:
    from agentq.stores.base import Store

_REFUSED: Final = {
    "cancel": "it is final already",
    "pause": "it is final already",
    "resume": "it is not paused",
    "retry": "only a failed or cancelled run can be retried",
    "signal": "it is final already",
    "fork": "its journal is shorter than that",
}
_UNCHANGED: Final = {
    "cancel": "was cancelled before",
    "pause": "was paused before",
    "resume": "was not paused",
    "retry": "is on its way already",
    "signal": "had this signal already",
}
_DONE: Final = {"cancel": "cancelled", "pause": "paused", "resume": "resumed", "retry": "queued again", "signal": "signalled"}


def _report(verb: str, outcomes: list[tuple[Run, Reply]], *, as_json: bool, done: str = "") -> None:
    if as_json:
        output.write_json([{"id": run.id, "reply": reply.value} for run, reply in outcomes])
    for run, reply in outcomes:
        line = f"{run.id}  {run.task}  "
        if reply in {Reply.REFUSED, Reply.NOT_FOUND}:
            why = _REFUSED[verb] if reply is Reply.REFUSED else "it is not there any more"
            raise Problem(f"{verb} refused for {run.id}: {why} ({run.state.value})", hint=f"agentq runs show {run.id}")
        if not as_json:
            click.echo(line + (_UNCHANGED.get(verb, "") if reply is Reply.UNCHANGED else done or _DONE[verb]))


def _simple(name: str, build: Callable[[str], Command], text: str, example: str) -> click.Command:
    """Make a command that sends one verb to each of the runs named."""

    @click.command(name, help=f"{text}\n\n\b\nExample:\n  {example}", short_help=text.partition(".")[0] + ".")
    @click.argument("runs", nargs=-1, required=True, metavar="RUN…", type=RunId())
    @store_option
    @json_option
    def command(*, runs: tuple[str, ...], store_url: str | None, as_json: bool) -> None:
        async def send(store: Store) -> list[tuple[Run, Reply]]:
            found = [await find_run(store, word) for word in runs]
            return [(run, await store.command(build(run.id))) for run in found]

        _report(name, read(store_url, send), as_json=as_json)

    return command


@click.command(cls=Teaching)
@click.argument("run", type=RunId())
@click.argument("name", required=False)
@click.argument("value", required=False)
@click.option("--id", "signal_id", help="The same id twice is one signal.")
@store_option
@json_option
def signal(
    *, run: str, name: str | None, value: str | None, signal_id: str | None, store_url: str | None, as_json: bool
) -> None:
    r"""Answer what a run waits for, or put a signal into its mailbox beforehand.

    VALUE is JSON; anything that is not JSON is taken as text. Without NAME, what the run waits for is listed.

    \b
    Examples:
      agentq runs signal 06cknh                    what does it wait for?
      agentq runs signal 06cknh approved true
      agentq runs signal 06cknh review '{"stars": 4}'
    """

    async def send(store: Store) -> tuple[Run, Reply | None, list[Wait]]:
        found = await find_run(store, run)
        waits = [wait for wait in await store.waits(found.id) if wait.kind is WaitKind.SIGNAL]
        if name is None or value is None:
            return found, None, waits
        command = Send(run_id=found.id, name=name, signal_id=signal_id or secrets.token_hex(8), payload=_json(value))
        return found, await store.command(command), waits

    found, reply, waits = read(store_url, send)
    if reply is not None:
        unexpected = name not in {wait.ref for wait in waits}
        _report("signal", [(found, reply)], as_json=as_json, done="signalled" + (" (kept until it asks)" if unexpected else ""))
        return
    if as_json:
        output.write_json([output.plain(wait) for wait in waits])
    elif name is not None:
        raise Problem("VALUE is missing", hint=f"agentq runs signal {found.id} {name} true", code=2)
    elif not waits:
        click.echo(f"{found.id} waits for no signal ({found.state.value})")
    for wait in waits if not as_json and name is None else ():
        click.echo(f"{wait.ref}  {wait.ask or ''}\n  agentq runs signal {found.id} {wait.ref} …")


def _json(value: str) -> bytes:
    """Take JSON as it is and anything else as a text."""
    try:
        msgspec.json.decode(value)
    except msgspec.DecodeError:
        return msgspec.json.encode(value)
    return value.encode()


@click.command(cls=Teaching)
@click.argument("run", type=RunId())
@click.option("--from", "step", metavar="STEP[#N]", help="Do this step (its N-th time, from 0) and all after it again.")
@click.option("--keep", metavar="N", type=click.IntRange(0), help="Keep the first N journal entries.")
@store_option
@json_option
def fork(*, run: str, step: str | None, keep: int | None, store_url: str | None, as_json: bool) -> None:
    r"""Start a new run with the first steps of an old one, so that only the rest is executed.

    \b
    Examples:
      agentq runs fork 06cknh --from draft         redo everything from the first `draft` on
      agentq runs fork 06cknh --from ask#3
      agentq runs fork 06cknh --keep 12
    """
    if (step is None) == (keep is None):
        raise Problem("say where to fork: --from STEP or --keep N", hint="agentq runs show RUN lists the steps", code=2)

    async def send(store: Store) -> tuple[Run, str, int, Reply]:
        found = await find_run(store, run)
        upto = await _before(store, found, step) if step is not None else keep or 0
        new_id = new_run_id()
        return found, new_id, upto, await store.command(Fork(run_id=found.id, new_id=new_id, upto=upto))

    found, new_id, upto, reply = read(store_url, send)
    if reply is not Reply.DONE:
        _report("fork", [(found, reply)], as_json=False)
    if as_json:
        output.write_json({"id": new_id, "fork_of": found.id, "kept": upto})
    else:
        click.echo(f"{new_id}  {found.task}  forked from {found.id}, keeping {upto} of {found.entries} entries")


async def _before(store: Store, run: Run, step: str) -> int:
    """Return how many entries come before the step."""
    name, _, number = step.partition("#")
    if number and not number.isdecimal():
        raise Problem(f"{step!r}: the part behind # is a number from 0", code=2)
    journal = await store.journal(run.id)
    for entry in journal:
        if entry.step == name and (not number or entry.occurrence == int(number)):
            return entry.seq
    known = sorted({entry.step for entry in journal})
    raise Problem(f"run {run.id} has no step {step!r}", hint=f"its steps: {payload(msgspec.json.encode(' '.join(known)), 400)}")


COMMANDS: Final = (
    _simple(
        "cancel",
        lambda run_id: Cancel(run_id=run_id),
        "Cancel runs and everything they started. A running one stops within a heartbeat.",
        "agentq runs cancel 06cknh",
    ),
    _simple(
        "pause",
        lambda run_id: Pause(run_id=run_id),
        "Hold runs at their next step. They keep what they have done and take no slot.",
        "agentq runs pause 06cknh",
    ),
    _simple("resume", lambda run_id: Resume(run_id=run_id), "Let paused runs go on.", "agentq runs resume 06cknh"),
    _simple(
        "retry",
        lambda run_id: Requeue(run_id=run_id),
        "Give failed or cancelled runs a fresh set of attempts. They go on at the step that failed.",
        "agentq runs retry 06cknh",
    ),
    signal,
    fork,
)

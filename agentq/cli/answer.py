"""``agentq runs signal``: answer what a run waits for."""

from __future__ import annotations

import secrets
from typing import TYPE_CHECKING

import click
import msgspec

from agentq.cli import output
from agentq.cli.early import find_or_submitted, told_submitted
from agentq.cli.expected import answering
from agentq.cli.problem import Problem, note, warn
from agentq.cli.reading import RunId, broker_option, json_option, read, store_option, told
from agentq.cli.target import did_you_mean
from agentq.cli.teach import Teaching
from agentq.cli.text import clean
from agentq.message import Reply, Run, RunState, Send, Wait, WaitKind

if TYPE_CHECKING:
    from agentq.stores.base import Store

_LIKE_JSON = ("{", "[", '"', "'")


@click.command(cls=Teaching)
@click.argument("run", type=RunId(), metavar="RUN")
@click.argument("name", required=False)
@click.argument("value", required=False)
@click.option("--id", "signal_id", metavar="ID", help="The same id twice is one signal.")
@store_option
@broker_option
@json_option
def signal(
    *,
    run: str,
    name: str | None,
    value: str | None,
    signal_id: str | None,
    store_url: str | None,
    broker_url: str | None,
    as_json: bool,
) -> None:
    r"""Answer what a run waits for, or put a signal into its mailbox beforehand.

    VALUE is JSON; what is not JSON is a text. Without NAME, what the run waits for is listed. An answer that is not of the
    type that the run waits for is refused by its worker: `agentq runs show` says so, and the run waits on.
    With a broker, a signal to a whole id that the store does not know yet is kept until the run arrives.

    \b
    Examples:
      agentq runs signal 06cknh                         what does it wait for?
      agentq runs signal 06cknh approved true
      agentq runs signal 06cknh review '{"stars": 4}'
      agentq runs signal 06cknh title "A short history of bees"
    """
    payload = _payload(value) if value is not None else None

    async def look_and_send(store: Store) -> tuple[Run, Reply | None, list[Wait]]:
        found = await find_or_submitted(store, run, broker_url)
        early = found.state is RunState.SUBMITTED
        waits = [] if early else [wait for wait in await store.waits(found.id) if wait.kind is WaitKind.SIGNAL]
        if name is None or payload is None:
            return found, None, waits
        command = Send(run_id=found.id, name=name, signal_id=signal_id or secrets.token_hex(8), payload=payload, early=early)
        return found, await store.command(command), waits

    found, reply, waits = read(store_url, look_and_send)
    if reply is not None and name is not None:
        _sent(found, name, waits, reply, as_json=as_json)
    elif name is not None:
        hints = next((answering(found.id, wait) for wait in waits if wait.ref == name), ["agentq runs signal RUN NAME VALUE"])
        raise Problem("VALUE is missing", hint="\n".join(hints), code=2)
    elif as_json:
        output.write_json([output.plain(wait) for wait in waits])
    else:
        _list(found, waits)


def _payload(value: str) -> bytes:
    """Take JSON as it is and anything else as a text, unless it was surely meant to be JSON."""
    try:
        msgspec.json.decode(value)
    except msgspec.DecodeError as error:
        if value.lstrip().startswith(_LIKE_JSON):
            raise Problem(
                f"VALUE begins like JSON and is none: {error}",
                hint=f"""got {value}\nquote JSON for the shell: '{{"ok": true}}'; write a text that begins so as JSON: '"…"'""",
                code=2,
            ) from None
        return msgspec.json.encode(value)
    return value.encode()


def _sent(run: Run, name: str, waits: list[Wait], reply: Reply, *, as_json: bool) -> None:
    if reply in {Reply.REFUSED, Reply.NOT_FOUND}:
        why = "it is final already" if reply is Reply.REFUSED else "it is not there any more"
        raise Problem(f"signal refused for {run.id}: {why} ({run.state.value})", hint=told(f"runs show {run.id}"))
    names = sorted({wait.ref for wait in waits})
    expected = name in names
    if as_json:
        output.write_json([{"id": run.id, "reply": reply.value, "waits_for": names}])
    elif run.state is RunState.SUBMITTED:
        click.echo(f"{told_submitted(run)}; if it arrives, it has the signal")
    elif reply is Reply.UNCHANGED:
        click.echo(f"{run.id}  {run.task}  had this signal already")
    else:
        click.echo(f"{run.id}  {run.task}  signalled" + ("" if expected else " (kept until it asks)"))
    if names and not expected:
        warn(f"it waits for {' and '.join(names)}, not for {name}")
        if guess := did_you_mean(name, names):
            note(f"  {guess}")


def _list(run: Run, waits: list[Wait]) -> None:
    if run.state is RunState.SUBMITTED:
        click.echo(told_submitted(run))
    elif not waits:
        click.echo(f"{run.id} waits for no signal ({run.state.value})")
    for wait in waits:
        click.echo(f"{wait.ref}  {clean(wait.ask or '')}")
        for line in answering(run.id, wait):
            click.echo(f"  {line}")

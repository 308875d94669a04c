"""``agentq doctor``: look at everything that must be right, and say what to do about what is not."""

from __future__ import annotations

import asyncio
import sys
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING

import click
import msgspec
from rich.text import Text

from agentq import settings
from agentq.cli import broker_checks, checks, output
from agentq.cli.brokers import meant_broker, needed, one_app, queues_of
from agentq.cli.checks import Finding, Level
from agentq.cli.problem import EX_FAILED
from agentq.cli.reading import NOT_YET, broker_option, json_option, read, store_file, store_option, told
from agentq.cli.target import load_app
from agentq.cli.teach import Teaching
from agentq.cli.working import UNSHARED, unshared
from agentq.errors import AgentQError, InvalidArgument, StoreIncompatible, StoreMissing
from agentq.settings import redacted

if TYPE_CHECKING:
    from agentq.app import AgentQ
    from agentq.settings import Settings
    from agentq.stores.base import Store

_SIGNS = {Level.GOOD: ("✓", "green"), Level.ODD: ("!", "yellow"), Level.BROKEN: ("✗", "red")}
_OPEN_S = 15.0
"""How long the store may take to open and answer."""


@click.command(cls=Teaching, short_help="Check everything that must be right; say what to fix.")
@click.argument("target", required=False, metavar="[MODULE:AQ]")
@click.option("--fix", is_flag=True, help="Create and mend what the queues need in the broker.")
@click.option("--iam", is_flag=True, help="Print the least IAM policy for the queues at SQS, and nothing else.")
@store_option
@broker_option
@json_option
def doctor(*, target: str | None, fix: bool, iam: bool, store_url: str | None, broker_url: str | None, as_json: bool) -> None:
    r"""Check the store, its file system, permissions, clocks, leases, workers and dead runs; say what to fix.

    With a broker, what each queue needs there is checked too: that it exists, its dead-letter queue, retention,
    permissions. With MODULE:AQ the code is loaded, and queued runs are compared with its tasks. Exits with 1 if anything is
    broken.

    \b
    Examples:
      agentq doctor
      agentq doctor hello:aq --store sqlite:/data/agentq.db
      agentq doctor hello:aq --broker sqs://eu-central-1 --fix
      agentq doctor hello:aq --broker sqs://eu-central-1 --iam > policy.json
    """
    if iam:
        _print_policy(target, store_url, broker_url)
        return
    findings = _findings(target, store_url, broker_url, fix=fix)
    if as_json:
        output.write_json([{**asdict(one), "level": one.level.value} for one in findings])
    else:
        _print(findings)
    if any(one.level is Level.BROKEN for one in findings):
        sys.exit(EX_FAILED)


def _print_policy(target: str | None, store_url: str | None, broker_url: str | None) -> None:
    app = load_app(target) if target else None
    url = needed(broker_url, app)
    if app is not None:
        apps: dict[str, tuple[str, ...]] = {app.name: app.queues}
    else:
        apps = read(store_url, _apps)
    name = one_app(apps, "doctor --iam")
    document = asyncio.run(broker_checks.policy(url, name, apps[name]))
    click.echo(msgspec.json.format(msgspec.json.encode(document), indent=2).decode())


async def _apps(store: Store) -> dict[str, tuple[str, ...]]:
    return await queues_of(store, await store.census())


def _findings(target: str | None, store_url: str | None, broker_url: str | None, *, fix: bool) -> list[Finding]:
    findings: list[Finding] = []
    try:
        found = settings.load()
    except AgentQError as error:
        return [Finding(Level.BROKEN, "settings", str(error), "correct or unset the variable")]
    findings += checks.environment(found)
    app: AgentQ | None = None
    if target:
        try:
            app = load_app(target)
        except click.ClickException as error:
            findings.append(Finding(Level.BROKEN, "code", error.message, getattr(error, "hint", "")))
        else:
            tasks = " ".join(sorted(app.tasks)) or "none"
            findings.append(Finding(Level.GOOD, "code", f"{target} is AgentQ({app.name!r}), tasks: {tasks}"))
            if said := unshared(app, store_url):
                findings.append(Finding(Level.BROKEN, "steps", said, UNSHARED))
    patient = _Patient(found, app, known={app.name: app.queues} if app is not None else {})
    store = store_url or (app.store_url if app is not None else None) or found.store.url
    url = meant_broker(broker_url, app)
    if url is not None and store == settings.DEFAULT_STORE and store_url is None:
        findings.append(broker_checks.NO_STORE)  # what is left when nobody names one is not looked into
    else:
        findings += _store(store, patient)
    if url is not None:
        findings += asyncio.run(broker_checks.look(url, patient.known, fix=fix))
    elif fix:
        findings.append(Finding(Level.ODD, "broker", "--fix mends what a broker lacks, and none is named", "give --broker URL"))
    return [replace(one, remedy=_to_copy(one.remedy, target)) for one in findings]


def _to_copy(remedy: str, target: str | None) -> str:
    """Let a remedy that is a command alone name the module and the store that this one was given."""
    remedy = remedy.replace("module:aq", target) if target else remedy
    alone = remedy.startswith("agentq ") and not any(sign in remedy for sign in ";`,") and " --store " not in remedy
    return told(remedy.removeprefix("agentq ")) if alone else remedy


@dataclass(slots=True)
class _Patient:
    """What the checks know and what they learn."""

    found: Settings
    app: AgentQ | None
    known: dict[str, tuple[str, ...]]
    """App to its queues."""


def _store(url: str, patient: _Patient) -> list[Finding]:
    findings: list[Finding] = []
    if url.startswith("memory:"):
        return [Finding(Level.ODD, "store", "memory: is gone when its process ends", "AGENTQ_STORE=sqlite:./agentq.db")]
    try:
        path = store_file(url)
        if path is not None:
            findings += checks.file(path)
            if any(one.level is Level.BROKEN for one in findings):
                return findings
            if not path.exists():
                return [*findings, Finding(Level.GOOD, "store", f"{path.resolve()} is not there yet; the first run makes it")]
        findings += asyncio.run(asyncio.wait_for(_opened(url, patient), _OPEN_S))
    except (AgentQError, OSError) as error:  # a time-out is among the last
        findings.append(_refused(error, url))
    return findings


def _refused(error: AgentQError | OSError, url: str) -> Finding:
    """What it means that the store does not open."""
    if isinstance(error, StoreMissing):
        return Finding(Level.ODD, "store", f"{error} yet", NOT_YET)
    if isinstance(error, StoreIncompatible):
        return Finding(Level.BROKEN, "schema", str(error), "install the agentq that wrote it, or a newer one")
    if isinstance(error, TimeoutError):
        said = f"{redacted(url)} does not answer within {_OPEN_S:g} s"
        return Finding(Level.BROKEN, "store", said, "does another process hold it locked? does the server run?")
    if isinstance(error, InvalidArgument):
        return Finding(Level.BROKEN, "store", str(error), "correct AGENTQ_STORE or --store")
    ours = isinstance(error, AgentQError)  # and says itself what to do
    return Finding(Level.BROKEN, "store", str(error), "" if ours else "is it an agentq store, and may this user write it?")


async def _opened(url: str, patient: _Patient) -> list[Finding]:
    from agentq.stores import open_store  # noqa: PLC0415 - `--help` needs no store

    async with open_store(url, create=False) as store:
        findings = await checks.store(store, patient.found, patient.app)
        patient.known = await queues_of(store, await store.census(), patient.app, strays=False)
        return [Finding(Level.GOOD, "schema", "fits this agentq"), *findings]


def _print(findings: list[Finding]) -> None:
    console = output.console()
    width = max(len(one.what) for one in findings)
    for one in findings:
        sign, colour = _SIGNS[one.level]
        text = Text.assemble((f"{sign} ", colour), (f"{one.what:{width}}  ", "bright_black"), one.said)
        console.print(text, soft_wrap=True)
        if one.remedy and one.level is not Level.GOOD:
            console.print(Text(" " * (width + 4) + one.remedy, style=colour), soft_wrap=True)
    broken = sum(one.level is Level.BROKEN for one in findings)
    odd = sum(one.level is Level.ODD for one in findings)
    console.print()
    if broken:
        console.print(Text(f"{broken} broken, {odd} to look at", style="red"))
    else:
        console.print(Text("all is well" if not odd else f"it works; {odd} to look at", style="green" if not odd else "yellow"))

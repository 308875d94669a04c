"""``agentq doctor``: look at everything that must be right, and say what to do about what is not."""

from __future__ import annotations

import asyncio
import sys
from dataclasses import asdict, replace
from typing import TYPE_CHECKING

import click
from rich.text import Text

from agentq import settings
from agentq.cli import checks, output
from agentq.cli.checks import Finding, Level
from agentq.cli.problem import EX_FAILED
from agentq.cli.reading import json_option, store_file, store_option
from agentq.cli.target import load_app
from agentq.cli.teach import Teaching
from agentq.errors import AgentQError, StoreIncompatible
from agentq.settings import redacted

if TYPE_CHECKING:
    from agentq.app import AgentQ
    from agentq.settings import Settings

_SIGNS = {Level.GOOD: ("✓", "green"), Level.ODD: ("!", "yellow"), Level.BROKEN: ("✗", "red")}
_OPEN_S = 15.0
"""How long the store may take to open and answer."""


@click.command(cls=Teaching, short_help="Check everything that must be right; say what to fix.")
@click.argument("target", required=False, metavar="[MODULE:AQ]")
@store_option
@json_option
def doctor(*, target: str | None, store_url: str | None, as_json: bool) -> None:
    r"""Check the store, its file system, permissions, clocks, leases, workers and dead runs; say what to fix.

    With MODULE:AQ the code is loaded too, and queued runs are compared with its tasks. Exits with 1 if anything is broken.

    \b
    Examples:
      agentq doctor
      agentq doctor hello:aq --store sqlite:/data/agentq.db
    """
    findings = _findings(target, store_url)
    if as_json:
        output.write_json([{**asdict(one), "level": one.level.value} for one in findings])
    else:
        _print(findings)
    if any(one.level is Level.BROKEN for one in findings):
        sys.exit(EX_FAILED)


def _findings(target: str | None, store_url: str | None) -> list[Finding]:
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
    findings += _store(store_url or found.store.url, found, app)
    return [replace(one, remedy=one.remedy.replace("module:aq", target)) if target else one for one in findings]


def _store(url: str, found: Settings, app: AgentQ | None) -> list[Finding]:
    findings: list[Finding] = []
    if url.startswith("memory:"):
        return [Finding(Level.ODD, "store", "memory: is gone when its process ends", "AGENTQ_STORE=sqlite:./agentq.db")]
    path = store_file(url)
    if path is not None:
        findings += checks.file(path)
        if any(one.level is Level.BROKEN for one in findings):
            return findings
        if not path.exists():
            return [*findings, Finding(Level.GOOD, "store", f"{path.resolve()} is not there yet; the first run makes it")]
    try:
        findings += asyncio.run(asyncio.wait_for(_opened(url, found, app), _OPEN_S))
    except StoreIncompatible as error:
        findings.append(Finding(Level.BROKEN, "schema", str(error), "install the agentq that wrote it, or a newer one"))
    except TimeoutError:
        said = f"{redacted(url)} does not answer within {_OPEN_S:g} s"
        findings.append(Finding(Level.BROKEN, "store", said, "does another process hold it locked? does the server run?"))
    except (AgentQError, OSError) as error:
        findings.append(Finding(Level.BROKEN, "store", str(error), "is it an agentq store, and may this user write it?"))
    return findings


async def _opened(url: str, found: Settings, app: AgentQ | None) -> list[Finding]:
    from agentq.stores import open_store  # noqa: PLC0415 - `--help` needs no store

    async with open_store(url) as store:
        return [Finding(Level.GOOD, "schema", "fits this agentq"), *await checks.store(store, found, app)]


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

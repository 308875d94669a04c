"""What ``agentq doctor`` looks at where there is a broker: what the queues need there, and whether the store fits behind it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from agentq.cli.brokers import UNNAMED, answered, connected, shown, with_module
from agentq.cli.checks import Finding, Level
from agentq.cli.letters import safe
from agentq.cli.problem import Problem
from agentq.cli.reading import told
from agentq.errors import AgentQError, BrokerUnavailable, InvalidArgument
from agentq.settings import DEFAULT_STORE, redacted

if TYPE_CHECKING:
    from agentq.brokers.base import Finding as Found

NO_STORE = Finding(
    Level.BROKEN,
    "store",
    f"behind a broker the store must be named; {DEFAULT_STORE} is what is left when nobody does",
    "set AGENTQ_STORE to one that every worker reaches: postgresql://user@host/database (on one machine, a file will do)",
)


async def look(url: str, apps: Mapping[str, Sequence[str]], *, fix: bool) -> list[Finding]:
    """Check, and with ``fix`` create or mend, what each app's queues need in the broker."""
    if not apps and fix:
        return [Finding(Level.BROKEN, "broker", f"nothing was fixed: {UNNAMED}", told("doctor MODULE:AQ --fix"))]
    if not apps:
        return [Finding(Level.ODD, "broker", f"{redacted(url)} was not looked into: {UNNAMED}", told("doctor MODULE:AQ"))]
    findings: list[Finding] = []
    for app, queues in apps.items():
        findings += await _of(url, app, queues, fix=fix)
    return findings


async def _of(url: str, app: str, queues: Sequence[str], *, fix: bool) -> list[Finding]:
    try:
        async with connected(url, app) as broker:
            found = await answered(broker.inspect(queues, fix=fix))
            where = shown(broker.where)
    except BrokerUnavailable as error:
        return [Finding(Level.BROKEN, "broker", shown(error), "does the server run, and is it reached from here?")]
    except InvalidArgument as error:
        return [Finding(Level.BROKEN, "broker", shown(error), "correct AGENTQ_BROKER or --broker")]
    except (AgentQError, OSError) as error:
        return [Finding(Level.BROKEN, "broker", shown(error), "")]
    good = all(one.ok or one.fixed for one in found)
    answer = Finding(Level.GOOD, "broker", f"{where} answers")
    return [*([answer] if good else []), *map(_finding, found)]


def _finding(one: Found) -> Finding:
    what, text = safe(one.what), safe(with_module(one.text))
    if one.fixed:
        return Finding(Level.GOOD, what, f"--fix: {text}")
    if one.ok:
        return Finding(Level.GOOD, what, text)
    return Finding(Level.BROKEN, what, text)  # the text says what to do


async def policy(url: str, app: str, queues: Sequence[str]) -> dict[str, Any]:
    """Return the least-privilege IAM policy of an app's queues; a `Problem` for brokers that know no IAM."""
    async with connected(url, app) as broker:
        written = getattr(broker, "policy", None)
        if written is None:
            remedy = "on Kafka producers need Write and Describe on the topics, workers Read and Describe on topics and group"
            raise Problem(f"--iam writes policies for SQS; {shown(broker.where)} knows none", hint=remedy, code=2)
        document: dict[str, Any] = written(queues)
        return document

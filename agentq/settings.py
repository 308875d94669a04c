"""Everything that can be set from outside, in frozen groups: the one place that reads the environment."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields
from typing import Any
from urllib.parse import urlsplit, urlunsplit

from agentq.errors import InvalidArgument
from agentq.redact import is_maimed, login_is_cut

DEFAULT_STORE = "sqlite:./agentq.db"

_UNITS = {"": 1.0, "ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}
_DURATION = re.compile(r"(\d+(?:\.\d+)?)\s*(ms|s|m|h|d|)")
_SERVICE_LINK = re.compile(r"_SERVICE_(HOST|PORT)|_PORT_\d+_(TCP|UDP|SCTP)")
"""What Kubernetes puts into every pod for a Service named agentq or agentq-something."""
_NOT_OURS = "AGENTQ_DEMO_"
"""What only the demo reads."""
_LINK_VALUE = re.compile(r"(tcp|udp|sctp)://")


def _setting(name: str, default: Any, read: Callable[[str], Any]) -> Any:
    return field(default=default, metadata={"env": f"AGENTQ_{name}", "read": read})


def seconds(text: str) -> float:
    """Read a duration: ``30``, ``30s``, ``500ms``, ``5m``, ``2h`` or ``7d``."""
    match = _DURATION.fullmatch(text.strip())
    if not match:
        raise ValueError("give seconds, or a number with ms, s, m, h or d, such as 30 or 5m")
    return float(match[1]) * _UNITS[match[2]]


def weighted_queues(text: str) -> tuple[tuple[str, int], ...]:
    """Read ``urgent=3,reports`` as queues with weights; no weight is 1."""
    queues = []
    for part in filter(None, (each.strip() for each in text.split(","))):
        name, _, weight = part.partition("=")
        if not name.strip() or (weight and not weight.strip().isdecimal()):
            raise ValueError("give names with optional weights, such as urgent=3,reports")
        queues.append((name.strip(), int(weight) if weight else 1))
    return tuple(queues)


def whole(text: str) -> int:
    """Read a whole number."""
    if not text.strip().isdecimal():
        raise ValueError("give a whole number")
    return int(text)


def share(text: str) -> float | None:
    """Read a share: ``0.9`` or ``90%``; ``none`` is without."""
    match = re.fullmatch(r"\s*(?:(none)|(\d+(?:\.\d+)?)(%?))\s*", text, re.IGNORECASE)
    if not match:
        raise ValueError("give a share such as 0.9 or 90%, or none")
    return None if match[1] else float(match[2]) / (100 if match[3] else 1)


def _at_least(name: str, value: float, least: float) -> None:
    if not value >= least:
        raise InvalidArgument(name, value, f"it must be {least} or more")


@dataclass(frozen=True, slots=True, kw_only=True)
class StoreSettings:
    """Where runs and their journals are kept."""

    url: str = _setting("STORE", DEFAULT_STORE, str)
    """``sqlite:./file.db``, ``sqlite:////abs/file.db`` or ``memory:``. The default needs no server: a file in the working
    directory."""
    retention_s: float = _setting("RETENTION", 30 * 86400.0, seconds)
    """Seconds for which a final run is kept. A month: long enough to look into what went wrong, and longer than any
    broker's own retention, so that a late redelivery still meets its row."""

    def __post_init__(self) -> None:
        """Refuse what can never work."""
        _at_least("retention_s", self.retention_s, 0)

    @property
    def explicit(self) -> bool:
        """Whether somebody chose the store. A broker needs one that other pods reach, never the default file."""
        return self.url != DEFAULT_STORE

    def __repr__(self) -> str:
        """Show the URL without its password."""
        return f"StoreSettings(url={redacted(self.url)!r}, retention_s={self.retention_s})"


@dataclass(frozen=True, slots=True, kw_only=True)
class BrokerSettings:
    """Where submissions arrive; None is the store itself, which then is the queue."""

    url: str | None = _setting("BROKER", None, str)
    """``sqs://region/{app}-{queue}`` or ``kafka://host:port/{app}.{queue}``; what stands in braces is filled in."""
    admit_ahead: int = _setting("ADMIT_AHEAD", 1000, whole)
    """Runnable runs of its queues up to which a worker reads a partitioned log ahead into the store, so that one long run
    blocks nothing behind it: enough for a hundred idle slots to have ten short runs each, and little beside a store."""

    def __post_init__(self) -> None:
        """Refuse what can never work."""
        _at_least("admit_ahead", self.admit_ahead, 1)

    def __repr__(self) -> str:
        """Show the URL without its password."""
        return f"BrokerSettings(url={redacted(self.url) if self.url else None!r}, admit_ahead={self.admit_ahead})"


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkerSettings:
    """How one worker process works. Times are in seconds."""

    concurrency: int = _setting("CONCURRENCY", 8, whole)
    """Slots: runs at a time. Eight: agents wait for models most of the time, and eight transcripts fit into small pods."""
    queues: tuple[tuple[str, int], ...] = _setting("QUEUES", (), weighted_queues)
    """(name, weight) to serve; a queue of weight 3 is asked first three times as often. Empty: every queue that the
    registered tasks declare, with weight 1."""
    processes: int = _setting("PROCESSES", 1, whole)
    """Worker processes that one command starts, each with ``concurrency`` slots."""
    lease_s: float = _setting("LEASE", 30.0, seconds)
    """How long a run stays ours without a heartbeat: what a killed worker delays its runs by, on another machine."""
    heartbeat_s: float = _setting("HEARTBEAT", 5.0, seconds)
    """Between renewals; also how late a cancel, pause or cordon is seen at most. Six fit into a lease."""
    fence_s: float = _setting("FENCE", 20.0, seconds)
    """Without a renewal for so long, the worker stops its runs itself: ten seconds before anybody may take them."""
    poll_s: float = _setting("POLL", 1.0, seconds)
    """Between looks for work when the store rings no bell; a bell usually comes within milliseconds."""
    drain_s: float = _setting("DRAIN", 25.0, seconds)
    """For the running steps to end after SIGTERM, before they are cancelled. Kubernetes kills after 30 by default."""
    grace_s: float = _setting("GRACE", 10.0, seconds)
    """For code to end after it was cancelled, before it is abandoned."""
    health_host: str = _setting("HEALTH_HOST", "0.0.0.0", str)  # noqa: S104 - kubelets probe the pod's address
    health_port: int | None = _setting("HEALTH_PORT", None, whole)
    """TCP port of /healthz, /readyz, /status and /metrics; None serves none, 0 takes a free one."""
    max_runs: int | None = _setting("MAX_RUNS", None, whole)
    """Runs after which the process drains and is started anew; None is never."""
    max_memory: float | None = _setting("MAX_MEMORY", None, share)
    """Share of the cgroup's memory limit above which the process drains and is started anew; None is never."""
    admit_memory: float | None = _setting("ADMIT_MEMORY", 0.9, share)
    """Share of the cgroup's memory limit above which nothing is claimed; None is without such a limit."""
    pool: str = _setting("POOL", "default", str)
    """The deployment that this worker belongs to."""
    pod: str | None = _setting("POD", None, str)
    """The pod's name, from the downward API."""
    version: str = _setting("VERSION", "", str)
    """The image's or the code's version, shown with the worker."""

    def __post_init__(self) -> None:
        """Refuse what can never work.

        Raises:
            InvalidArgument: naming the field and the rule.
        """
        _at_least("concurrency", self.concurrency, 1)
        _at_least("processes", self.processes, 1)
        for name in ("drain_s", "grace_s"):
            _at_least(name, getattr(self, name), 0)
        for name in ("heartbeat_s", "poll_s"):
            if getattr(self, name) <= 0:
                raise InvalidArgument(name, getattr(self, name), "it must be more than 0 seconds")
        if not self.heartbeat_s < self.fence_s < self.lease_s:
            shown = (self.heartbeat_s, self.fence_s, self.lease_s)
            rule = f"the heartbeat must be shorter than the fence, and the fence than the lease; they would be {shown}"
            raise InvalidArgument("heartbeat_s, fence_s, lease_s", shown, rule)
        if self.max_runs is not None:
            _at_least("max_runs", self.max_runs, 1)
        if self.health_port is not None and not 0 <= self.health_port <= 65535:  # noqa: PLR2004 - TCP's highest port
            raise InvalidArgument("health_port", self.health_port, "it must be a TCP port, 0 to 65535")
        for name in ("max_memory", "admit_memory"):
            value = getattr(self, name)
            if value is not None and not 0 < value <= 1:
                raise InvalidArgument(name, value, "it is a share of the memory limit, above 0 and up to 1")
        for queue, weight in self.queues:
            _at_least(f"queues[{queue}]", weight, 1)


@dataclass(frozen=True, slots=True, kw_only=True)
class LogSettings:
    """What the command line prints; the library itself never configures logging."""

    level: str = _setting("LOG_LEVEL", "info", str.lower)
    format: str = _setting("LOG_FORMAT", "auto", str.lower)
    """``json``, ``console``, or ``auto``: console on a terminal, JSON otherwise."""

    def __post_init__(self) -> None:
        """Refuse unknown words."""
        for name, known in (("level", ("debug", "info", "warning", "error")), ("format", ("auto", "json", "console"))):
            if getattr(self, name) not in known:
                raise InvalidArgument(name, getattr(self, name), f"use one of {', '.join(known)}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """All groups, and what was odd about the environment."""

    store: StoreSettings = StoreSettings()
    broker: BrokerSettings = BrokerSettings()
    worker: WorkerSettings = WorkerSettings()
    log: LogSettings = LogSettings()
    warnings: tuple[str, ...] = ()
    """One sentence for each ``AGENTQ_…`` variable that means nothing."""


def load(environ: Mapping[str, str] | None = None) -> Settings:
    """Read the settings from ``environ`` (the process's own by default). An empty variable counts as not set.

    Raises:
        InvalidArgument: naming the variable, its value and what it may be.
    """
    given = {
        name: value
        for name, value in (os.environ if environ is None else environ).items()
        if name.startswith("AGENTQ_") and not name.startswith(_NOT_OURS) and value != "" and not _is_service_link(name, value)
    }
    groups = {name: _read(group, given) for name, group in _GROUPS.items()}
    known = {each.metadata["env"] for group in _GROUPS.values() for each in fields(group)}
    warnings = tuple(f"{name} is set, but no setting has this name" for name in sorted(given.keys() - known))
    return Settings(**groups, warnings=warnings)


_GROUPS: dict[str, Any] = {"store": StoreSettings, "broker": BrokerSettings, "worker": WorkerSettings, "log": LogSettings}


def redacted(url: str) -> str:
    """``url`` with its password, and anything in its query that names a secret, replaced by ``***``."""
    if login_is_cut(url):
        return f"{url.partition('://')[0]}://***"
    if is_maimed(url):
        return "***"
    try:
        parts = urlsplit(url)
    except ValueError:
        return "***"
    query = re.sub(r"((?:^|&)[^=&]*(?:pass|secret|token|key)[^=&]*=)[^&]*", r"\1***", parts.query, flags=re.IGNORECASE)
    user, at, host = parts.netloc.rpartition("@")
    name, colon, _ = user.partition(":")
    if not colon and query == parts.query:
        return url
    return urlunsplit(parts._replace(netloc=f"{name}{':***' if colon else ''}{at}{host}", query=query))


def _is_service_link(name: str, value: str) -> bool:
    return bool(_SERVICE_LINK.search(name)) or (name.endswith("_PORT") and bool(_LINK_VALUE.match(value)))


def _read(group: Any, given: Mapping[str, str]) -> Any:
    values = {}
    names = {}
    for each in fields(group):
        variable = each.metadata["env"]
        if variable not in given:
            continue
        names[each.name] = variable
        try:
            values[each.name] = each.metadata["read"](given[variable])
        except ValueError as error:
            raise InvalidArgument(variable, given[variable], str(error)) from None
    try:
        return group(**values)
    except InvalidArgument as error:
        culprits = [variable for name, variable in names.items() if name in error.field]
        if not culprits:
            raise
        shown = ", ".join(given[variable] for variable in culprits)
        raise InvalidArgument(", ".join(culprits), shown, error.remedy) from None

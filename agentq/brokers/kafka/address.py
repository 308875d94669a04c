"""Where the cluster is, how to be let in, and how its topics are called: what a ``kafka://`` url says."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final
from urllib.parse import parse_qsl, unquote, urlsplit

from agentq.errors import InvalidArgument
from agentq.redact import LOGIN_REMEDY, login_is_cut
from agentq.settings import seconds

TEMPLATE: Final = "{app}.{queue}"
GROUP: Final = "agentq.{app}"
PORT: Final = 9092
LARGEST: Final = 1_000_000
"""Bytes of one message unless the url says otherwise: Kafka's own default limit is 1,048,588 of a batch with its overhead."""
OVERHEAD: Final = 1024
"""Bytes that a batch of one message needs beyond its body and headers, generously."""

PROTOCOLS: Final = ("PLAINTEXT", "SSL", "SASL_PLAINTEXT", "SASL_SSL")
MECHANISMS: Final = ("PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512", "OAUTHBEARER")
_TOPIC: Final = re.compile(r"[a-zA-Z0-9._-]{1,249}")
_HOST: Final = re.compile(r"(\[[0-9a-fA-F:.]+\]|[^:\[\]]+)(?::(\d{1,5}))?")
_HOOK: Final = re.compile(r"[A-Za-z_][\w.]*:[A-Za-z_][\w.]*")


@dataclass(frozen=True, slots=True, kw_only=True)
class Address:
    """A cluster, the way in, and the names that an app uses there. Times are in seconds."""

    servers: tuple[str, ...]
    app: str
    template: str = TEMPLATE
    group: str = ""
    security: str = "PLAINTEXT"
    mechanism: str | None = None
    user: str | None = None
    password: str | None = None
    token: str | None = None
    """``package.module:function`` that returns an OAuth token."""
    ca: str | None = None
    cert: str | None = None
    key: str | None = None
    """Files, PEM."""
    partitions: int = 12
    """Of a topic that `agentq doctor --fix` creates: how many workers can read it at once."""
    replication: int = -1
    """…and its replicas; -1 is the cluster's default."""
    session_s: float = 45.0
    """Without a heartbeat for so long, a member's partitions go to others. As long as Java's default: a blocked event loop or a
    slow node is no reason to move them."""
    poll_interval_s: float = 300.0
    """Without a `receive` for so long, the membership is given up."""
    linger_s: float = 0.005
    """How long a message waits for others to share its request."""
    max_bytes: int = LARGEST
    """Of one message's body and headers; the topics' ``max.message.bytes`` must be `OVERHEAD` more."""

    def __repr__(self) -> str:
        """Show it without secrets."""
        return f"Address({self.where!r})"

    @property
    def where(self) -> str:
        """For people; free of secrets."""
        path = "" if self.template == TEMPLATE else f"/{self.template}"
        return f"kafka://{','.join(self.servers)}{path}"

    @property
    def shared(self) -> bool:
        """Whether all queues share one topic."""
        return "{queue}" not in self.template

    def topic(self, queue: str) -> str:
        """The topic of ``queue``.

        Raises:
            InvalidArgument: Kafka does not take such a name.
        """
        name = self.template.replace("{app}", self.app).replace("{queue}", queue)
        if not _TOPIC.fullmatch(name) or name in {".", ".."}:
            raise InvalidArgument("queue", name, "a topic's name has at most 249 letters, digits, dots, dashes and underscores")
        return name

    def topics(self, queues: list[str] | tuple[str, ...]) -> dict[str, str]:
        """Topic to queue; where several queues share a topic, the first of them stands for it."""
        found: dict[str, str] = {}
        for queue in queues:
            found.setdefault(self.topic(queue), queue)
        return found


def address(url: str, *, app: str) -> Address:
    """Read ``kafka://[user:password@]host:port,…[/TEMPLATE][?group=…&security=…&mechanism=…&ca=…&token=…]``.

    Raises:
        InvalidArgument: names what does not fit, never the password.
    """
    if login_is_cut(url):
        raise InvalidArgument("broker", "kafka://…", LOGIN_REMEDY)
    parts = urlsplit(url)
    login, _, hosts = parts.netloc.rpartition("@")
    user, colon, password = login.partition(":")
    values: dict[str, Any] = {"app": app, "servers": _servers(hosts)}
    template = unquote(parts.path.strip("/")) or TEMPLATE
    if unknown := [word for word in re.findall(r"\{[^{}]*\}?", template) if word not in {"{app}", "{queue}"}]:
        raise InvalidArgument("broker: topic", unknown[0], "in braces stand {app} and {queue} only")
    values["template"] = template
    given = parse_qsl(parts.query, keep_blank_values=True)
    for name, value in given:
        if name not in _PARAMETERS:
            raise InvalidArgument("broker", name, f"the url's parameters are {', '.join(sorted(_PARAMETERS))}")
        field, read = _PARAMETERS[name]
        try:
            values[field] = read(value)
        except ValueError as error:
            raise InvalidArgument(f"broker: {name}", value, str(error)) from None
    values["group"] = values.get("group", GROUP).replace("{app}", app)
    if user:
        values["user"] = unquote(user)
    if colon:
        values["password"] = unquote(password)
    _secure(values)
    return Address(**values)


def _servers(hosts: str) -> tuple[str, ...]:
    found = []
    for host in filter(None, hosts.split(",")):
        match = _HOST.fullmatch(host)
        if not match:
            raise InvalidArgument("broker", host, "give servers as host:port, separated by commas")
        found.append(f"{match[1]}:{match[2] or PORT}")
    if not found:
        raise InvalidArgument("broker", "kafka://", "name at least one server: kafka://host:9092")
    return tuple(found)


def _secure(values: dict[str, Any]) -> None:
    """Derive the protocol and the mechanism from what is there, and refuse what does not go together."""
    login, token = values.get("user"), values.get("token")
    who, encrypted = bool(login or token or "mechanism" in values), "ca" in values or "cert" in values
    security = values.setdefault("security", "SASL_SSL" if who else "SSL" if encrypted else "PLAINTEXT")
    if not security.startswith("SASL"):
        if who:
            remedy = "with a user, a mechanism or a token it is SASL_SSL or SASL_PLAINTEXT"
            raise InvalidArgument("broker: security", security, remedy)
    else:
        mechanism = values.setdefault("mechanism", "OAUTHBEARER" if token else "PLAIN")
        if mechanism == "OAUTHBEARER" and not token:
            raise InvalidArgument("broker: token", None, "OAUTHBEARER needs the parameter `token`, package.module:function")
        if mechanism != "OAUTHBEARER" and not (login and values.get("password")):
            raise InvalidArgument("broker: user", "…" if login else None, f"{mechanism} needs kafka://user:password@host")
    if "key" in values and "cert" not in values:
        raise InvalidArgument("broker: cert", None, "key= is the key of a certificate: give cert=, too")
    if encrypted and not security.endswith("SSL"):
        raise InvalidArgument("broker: security", security, "ca= and cert= are for SSL and SASL_SSL")


def _one_of(*words: str) -> Callable[[str], str]:
    def read(text: str) -> str:
        if text.upper() not in words:
            raise ValueError(f"use one of {', '.join(words)}")
        return text.upper()

    return read


def _number(least: int, most: int) -> Callable[[str], int]:
    def read(text: str) -> int:
        if not text.isdecimal() or not least <= int(text) <= most:
            raise ValueError(f"give a whole number from {least} to {most}")
        return int(text)

    return read


def _duration(least: float) -> Callable[[str], float]:
    def read(text: str) -> float:
        value = seconds(text)
        if value < least:
            raise ValueError(f"it must be {least:g} s or more")
        return value

    return read


def _hook(text: str) -> str:
    if not _HOOK.fullmatch(text):
        raise ValueError("give package.module:function")
    return text


def _some(text: str) -> str:
    if not text:
        raise ValueError("it must not be empty")
    return text


_PARAMETERS: Final[dict[str, tuple[str, Callable[[str], Any]]]] = {
    "group": ("group", _some),
    "security": ("security", _one_of(*PROTOCOLS)),
    "mechanism": ("mechanism", _one_of(*MECHANISMS)),
    "token": ("token", _hook),
    "ca": ("ca", _some),
    "cert": ("cert", _some),
    "key": ("key", _some),
    "partitions": ("partitions", _number(1, 10_000)),
    "replication": ("replication", _number(1, 100)),
    "session": ("session_s", _duration(1)),
    "poll_interval": ("poll_interval_s", _duration(1)),
    "linger": ("linger_s", _duration(0)),
    "max_bytes": ("max_bytes", _number(1024, 100_000_000)),
}
"""The url's parameter to the field and how it is read."""

"""Which queues, where and how, as a url says it; and what a queue of ours is called at SQS."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final
from urllib.parse import parse_qsl, unquote, urlsplit

from agentq.errors import InvalidArgument
from agentq.redact import login_is_cut

TEMPLATE: Final = "{app}-{queue}"
"""A queue's name at SQS, unless the url's path says another."""
MAX_WAIT_S: Final = 20
"""Longest long poll that SQS knows; the default, because every shorter one costs more requests and brings nothing sooner."""
LINGER_S: Final = 0.005
"""How long a message waits for others to share its request with: little beside a request's own time."""
MAX_BATCH_BYTES: Final = 1_048_576
"""Of one message and of a whole batch, attributes included."""
UNSEEN_BYTES: Final = 128
"""For what SQS counts beside a message's body and the names and values of its attributes: their types."""
MAX_BYTES: Final = MAX_BATCH_BYTES - UNSEEN_BYTES
"""Of one message's body, attribute names and values."""
FIFO: Final = ".fifo"

_REGION: Final = re.compile(r"[a-z0-9]+(-[a-z0-9]+)*")
_NAME: Final = re.compile(r"[A-Za-z0-9_-]{1,80}|[A-Za-z0-9_-]{1,75}\.fifo")
_PLACEHOLDER: Final = re.compile(r"\{([^{}]*)\}")
_BUCKET: Final = re.compile(r"[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]")
_DURATION: Final = re.compile(r"(\d+(?:\.\d+)?)(ms|s)?")
_PARAMETERS: Final = ("endpoint", "wait", "linger", "max_bytes", "payloads", "payloads_endpoint")
_MAX_LINGER_S: Final = 1.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Address:
    """A region's SQS, the names of the app's queues there, and how it is spoken to."""

    region: str
    app: str
    template: str = TEMPLATE
    endpoint: str | None = None
    """Of another server than the region's own."""
    wait_s: int = MAX_WAIT_S
    linger_s: float = LINGER_S
    max_bytes: int = MAX_BYTES
    """Less where queues were made with a smaller ``MaximumMessageSize``."""
    bucket: str | None = None
    """Where large arguments go; None is the store."""
    prefix: str = ""
    """Of their keys in the bucket; empty, or it ends in a slash."""
    payloads_endpoint: str | None = None

    @property
    def where(self) -> str:
        """For people; a url of ours holds no secrets."""
        at = f"?endpoint={self.endpoint}" if self.endpoint else ""
        return f"sqs://{self.region}/{self.template.replace('{app}', self.app)}{at}"

    def name(self, queue: str) -> str:
        """What ``queue`` is called at SQS.

        Raises:
            InvalidArgument: SQS knows no such names.

        """
        name = self.template.replace("{app}", self.app).replace("{queue}", queue)
        if not _NAME.fullmatch(name):
            remedy = "SQS takes at most 80 letters, digits, - and _ (and .fifo at the end): rename the queue or the template"
            raise InvalidArgument("queue", name, remedy)
        return name


def is_fifo(name: str) -> bool:
    """Whether a queue of that name at SQS keeps the order of its groups."""
    return name.endswith(FIFO)


def dead_name(name: str) -> str:
    """The dead-letter queue of ``name``, unless its redrive policy says another."""
    return f"{name.removesuffix(FIFO)}-dead{FIFO if is_fifo(name) else ''}"


def address(url: str, *, app: str) -> Address:
    """Read ``sqs://region/{app}-{queue}?endpoint=…&wait=20&linger=5ms&max_bytes=…&payloads=s3://bucket/prefix``.

    Raises:
        InvalidArgument: a part of it does not fit.

    """
    parts = urlsplit(url)
    if "@" in parts.netloc or login_is_cut(url):
        raise InvalidArgument(
            "broker", "sqs://…@…", "leave credentials out: they come from the environment, the role or the pod"
        )
    if not _REGION.fullmatch(parts.netloc):
        raise InvalidArgument("broker: region", parts.netloc, "use sqs://REGION/NAME-{queue}, such as sqs://eu-central-1")
    given = _parameters(parts.query)
    bucket, prefix = _payloads(given["payloads"]) if "payloads" in given else (None, "")
    return Address(
        region=parts.netloc,
        app=app,
        template=_template(unquote(parts.path).strip("/")),
        endpoint=_endpoint("endpoint", given.get("endpoint")),
        wait_s=_whole("wait", given.get("wait", str(MAX_WAIT_S)), least=1, most=MAX_WAIT_S),
        linger_s=_linger(given["linger"]) if "linger" in given else LINGER_S,
        max_bytes=_whole("max_bytes", given.get("max_bytes", str(MAX_BYTES)), least=1024, most=MAX_BYTES),
        bucket=bucket,
        prefix=prefix,
        payloads_endpoint=_endpoint("payloads_endpoint", given.get("payloads_endpoint")),
    )


def _parameters(query: str) -> dict[str, str]:
    given = dict(parse_qsl(query, keep_blank_values=True))
    for name in given:
        if name not in _PARAMETERS:
            raise InvalidArgument("broker", name, f"the url knows {', '.join(_PARAMETERS)}")
    return given


def _template(text: str) -> str:
    for placeholder in _PLACEHOLDER.findall(text):
        if placeholder not in {"app", "queue"}:
            raise InvalidArgument("broker: template", text, "it knows {app} and {queue}")
    example = _PLACEHOLDER.sub("x", text)
    if text and not _NAME.fullmatch(example):
        raise InvalidArgument("broker: template", text, "use letters, digits, -, _, {app} and {queue}, and .fifo at the end")
    return text or TEMPLATE


def _endpoint(name: str, value: str | None) -> str | None:
    if value is None:
        return None
    if "@" in value:
        raise InvalidArgument(f"broker: {name}", "http://…@…", "leave credentials out of it")
    parts = urlsplit(value)
    if parts.scheme not in {"http", "https"} or not parts.hostname:
        raise InvalidArgument(f"broker: {name}", value, "use http://host:port or https://host:port")
    return value.rstrip("/")


def _whole(name: str, value: str, *, least: int, most: int) -> int:
    if not (value.isascii() and value.isdecimal() and least <= int(value) <= most):
        raise InvalidArgument(f"broker: {name}", value, f"use a whole number from {least} to {most}")
    return int(value)


def _linger(value: str) -> float:
    match = _DURATION.fullmatch(value)
    seconds = float(match[1]) * (0.001 if match[2] == "ms" else 1.0) if match else -1.0
    if not 0 <= seconds <= _MAX_LINGER_S:
        raise InvalidArgument("broker: linger", value, "use a time up to 1s, such as 5ms or 0")
    return seconds


def _payloads(value: str) -> tuple[str, str]:
    parts = urlsplit(value)
    if parts.scheme != "s3" or not _BUCKET.fullmatch(parts.netloc):
        raise InvalidArgument("broker: payloads", "s3://…@…" if "@" in value else value, "use s3://bucket/prefix")
    prefix = parts.path.strip("/")
    return parts.netloc, f"{prefix}/" if prefix else ""

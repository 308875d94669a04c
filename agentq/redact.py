"""Keep credentials out of everything that is shown: URLs, headers and keys in texts, fields that are named like secrets."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, Final

HIDDEN: Final = "***"

_NAMES = (
    "pass(?:word|wd|phrase)?",
    "pwd",
    "secret",
    "token",
    "(?:api|access|private)[_-]?key",
    "credentials?",
    "auth",
    "sig(?:nature)?",
)
_SECRET = f"(?:{'|'.join(_NAMES)})"
_SECRET_FIELD = re.compile(rf"(?:^|[_.-])(?:{_SECRET}|authorization|cookie)$", re.IGNORECASE)
_PATTERNS: Final = (
    # scheme://user:password@host (but not as a remedy writes it), also a token in the place of the user
    (re.compile(r"(?i)\b([a-z][a-z0-9+.-]*://)(?!user:password@host\b)[^\s/?#@'\"]*(?:@[^\s/?#@'\"]*)*@"), rf"\1{HIDDEN}@"),
    # ?password=…&token=… in URLs, password=… in connection strings, "api_key": "…" in bodies
    (re.compile(rf"(?i)([a-z0-9_.-]*{_SECRET}[\"']?\s*[=:]\s*[\"']?)(?!{re.escape(HIDDEN)})[^\s&;,\"'}}]+"), rf"\1{HIDDEN}"),
    (re.compile(r"(?i)\b((?:bearer|basic)\s+)[a-z0-9._~+/=-]{8,}"), rf"\1{HIDDEN}"),
    # Keys that are recognised by their shape: OpenAI and Anthropic, AWS, GitHub, Slack
    (
        re.compile(r"\b(?:sk-[A-Za-z0-9_-]{12,}|AKIA[A-Z0-9]{12,}|gh[pousr]_[A-Za-z0-9]{20,}|xox[abprs]-[A-Za-z0-9-]{10,})"),
        HIDDEN,
    ),
)
_DELIMITER: Final = re.compile("[/?#]")
_SCHEME: Final = re.compile(r"\s*[a-z][a-z0-9+.-]*://", re.IGNORECASE)
_SERVER: Final = re.compile(r"\W*postgres(?:ql)?\s*(?::|//)", re.IGNORECASE)
_FILE: Final = re.compile(r"(?:sqlite|memory):|[a-z]:[/\\]|[.~\\]|/(?!/)", re.IGNORECASE)
"""Begins what names a place on this machine; : and @ are letters there as any."""
LOGIN_REMEDY: Final = "write / ? # and @ of a password as %2F %3F %23 and %40"


def redact(text: str) -> str:
    """Return ``text`` with what looks like a credential replaced by ``***``."""
    for pattern, replacement in _PATTERNS:
        text = pattern.sub(replacement, text)
    return text


def login_is_cut(url: str) -> bool:
    """Whether a password in ``url`` holds a ``/``, ``?`` or ``#``, at which every reader would cut it."""
    rest = url.partition("://")[2]
    host = _DELIMITER.split(rest, maxsplit=1)[0]
    path, _, query = rest[len(host) :].partition("?")
    if not host or "@" not in path + query:
        return False
    port = host.rpartition(":")[2] if ":" in host and not host.endswith("]") else "0"
    return "@" in path or "#" in query or ("@" not in host and not port.isdecimal())


def is_maimed(url: str) -> bool:
    """Whether ``url`` was meant for a server, and so may hold a password, but its ``scheme://`` has a typing error."""
    if _SCHEME.match(url):
        return False
    return bool(_SERVER.match(url) or (re.search(":.*@", url) and not _FILE.match(url)))


def redact_fields(fields: Mapping[str, Any]) -> dict[str, Any]:
    """Return a copy in which fields named like secrets are hidden and texts are redacted."""
    return {key: HIDDEN if _SECRET_FIELD.search(key) else _clean(value) for key, value in fields.items()}


def _clean(value: Any) -> Any:
    if isinstance(value, str):
        return redact(value)
    if isinstance(value, bytes | bytearray | memoryview):
        return f"<{len(value)} bytes>"
    if isinstance(value, BaseException):
        return redact(f"{type(value).__name__}: {value}")
    return value

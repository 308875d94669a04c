"""Where the server is, as a url says it, and how to show that without its secrets."""

from __future__ import annotations

import difflib
import re
from dataclasses import dataclass
from typing import Final
from urllib.parse import SplitResult, parse_qsl, unquote, urlencode, urlsplit, urlunsplit

from agentq.errors import InvalidArgument
from agentq.redact import LOGIN_REMEDY, login_is_cut

SCHEMA: Final = "agentq"
"""Where the tables are unless the url says ``schema=``."""
CONNECTIONS: Final = 8
"""Most connections of one event loop for verbs, beside the two that commit writes, unless the url says ``pool=``."""

OURS: Final = ("schema", "notify", "pool")
DRIVERS: Final = (
    *("host", "port", "dbname", "database", "user", "password", "passfile", "service", "target_session_attrs", "options"),
    *("sslmode", "sslnegotiation", "sslcert", "sslkey", "sslrootcert", "sslcrl", "sslpassword"),
    *("ssl_min_protocol_version", "ssl_max_protocol_version", "krbsrvname", "gsslib"),
)
"""What the driver takes; it hands all else to the server, as a setting of the session."""
_IDLE: Final = frozenset({
    *("connect_timeout", "keepalives", "keepalives_idle", "keepalives_interval", "keepalives_count", "tcp_user_timeout"),
    *("sslsni", "sslcompression", "fallback_application_name", "load_balance_hosts"),
})  # fmt: skip
"""What libpq takes and a server does not: of no use here, but in urls that are there already."""
_GUARDS: Final = ("channel_binding", "gssencmode")
"""Likewise; what they require the driver does not know."""

_NAME: Final = re.compile(r"[a-z_][a-z0-9_]{0,39}")
_HOST: Final = re.compile(r"[^@/?#]*@")


@dataclass(frozen=True, slots=True, kw_only=True)
class Address:
    """A server, a database and a schema of it."""

    dsn: str
    """What the driver takes: the url without the parameters that are ours."""
    schema: str = SCHEMA
    notify: bool = True
    """False behind a transaction pooler: no LISTEN, no session state, no prepared statements."""
    pool: int = CONNECTIONS
    where: str = ""
    """For people; free of secrets."""

    @property
    def channel(self) -> str:
        """The NOTIFY channel of this schema."""
        return f"agentq:{self.schema}"


def address(url: str) -> Address:
    """Read ``postgresql://user:password@host:port/database?schema=agentq&notify=off&pool=8`` and the driver's own parameters.

    Raises:
        InvalidArgument: a parameter of ours does not fit, or a password has to be quoted.
    """
    parts = _parts(url)
    ours: dict[str, str] = {}
    theirs: list[tuple[str, str]] = []
    for name, value in parse_qsl(parts.query, keep_blank_values=True):
        if name in OURS:
            ours[name] = value
        elif _passes(name, value):
            theirs.append((name, value))
    schema = ours.get("schema", SCHEMA)
    if not _NAME.fullmatch(schema):
        raise InvalidArgument("store: schema", schema, "use at most 40 small letters, digits and underscores")
    notify = ours.get("notify", "on")
    if notify not in {"on", "off"}:
        raise InvalidArgument("store: notify", notify, "use on, or off behind a transaction pooler")
    pool = ours.get("pool", str(CONNECTIONS))
    if not pool.isdecimal() or not 1 <= int(pool) <= 1000:  # noqa: PLR2004 - more than any server takes
        raise InvalidArgument("store: pool", pool, "use a number of connections from 1 on")
    dsn = urlunsplit(("postgresql", parts.netloc, parts.path, urlencode(theirs), ""))
    return Address(dsn=dsn, schema=schema, notify=notify == "on", pool=int(pool), where=_shown(url, theirs, schema))


def _passes(name: str, value: str) -> bool:
    """Whether the driver is to have a parameter that is not ours. Values are not shown: they may be secrets."""
    if name in _GUARDS:
        if value not in {"prefer", "allow", "disable"}:
            raise InvalidArgument("store", f"{name}=…", "the driver does not know it; leave it out")
        return False
    near = difflib.get_close_matches(name, (*OURS, *DRIVERS), n=1, cutoff=0.75)
    if name not in DRIVERS and near:
        raise InvalidArgument("store", f"{name}=…", f"did you mean {near[0]}? Ours are {', '.join(OURS)}")
    return name not in _IDLE


def _parts(url: str) -> SplitResult:
    """Take ``url`` apart; an error shows nothing of what may be a password."""
    try:
        parts = urlsplit(url)
    except ValueError:  # what stands in brackets is no IPv6 address, as in a password with one
        raise InvalidArgument("store", "postgresql://…", f"{LOGIN_REMEDY}, and [ and ] as %5B and %5D") from None
    login, _, hosts = parts.netloc.rpartition("@")
    if login_is_cut(url) or "@" in login:
        raise InvalidArgument("store", "postgresql://…", LOGIN_REMEDY)
    if not url.startswith(f"{parts.scheme}://"):
        raise InvalidArgument("store", "postgresql:…", "write postgresql://user:password@host/database")
    for host in hosts.split(","):
        _, colon, port = host.rpartition("]")[2].rpartition(":")
        if colon and port and not port.isdecimal():
            raise InvalidArgument("store: port", "…", "write postgresql://user:password@host:5432/database; a port is a number")
    return parts


def _shown(url: str, theirs: list[tuple[str, str]], schema: str) -> str:
    parts = urlsplit(url)
    host = _HOST.sub("", parts.netloc, count=1) if "@" in parts.netloc else parts.netloc
    named = dict(theirs)
    host = host.rpartition("@")[2] or named.get("host", "localhost")
    name = unquote(parts.path.lstrip("/")) or named.get("database", named.get("dbname", ""))
    return f"postgresql://{host}/{name}" + ("" if schema == SCHEMA else f"?schema={schema}")

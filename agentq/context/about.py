"""What a run says of itself, and the checks that both kinds of context make."""

from __future__ import annotations

import hashlib
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any

from agentq.codec import Codec, codec_for
from agentq.errors import AgentQError, InvalidArgument
from agentq.scope import Scope, current_scope

if TYPE_CHECKING:
    from agentq.running import Running


ANY: Codec[Any] = codec_for(Any)


class About:
    """What a run says of itself, for both kinds of context."""

    __slots__ = ("_root", "_run")

    def __init__(self, run: Running, root: Scope) -> None:
        """Speak of ``run``; ``root`` stands in where the caller's own place in it is not known."""
        self._run = run
        self._root = root

    def _here(self) -> Scope:
        scope = current_scope()
        return scope if scope is not None and scope.run is self._run else self._root

    @property
    def run_id(self) -> str:
        """The run's id."""
        return self._run.row.id

    @property
    def attempt(self) -> int:
        """Attempt of the run, from 1; only failures count."""
        return self._run.row.attempt

    @property
    def tenant(self) -> str | None:
        """Whose run it is."""
        return self._run.row.tenant

    @property
    def tags(self) -> dict[str, str]:
        """As given with the submission."""
        return dict(self._run.row.tags)

    @property
    def fence(self) -> int:
        """Fencing token: grows with every claim of the run. A system that remembers the highest can refuse zombies."""
        return self._run.claim.ref.epoch

    @property
    def idempotency_key(self) -> str:
        """32 hex characters for other systems to deduplicate by: of the step inside one, of the run outside."""
        frame = self._here().frame
        return frame.key if frame else hashlib.blake2b(self.run_id.encode(), digest_size=16).hexdigest()

    @property
    def connection(self) -> Any:
        """In a step with ``effect="transactional"``: the store's driver's connection (asyncpg), inside the step's transaction.

        What is done on it and the step's result are committed together, or neither. Do not commit or roll back on it; its own
        ``transaction()`` is a savepoint. A pause of 10 s between two statements ends the transaction.

        Raises:
            AgentQError: not in the body of such a step.

        """
        frame = self._here().frame
        if frame is None or frame.connection is None:
            raise AgentQError("current().connection is only there in the body of a step with effect='transactional'")
        return frame.connection

    @property
    def draining(self) -> bool:
        """Whether the worker wants to hand this run on: a long step may save what it has and return early."""
        return self._run.draining

    @property
    def replaying(self) -> bool:
        """Whether the code is still going over what it did before."""
        return self._run.history.replaying(self._here().branch)


def positive(name: str, value: int | None) -> int | None:
    """Return a limit of 1 or more, or None."""
    if value is not None and value < 1:
        raise InvalidArgument(name, value, "give 1 or more, or None for no limit")
    return value


def whole_tokens(tokens: int) -> int:
    """Return a number of tokens."""
    if not isinstance(tokens, int) or tokens < 0:
        raise InvalidArgument("tokens", tokens, "give a whole number of zero or more")
    return tokens


def seconds_of(name: str, span: timedelta | float) -> float:
    """Return a duration in seconds."""
    seconds = span.total_seconds() if isinstance(span, timedelta) else float(span)
    if not 0 <= seconds < 10**9:
        raise InvalidArgument(name, span, "give a duration from zero up")
    return seconds


def moment_of(name: str, moment: datetime) -> float:
    """Return a moment in seconds since the Unix epoch."""
    if moment.tzinfo is None:
        raise InvalidArgument(name, moment, "give it a time zone")
    return moment.timestamp()

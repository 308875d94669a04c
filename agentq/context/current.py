"""The run as a step's body sees it."""

from __future__ import annotations

from decimal import Decimal
from typing import Any

from agentq.budget import to_nanos
from agentq.context.about import ANY, About, whole_tokens
from agentq.errors import AgentQError
from agentq.scope import current_scope


class Current(About):
    """The run as a step's body sees it, and anything the body calls; sync and async alike."""

    __slots__ = ()

    @property
    def step_attempt(self) -> int:
        """Number of this try of the step, from 1."""
        frame = self._here().frame
        return frame.attempt if frame else 1

    def spend(self, *, tokens: int = 0, cost_usd: Decimal | float | str = 0) -> None:
        """Count usage, committed with the step.

        Raises:
            AgentQError: not inside a step; there ``ctx.spend`` is the verb.

        """
        frame = self._here().frame
        if frame is None:
            raise AgentQError("current().spend(…) counts with the step it happens in; outside a step use ctx.spend(…)")
        frame.tokens += whole_tokens(tokens)
        frame.cost_nanos += to_nanos(cost_usd)

    def progress(self, fraction: float | None, note: str = "") -> None:
        """Show how far the run is: 0 to 1, and a word."""
        self._run.progress(self._here(), fraction, note)

    def emit(self, topic: str, payload: Any) -> None:
        """Stream a piece (any JSON value) to whoever watches the run."""
        self._run.emit(self._here(), topic, ANY.encode(payload))


def current() -> Current:
    """Return the run that the calling code works for.

    Raises:
        AgentQError: not inside a run.

    """
    scope = current_scope()
    if scope is None:
        raise AgentQError("agentq.current() is only there inside a run, in a step or anything that it calls")
    return Current(scope.run, scope)

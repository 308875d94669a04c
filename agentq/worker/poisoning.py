"""Poison settled without running it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from agentq.message import Failed, Failure
from agentq.poison import poisoned
from agentq.telemetry import emit

if TYPE_CHECKING:
    from agentq.message import Run


def poison(run: Run) -> Failed | None:
    """The end of a run that has killed what ran it too often; None for any other."""
    if not poisoned(run.deaths, run.losses):
        return None
    emit("run.poisoned", run_id=run.id, task=run.task, deaths=run.deaths, losses=run.losses)
    message = f"its process died {run.deaths} times, its worker {run.losses} times, while it was alone and recorded nothing"
    return Failed(failure=Failure(type="Poisoned", message=message, permanent=True))

"""Broker → store: admit what was delivered, then acknowledge it. Nothing is acknowledged without a row."""

from agentq.intake.admitting import Admitted, Admitter
from agentq.intake.intake import Intake

__all__ = ["Admitted", "Admitter", "Intake"]

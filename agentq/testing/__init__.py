"""What users test their tasks with, and what third parties test their stores with."""

from agentq.testing.clock import SimulatedClock
from agentq.testing.runner import Stuck, run
from agentq.testing.wait import wait_until

__all__ = ["SimulatedClock", "Stuck", "run", "wait_until"]

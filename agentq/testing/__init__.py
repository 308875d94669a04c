"""What users test their tasks with, and what third parties test their stores with."""

from agentq.testing.clock import SimulatedClock
from agentq.testing.crash import Broken, CrashReport, crash_everywhere
from agentq.testing.mortal import Fault, FaultKind
from agentq.testing.runner import Stuck, run
from agentq.testing.wait import wait_until

__all__ = [
    "Broken",
    "CrashReport",
    "Fault",
    "FaultKind",
    "SimulatedClock",
    "Stuck",
    "crash_everywhere",
    "run",
    "wait_until",
]

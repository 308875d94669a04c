"""What users test their tasks with, and what third parties test their stores with."""

from agentq.testing.broker import MemoryBroker, MemoryParcels, Trouble
from agentq.testing.clock import SimulatedClock
from agentq.testing.crash import CrashReport, crash_everywhere
from agentq.testing.mortal import Fault, FaultKind
from agentq.testing.runner import Stuck, run
from agentq.testing.wait import wait_until
from agentq.testing.witness import Broken

__all__ = [
    "Broken",
    "CrashReport",
    "Fault",
    "FaultKind",
    "MemoryBroker",
    "MemoryParcels",
    "SimulatedClock",
    "Stuck",
    "Trouble",
    "crash_everywhere",
    "run",
    "wait_until",
]

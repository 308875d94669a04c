"""The SQLite store answers as the in-memory store does, whatever they are asked in whatever order."""

from __future__ import annotations

from hypothesis import HealthCheck, settings

from agentq.stores import open_store
from agentq.stores.memory import MemoryStore
from tests.property.machine import StoreMachine


class TwinMachine(StoreMachine):
    openers = (
        lambda clock, _: MemoryStore(clock=clock),
        lambda clock, folder: open_store(f"sqlite:///{folder}/agentq.db", clock=clock),
    )


TestTwins = TwinMachine.TestCase
TestTwins.settings = settings(
    max_examples=40, stateful_step_count=40, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck)
)

"""Ordering keys are kept after every step of any life that runs of one key can have, and alike on every store."""

from __future__ import annotations

from hypothesis import HealthCheck, settings

from agentq.stores import open_store
from agentq.stores.memory import MemoryStore
from tests.property.lines import LineMachine


class LinesInMemoryAndSqlite(LineMachine):
    openers = (
        lambda clock, _: MemoryStore(clock=clock),
        lambda clock, folder: open_store(f"sqlite:///{folder}/agentq.db", clock=clock),
    )


TestLines = LinesInMemoryAndSqlite.TestCase
TestLines.settings = settings(
    max_examples=60, stateful_step_count=30, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck)
)

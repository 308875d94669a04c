"""The rules of ownership hold after every step of any life a run can have, on each store."""

from __future__ import annotations

from hypothesis import HealthCheck, settings

from agentq.stores import open_store
from agentq.stores.memory import MemoryStore
from tests.property.machine import StoreMachine

UNTIMED = settings(deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))


class MemoryMachine(StoreMachine):
    openers = (lambda clock, _: MemoryStore(clock=clock),)


class SqliteMachine(StoreMachine):
    openers = (lambda clock, folder: open_store(f"sqlite:///{folder}/agentq.db", clock=clock),)


TestMemory = MemoryMachine.TestCase
TestMemory.settings = settings(UNTIMED, max_examples=100, stateful_step_count=40)

TestSqlite = SqliteMachine.TestCase
TestSqlite.settings = settings(UNTIMED, max_examples=30, stateful_step_count=40)

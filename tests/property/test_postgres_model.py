"""The PostgreSQL store answers as the in-memory store does, and keeps the rules of ownership, in any life a run can have."""

from __future__ import annotations

import contextlib
from typing import ClassVar

import pytest
from hypothesis import HealthCheck, settings

from agentq.stores import open_store
from agentq.stores.memory import MemoryStore
from tests.helpers.postgres import fresh_schema
from tests.property.machine import StoreMachine


@contextlib.asynccontextmanager
async def postgres(clock, _):
    async with fresh_schema(PostgresMachine.url) as own, open_store(own, clock=clock) as store:
        yield store


class PostgresMachine(StoreMachine):
    url: ClassVar[str]
    openers = (lambda clock, _: MemoryStore(clock=clock), postgres)


@pytest.fixture(autouse=True, scope="module")
def _server(postgres_url):
    PostgresMachine.url = postgres_url


TestPostgres = PostgresMachine.TestCase
TestPostgres.settings = settings(
    max_examples=30, stateful_step_count=40, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck)
)

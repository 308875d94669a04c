"""What tests of the runtime may ask for."""

from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from functools import partial
from pathlib import Path

import pytest

from agentq.stores import open_store
from agentq.stores.base import Store
from agentq.stores.memory import MemoryStore
from agentq.testing import SimulatedClock
from tests.helpers.lab import stores_by
from tests.helpers.postgres import fresh_schema


@asynccontextmanager
async def _in_schema(url: str, clock: SimulatedClock) -> AsyncIterator[Store]:
    async with fresh_schema(url) as own, open_store(own, clock=clock) as store:
        yield store


@pytest.fixture(params=["memory", "sqlite", "postgres"])
def each_store(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[None]:
    """Run a test once with its labs in memory, once with an SQLite file for each and once with a PostgreSQL schema for each."""
    files = (f"sqlite:{tmp_path}/lab-{number}.db" for number in range(1000))
    openers: dict[str, Callable[[], Callable[[SimulatedClock], AbstractAsyncContextManager[Store]]]] = {
        "memory": lambda: lambda clock: MemoryStore(clock=clock),
        "sqlite": lambda: lambda clock: open_store(next(files), clock=clock),
        "postgres": lambda: partial(_in_schema, request.getfixturevalue("postgres_url")),
    }
    with stores_by(openers[request.param]()):
        yield

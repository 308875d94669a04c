"""What tests of the runtime may ask for."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from agentq.stores import open_store
from agentq.stores.base import Store
from agentq.stores.memory import MemoryStore
from agentq.testing import SimulatedClock
from tests.helpers.lab import stores_by


@pytest.fixture(params=["memory", "sqlite"])
def each_store(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[None]:
    """Run a test once with its labs in memory and once with each in an SQLite file of its own."""
    files = (f"sqlite:{tmp_path}/lab-{number}.db" for number in range(1000))

    def opened(clock: SimulatedClock) -> Store:
        return MemoryStore(clock=clock) if request.param == "memory" else open_store(next(files), clock=clock)

    with stores_by(opened):
        yield

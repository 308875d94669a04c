"""Every store passes every clause."""

from __future__ import annotations

import contextlib
import uuid
from functools import partial
from typing import TYPE_CHECKING

import pytest

from agentq.stores import open_store
from agentq.stores.memory import MemoryStore
from agentq.testing.clock import SimulatedClock
from agentq.testing.conformance import CLAUSES, Clause, check
from tests.helpers.postgres import fresh_schema

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from agentq.stores.base import Store


@contextlib.asynccontextmanager
async def memory(clock: SimulatedClock, _: Path) -> AsyncIterator[tuple[Store, Store]]:
    name = uuid.uuid4().hex
    async with MemoryStore(name, clock=clock) as store, MemoryStore(name, clock=clock) as other:
        yield store, other


@contextlib.asynccontextmanager
async def sqlite(clock: SimulatedClock, folder: Path) -> AsyncIterator[tuple[Store, Store]]:
    url = f"sqlite:///{folder}/agentq.db"
    async with open_store(url, clock=clock) as store, open_store(url, clock=clock) as other:
        yield store, other


@contextlib.asynccontextmanager
async def postgres(url: str, clock: SimulatedClock, _: Path) -> AsyncIterator[tuple[Store, Store]]:
    async with fresh_schema(url) as own, open_store(own, clock=clock) as store, open_store(own, clock=clock) as other:
        yield store, other


@pytest.fixture(params=["memory", "sqlite", "postgres", "postgres behind a pooler"])
def opened(request):
    if request.param == "postgres":
        return partial(postgres, request.getfixturevalue("postgres_url"))
    if request.param == "postgres behind a pooler":
        return partial(postgres, request.getfixturevalue("pooled_url"))
    return {"memory": memory, "sqlite": sqlite}[request.param]


@pytest.mark.parametrize("clause", CLAUSES, ids=str)
async def test_store(clause: Clause, opened, tmp_path):
    clock = SimulatedClock()
    async with opened(clock, tmp_path) as (store, other):
        await clause(store, clock, other)


async def test_the_suite_runs_without_pytest():
    assert await check(lambda clock: MemoryStore(clock=clock)) == {}


def test_clauses_are_told_apart_by_name():
    names = [str(clause) for clause in CLAUSES]
    assert len(names) == len(set(names)) >= 80

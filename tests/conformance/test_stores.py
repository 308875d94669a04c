"""Every store passes every clause."""

from __future__ import annotations

import contextlib
import importlib
import uuid
from typing import TYPE_CHECKING

import pytest

from agentq.stores.memory import MemoryStore
from agentq.testing.clock import SimulatedClock
from agentq.testing.conformance import CLAUSES, Clause, check

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
    open_store = getattr(importlib.import_module("agentq.stores"), "open_store", None)
    if open_store is None:
        pytest.skip("there is no SQLite store here")
    url = f"sqlite:///{folder}/agentq.db"
    async with open_store(url, clock=clock) as store, open_store(url, clock=clock) as other:
        yield store, other


@pytest.mark.parametrize("opened", [memory, sqlite], ids=["memory", "sqlite"])
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

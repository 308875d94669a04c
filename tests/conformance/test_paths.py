"""Every broker in front of every store, and every store alone, passes every clause about paths."""

from __future__ import annotations

import uuid

import pytest

from agentq.stores import open_store
from agentq.stores.memory import MemoryStore
from agentq.testing.conformance.paths import CLAUSES, PathClause, PathSetting, check
from tests.helpers import broker_settings
from tests.helpers.postgres import fresh_schema

MEMORY = {"no broker": None, "queue": {}, "queue in order": {"ordering": True}, "log": {"partitions": 3}}
SERVERS = ["sqs", "sqs fifo", "kafka"]
FIFO = "{app}-{queue}.fifo"


@pytest.fixture(autouse=True)
def _someone(monkeypatch):
    """Credentials by the default chain, and no look for others at a cloud's address."""
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, "testing")
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")


@pytest.fixture(scope="session", params=["memory", "sqlite", "postgres"])
def store_kind(request):
    """Which store, and where its server is."""
    return request.param, request.getfixturevalue("postgres_url") if request.param == "postgres" else ""


@pytest.fixture
async def store(store_kind, tmp_path):
    """Opens one and the same store."""
    kind, server = store_kind
    if kind == "memory":
        keeper = MemoryStore(uuid.uuid4().hex)
        yield lambda: MemoryStore(keeper.where.removeprefix("memory:"))
    elif kind == "sqlite":
        yield lambda: open_store(f"sqlite:///{tmp_path}/agentq.db")
    else:
        async with fresh_schema(server) as url:
            yield lambda: open_store(url)


@pytest.fixture(scope="session", params=SERVERS)
def server(request):
    """Which broker, and where its server is."""
    if request.param == "kafka":
        pytest.importorskip("aiokafka")
        return request.param, request.getfixturevalue("kafka_address")
    pytest.importorskip("aiobotocore")
    return request.param, request.getfixturevalue("elasticmq_url")


@pytest.mark.parametrize("clause", CLAUSES, ids=str)
@pytest.mark.parametrize("kind", MEMORY)
async def test_a_broker_in_memory(kind: str, clause: PathClause, store):
    options = MEMORY[kind]
    setting = PathSetting(
        store=store, broker=None if options is None else lambda: broker_settings.in_memory_and_real_time(**options)
    )
    if why := clause.does_not_apply(setting):
        pytest.skip(why)
    await clause(setting)


async def test_a_broker_that_is_a_server(server, store):
    kind, at = server

    def broker():
        return broker_settings.on_kafka(at) if kind == "kafka" else broker_settings.on_sqs(at, FIFO if "fifo" in kind else "")

    setting = PathSetting(store=store, broker=broker)
    assert await check(setting) == {}

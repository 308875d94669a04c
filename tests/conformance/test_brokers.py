"""Every broker passes every clause that applies to it."""

from __future__ import annotations

from urllib.parse import urlsplit

import pytest

from agentq.testing.conformance.brokers import CLAUSES, Clause, check
from tests.helpers import broker_settings
from tests.helpers.cut import wire

MEMORY = {"memory": {}, "memory in order": {"ordering": True}, "memory log": {"partitions": 3}}
SERVERS = ["sqs on elasticmq", "sqs fifo on elasticmq", "sqs on moto", "sqs fifo on moto", "kafka"]
FIFO = "{app}-{queue}.fifo"


@pytest.fixture(autouse=True)
def _someone(monkeypatch):
    """Credentials by the default chain, and no look for others at a cloud's address."""
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, "testing")
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")


@pytest.fixture(scope="session", params=[*MEMORY, *SERVERS])
def server(request):
    """A kind of broker, and where its server is."""
    name = request.param
    if name in MEMORY:
        return name, ""
    if name == "kafka":
        pytest.importorskip("aiokafka")
        return name, request.getfixturevalue("kafka_address")
    pytest.importorskip("aiobotocore")
    return name, request.getfixturevalue("moto_url" if "moto" in name else "elasticmq_url")


@pytest.fixture
async def setting(server):
    name, at = server
    template = FIFO if "fifo" in name else ""
    if name in MEMORY:
        yield broker_settings.in_memory(**MEMORY[name])
    elif name == "kafka":
        yield broker_settings.on_kafka(at)
    elif "moto" in name:
        yield broker_settings.on_sqs(at, template, load=20)
    else:
        async with wire(urlsplit(at).port) as cut:
            yield broker_settings.on_sqs(f"http://127.0.0.1:{cut.port}", template, cut=cut)


@pytest.mark.parametrize("clause", CLAUSES, ids=str)
async def test_broker(clause: Clause, setting):
    if why := clause.does_not_apply(setting):
        pytest.skip(why)
    await clause(setting)


async def test_the_suite_runs_without_pytest():
    assert await check(broker_settings.in_memory()) == {}


def test_clauses_are_told_apart_by_name():
    names = [str(clause) for clause in CLAUSES]
    assert len(names) == len(set(names)) >= 40

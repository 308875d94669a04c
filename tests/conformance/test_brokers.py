"""Every broker passes every clause that applies to it."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

import pytest

from agentq.testing.conformance.brokers import CLAUSES, Clause, Setting, check
from tests.helpers import broker_settings
from tests.helpers.cut import wire

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

MEMORY = {"memory": {}, "memory in order": {"ordering": True}, "memory log": {"partitions": 3}}
SERVERS = ["sqs on elasticmq", "sqs fifo on elasticmq", "sqs on moto", "sqs fifo on moto", "kafka"]
FIFO = "{app}-{queue}.fifo"
AT_ONCE = 8
"""Clauses that run together on a server: most of their time they wait for timeouts of it."""


@asynccontextmanager
async def setting_of(name: str, at: str) -> AsyncIterator[Setting]:
    """The server as one clause sees it: queues, groups and a wire of its own."""
    template = FIFO if "fifo" in name else ""
    if name == "kafka":
        yield broker_settings.on_kafka(at)
    elif "moto" in name:
        yield broker_settings.on_sqs(at, template, load=20)
    else:
        async with wire(urlsplit(at).port or 80) as cut:
            yield broker_settings.on_sqs(f"http://127.0.0.1:{cut.port}", template, cut=cut)


async def outcomes_on(name: str, at: str) -> dict[str, Exception | str | None]:
    """What every clause said, by its name: the error that it raised, or why it does not apply."""
    room = asyncio.Semaphore(AT_ONCE)

    async def outcome(clause: Clause) -> Exception | str | None:
        async with room, setting_of(name, at) as setting:
            if why := clause.does_not_apply(setting):
                return why
            try:
                await clause(setting)
            except Exception as error:  # noqa: BLE001 - whatever it raises is its result
                return error
            return None

    return dict(zip(map(str, CLAUSES), await asyncio.gather(*map(outcome, CLAUSES)), strict=True))


@pytest.fixture(scope="session", params=SERVERS)
def outcomes(request):
    """Of every clause on one server."""
    name = request.param
    if name == "kafka":
        pytest.importorskip("aiokafka")
        return asyncio.run(outcomes_on(name, request.getfixturevalue("kafka_address")))
    pytest.importorskip("aiobotocore")
    at = request.getfixturevalue("moto_url" if "moto" in name else "elasticmq_url")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("AWS_ACCESS_KEY_ID", "testing")
        patch.setenv("AWS_SECRET_ACCESS_KEY", "testing")
        patch.setenv("AWS_EC2_METADATA_DISABLED", "true")  # no look for credentials at a cloud's address
        return asyncio.run(outcomes_on(name, at))


@pytest.mark.parametrize("clause", CLAUSES, ids=str)
@pytest.mark.parametrize("kind", MEMORY)
async def test_a_broker_in_memory(kind: str, clause: Clause):
    setting = broker_settings.in_memory(**MEMORY[kind])
    if why := clause.does_not_apply(setting):
        pytest.skip(why)
    await clause(setting)


@pytest.mark.parametrize("clause", CLAUSES, ids=str)
def test_a_broker_that_is_a_server(clause: Clause, outcomes):
    outcome = outcomes[str(clause)]
    if isinstance(outcome, str):
        pytest.skip(outcome)
    if outcome is not None:
        raise outcome


async def test_the_suite_runs_without_pytest():
    assert await check(broker_settings.in_memory()) == {}


def test_clauses_are_told_apart_by_name():
    names = [str(clause) for clause in CLAUSES]
    assert len(names) == len(set(names)) >= 40

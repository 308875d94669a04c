"""A broker that is down, killed, or frozen: what is answered meanwhile, and that it all goes on without a new object."""

import asyncio
from collections.abc import Iterator

import pytest

from agentq.brokers.kafka import access as access_module
from agentq.brokers.kafka import desk as desk_module
from agentq.brokers.kafka import inbox as inbox_module
from agentq.brokers.kafka import member as member_module
from agentq.brokers.kafka import sending as sending_module
from agentq.brokers.kafka.broker import KafkaBroker
from agentq.errors import BrokerUnavailable
from agentq.testing.wait import wait_until
from tests.helpers import kafka
from tests.helpers.kafka_lab import Lab, messages, send
from tests.helpers.processes import ServerProcess, free_port


@pytest.fixture
def process() -> Iterator[ServerProcess]:
    if kafka.GIVEN:
        pytest.skip("a broker of the user's own is not killed")
    with kafka.own() as process:
        yield process


@pytest.fixture(autouse=True)
def _impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Short patience: nothing else of what is tested depends on it."""
    monkeypatch.setattr(inbox_module, "SILENCE_S", 1.0)
    monkeypatch.setattr(desk_module, "ANSWER_S", 1.0)
    monkeypatch.setattr(sending_module, "ANSWER_S", 2.0)
    monkeypatch.setattr(sending_module, "FLUSH_S", 1.0)
    monkeypatch.setattr(sending_module, "REQUEST_S", 1.0)
    monkeypatch.setattr(member_module, "POLL_S", 0.2)
    monkeypatch.setattr(member_module, "REBALANCE_S", 1.0)
    monkeypatch.setattr(access_module, "REQUEST_S", 2.0)


def lab_at(process: ServerProcess) -> Lab:
    return Lab(f"127.0.0.1:{process.port}", parameters="session=2s")


async def unavailable(lab: Lab, broker: KafkaBroker) -> bool:
    [answer] = await broker.send(messages(0, 1))
    [backlog] = await broker.backlog(["q"])
    [finding] = await broker.inspect(["q"])
    return isinstance(answer, BrokerUnavailable) and bool(backlog.error) and not finding.ok


async def test_down_at_the_start_it_is_found_when_used() -> None:
    lab = Lab(f"127.0.0.1:{free_port()}")
    async with lab.inbox() as (broker, inbox):
        assert await unavailable(lab, broker)
        with pytest.raises(BrokerUnavailable, match="connect to"):
            await inbox.receive(1)


async def goes_on(lab: Lab, broker: KafkaBroker, inbox: object, number: int) -> None:
    """What is sent from now on arrives, by the same objects."""

    async def sent() -> bool:
        return await broker.send(messages(number, number + 1)) == [None]

    await wait_until("sending works", sent, timeout_s=30)

    async def arrived() -> bool:
        try:
            deliveries = await inbox.receive(10)  # type: ignore[attr-defined]
        except BrokerUnavailable:
            return False
        lab.store.admit(deliveries)
        await inbox.acknowledge(deliveries)  # type: ignore[attr-defined]
        lab.bodies += [delivery.body.decode() for delivery in deliveries]
        return str(number) in lab.bodies

    await wait_until("receiving works", arrived, timeout_s=30)

    async def read() -> bool:
        [backlog] = await broker.backlog(["q"])
        await inbox.receive(0)  # type: ignore[attr-defined]
        return backlog.ready == 0 and not backlog.error

    await wait_until("nothing is left", read, timeout_s=30)


async def silent(inbox: object) -> bool:
    try:
        await inbox.receive(10)  # type: ignore[attr-defined]
    except BrokerUnavailable:
        return True
    return False


async def test_killed_and_started_again(process: ServerProcess) -> None:
    lab = lab_at(process)
    await lab.create()
    async with lab.inbox() as (broker, inbox):
        await send(broker, *messages(0, 3))
        await lab.admit(inbox, 3)
        await asyncio.to_thread(process.kill)
        await wait_until("it is missed", lambda: silent(inbox), timeout_s=20)
        assert await unavailable(lab, broker)
        await asyncio.to_thread(process.start)
        await goes_on(lab, broker, inbox, 50)
    assert lab.bodies[:3] == ["0", "1", "2"]
    assert lab.told("broker.gap") == []


async def test_frozen_and_thawed(process: ServerProcess) -> None:
    lab = lab_at(process)
    await lab.create()
    async with lab.inbox() as (broker, inbox):
        await send(broker, *messages(0, 3))
        await lab.admit(inbox, 3)
        process.pause()
        try:
            await wait_until("it is missed", lambda: silent(inbox), timeout_s=20)
            assert await unavailable(lab, broker)
        finally:
            process.resume()
        await goes_on(lab, broker, inbox, 50)


async def test_a_member_that_lost_the_cluster_is_replaced(process: ServerProcess, monkeypatch: pytest.MonkeyPatch) -> None:
    lab = lab_at(process)
    await lab.create()
    async with lab.inbox() as (broker, inbox):
        await send(broker, *messages(0, 3))
        await lab.admit(inbox, 3)
        first = inbox._member
        monkeypatch.setattr(member_module, "REFRESH_S", 0.0)
        monkeypatch.setattr(inbox_module, "SILENCE_S", 0.0)
        assert not await inbox.receive(10)
        monkeypatch.undo()
        await send(broker, *messages(3, 5))
        await lab.admit(inbox, 2)
        assert inbox._member is not first
    assert lab.bodies == ["0", "1", "2", "3", "4"]


async def test_closing_does_not_wait_for_ever(process: ServerProcess) -> None:
    lab = lab_at(process)
    await lab.create()
    async with asyncio.timeout(30), lab.inbox() as (broker, inbox):
        await send(broker, *messages(0, 3))
        await lab.admit(inbox, 2)
        process.pause()
        [answer] = await broker.send(messages(3, 4))
        assert isinstance(answer, BrokerUnavailable)

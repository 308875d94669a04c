"""A broker in memory that stands for every url that a command line names."""

import asyncio
import secrets

from agentq import brokers, opening
from agentq.brokers.base import Outgoing
from agentq.message import new_run_id
from agentq.testing.broker import MemoryBroker


def stand_in(monkeypatch):
    """The broker that is opened from now on, whatever the url; it gives a message up after one delivery."""
    name = secrets.token_hex(4)

    def opened(url="", app=""):
        del url, app
        return MemoryBroker(name, give_up_after=1, wait_s=0.01)

    made = opened()
    for module in (brokers, opening):
        monkeypatch.setattr(module, "open_broker", opened)
    return made


def send(broker, queue, number=1, *, body=b'{"task": "agent"}', **more):
    """Put so many messages there."""
    messages = [Outgoing(id=new_run_id(), queue=queue, body=body, **more) for _ in range(number)]
    assert asyncio.run(broker.send(messages)) == [None] * number


def give_up(broker, queue):
    """Deliver what lies there once more than this broker delivers anything."""

    async def take():
        for _ in range(2):
            async with broker.inbox([queue], nowhere) as inbox:
                await inbox.release(await inbox.receive(10))

    asyncio.run(take())


async def nowhere(_source):
    """Where a log is read on from: there is none."""
    return {}

"""A queue that failed and then says nothing at all is not taken for one that answers."""

import asyncio
from typing import Any

import pytest

pytest.importorskip("aiobotocore")

from agentq.brokers.sqs import inbox as inbox_module
from agentq.brokers.sqs.inbox import Source, SQSInbox
from agentq.errors import BrokerUnavailable


class Server:
    """Refuses the first poll, lets the second hang, and answers from then on."""

    def __init__(self) -> None:
        self.polls = 0
        self.thawed = asyncio.Event()

    async def ask(self, operation: str, name: str, **_: Any) -> dict[str, Any]:
        assert operation == "receive_message"
        self.polls += 1
        if self.polls == 1:
            raise BrokerUnavailable("no answer")
        await self.thawed.wait()
        return {}


async def test_while_a_poll_hangs_after_a_failure_the_failure_stands(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(inbox_module, "_PATIENCE_S", 0.3)
    monkeypatch.setattr(inbox_module, "_BACKOFF_S", 0.01)
    server: Any = Server()
    inbox = SQSInbox("here", [Source("q", "app-q", origin="app-q", wait_s=20)], server, server)
    for _ in range(3):
        with pytest.raises(BrokerUnavailable, match="no answer"):
            await inbox.receive(1)
    assert server.polls == 2
    server.thawed.set()
    assert await inbox.receive(1) == ()
    await inbox.finish()

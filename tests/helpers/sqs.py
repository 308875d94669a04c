"""SQS queues that one test alone uses."""

import contextlib
import secrets
from collections.abc import AsyncIterator, Mapping, Sequence

from agentq.brokers.base import Outgoing
from agentq.brokers.sqs import SQSBroker
from agentq.message import new_run_id


def url(endpoint: str, template: str = "", **parameters: object) -> str:
    """The url of a broker at ``endpoint`` whose polls are short."""
    query = {"endpoint": endpoint, "wait": 1, **parameters}
    return f"sqs://us-east-1/{template}?" + "&".join(f"{name}={value}" for name, value in query.items())


def new_app() -> str:
    """An app's name, and so queues, of a test's own."""
    return f"t{secrets.token_hex(4)}"


@contextlib.asynccontextmanager
async def opened(
    endpoint: str, *queues: str, app: str = "", template: str = "", **parameters: object
) -> AsyncIterator[SQSBroker]:
    """A broker whose ``queues`` exist."""
    async with SQSBroker(url(endpoint, template, **parameters), app=app or new_app()) as broker:
        findings = await broker.inspect(queues, fix=True)
        assert all(finding.ok for finding in findings), findings
        yield broker


async def nowhere(source: str) -> Mapping[int, int]:
    """The positions of a queue: it has none."""
    return {}


def message(queue: str = "work", body: str = '{"v":1}', **more) -> Outgoing:
    """A message with an id of its own."""
    return Outgoing(**{"id": new_run_id(), "queue": queue, "body": body.encode(), **more})


async def sent(broker: SQSBroker, messages: Sequence[Outgoing]) -> None:
    """Send, and be sure of it."""
    assert [error for error in await broker.send(messages) if error is not None] == []

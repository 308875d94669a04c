"""Which queue takes what SQS gave up delivering."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from agentq.brokers.sqs.address import dead_name
from agentq.brokers.sqs.errors import Denied

if TYPE_CHECKING:
    from collections.abc import Mapping

    from agentq.brokers.sqs.client import Clients


def redrive(attributes: Mapping[str, str]) -> dict[str, Any]:
    """The redrive policy among a queue's attributes; empty where there is none, or none that can be read."""
    try:
        policy = json.loads(attributes.get("RedrivePolicy", "{}"))
    except ValueError:
        return {}
    return policy if isinstance(policy, dict) else {}


def letters_name(name: str, attributes: Mapping[str, str]) -> str:
    """The dead-letter queue of ``name`` that its ``attributes`` say, else the one that it would be given."""
    target = redrive(attributes).get("deadLetterTargetArn")
    return target.rpartition(":")[2] if isinstance(target, str) and target else dead_name(name)


async def dead_letter_queue(clients: Clients, name: str) -> str:
    """The same, asking SQS; raises `BrokerError` where it does not answer. Who may not ask gets the usual name."""
    try:
        answer = await clients.ask("get_queue_attributes", name, AttributeNames=["RedrivePolicy"])
    except Denied:
        return dead_name(name)
    return letters_name(name, answer.get("Attributes", {}))

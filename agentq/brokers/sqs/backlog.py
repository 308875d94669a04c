"""How much lies in a queue at SQS, as its attributes say: approximately."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Final

from agentq.brokers.base import Backlog
from agentq.brokers.sqs.errors import Missing
from agentq.brokers.sqs.letters import letters_name
from agentq.errors import AgentQError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from agentq.brokers.sqs.address import Address
    from agentq.brokers.sqs.client import Clients

_READY: Final = "ApproximateNumberOfMessages"
_DELAYED: Final = "ApproximateNumberOfMessagesDelayed"
_TAKEN: Final = "ApproximateNumberOfMessagesNotVisible"


async def read_backlog(address: Address, clients: Clients, queues: Sequence[str]) -> list[Backlog]:
    """The backlog of each queue, in order, read at the same time.

    ``oldest_age_s`` stays None: SQS tells an age only to CloudWatch, minutes late. Where queues share one at SQS nobody can say
    what is whose; all is counted for the first of them and nothing for the others, so that a sum is right.
    """
    counted: set[str] = set()
    reading = []
    for queue in queues:
        try:
            name = address.name(queue)
        except AgentQError as error:
            reading.append(_known(Backlog(queue=queue, ready=0, approximate=True, error=str(error))))
            continue
        shared = name in counted
        counted.add(name)
        reading.append(_known(Backlog(queue=queue, ready=0, approximate=True)) if shared else _read(clients, queue, name))
    return await asyncio.gather(*reading)


async def _known(backlog: Backlog) -> Backlog:
    return backlog


async def _read(clients: Clients, queue: str, name: str) -> Backlog:
    try:
        wanted = [_READY, _DELAYED, _TAKEN, "RedrivePolicy"]
        attributes = (await clients.ask("get_queue_attributes", name, AttributeNames=wanted)).get("Attributes", {})
        return Backlog(
            queue=queue,
            ready=int(attributes[_READY]),
            delayed=int(attributes[_DELAYED]),
            taken=int(attributes[_TAKEN]),
            dead=await _dead(clients, letters_name(name, attributes)),
            approximate=True,
        )
    except KeyError as error:
        return Backlog(queue=queue, ready=0, approximate=True, error=f"{name}: the answer lacks {error}")
    except AgentQError as error:
        return Backlog(queue=queue, ready=0, approximate=True, error=str(error))


async def _dead(clients: Clients, letters: str) -> int:
    try:
        answer = await clients.ask("get_queue_attributes", letters, AttributeNames=[_READY, _TAKEN])
    except Missing:
        return 0
    attributes = answer.get("Attributes", {})
    return int(attributes[_READY]) + int(attributes[_TAKEN])

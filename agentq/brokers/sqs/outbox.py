"""The sending end: one message as SQS takes it, and its way into a batch."""

from __future__ import annotations

import hashlib
import math
import re
from typing import TYPE_CHECKING, Any, Final

from agentq.brokers.sqs.address import MAX_BYTES, is_fifo
from agentq.brokers.sqs.batches import Batcher, Entry
from agentq.errors import AgentQError, InvalidArgument, PayloadTooLarge

if TYPE_CHECKING:
    from collections.abc import Sequence

    from agentq.brokers.base import Outgoing
    from agentq.brokers.sqs.address import Address
    from agentq.brokers.sqs.client import Clients

_IDENTIFIER: Final = re.compile(r"[A-Za-z0-9!\"#$%&'()*+,\-./:;<=>?@\[\\\]^_`{|}~]{1,128}")
"""What SQS takes as a group's or a deduplication's id."""
_STRING: Final = "String"


class Outbox:
    """Sends for all callers of one broker."""

    def __init__(self, address: Address, clients: Clients) -> None:
        """Send nothing yet."""
        self._address = address
        self._clients = clients
        self._batchers: dict[str, Batcher] = {}

    async def send(self, messages: Sequence[Outgoing]) -> list[BaseException | None]:
        """See `Broker.send`."""
        prepared: list[Entry | AgentQError] = []
        by_name: dict[str, list[Entry]] = {}
        for message in messages:
            try:
                name = self._address.name(message.queue)
                entry = entry_of(message, fifo=is_fifo(name), max_bytes=self._address.max_bytes)
            except AgentQError as error:
                prepared.append(error)
                continue
            prepared.append(entry)
            by_name.setdefault(name, []).append(entry)
        for name, entries in by_name.items():
            self._batcher(name).add(entries)
        return [each if isinstance(each, AgentQError) else await each.answer() for each in prepared]

    async def close(self) -> None:
        """Return when all is sent."""
        for batcher in self._batchers.values():
            await batcher.close()

    def abandon(self) -> None:
        """Wait for no answer any more."""
        for batcher in self._batchers.values():
            batcher.abandon()

    def _batcher(self, name: str) -> Batcher:
        if name not in self._batchers:

            async def request(entries: list[dict[str, Any]]) -> dict[str, Any]:
                return await self._clients.ask("send_message_batch", name, Entries=entries)

            self._batchers[name] = Batcher(request, f"send to {name}", linger_s=self._address.linger_s)
        return self._batchers[name]


def entry_of(message: Outgoing, *, fifo: bool, max_bytes: int = MAX_BYTES) -> Entry:
    """The batch entry of a message.

    Raises:
        InvalidArgument: SQS takes no such message.

    """
    body = _text(message)
    fields: dict[str, Any] = {"MessageBody": body}
    attributes = {name: value for name, value in message.attributes.items() if value}  # SQS refuses empty ones
    size = len(body.encode()) + sum(len(name) + len(value.encode()) for name, value in attributes.items())
    if size > max_bytes:
        raise PayloadTooLarge(
            "body", f"{size} bytes", f"send at most {max_bytes} bytes, attributes included, and refer to the rest"
        )
    size += len(_STRING) * len(attributes)
    if attributes:
        fields["MessageAttributes"] = {name: {"DataType": _STRING, "StringValue": value} for name, value in attributes.items()}
    if not fifo:
        # The group is the tenant: SQS serves tenants with little in flight before those with much ("fair queues").
        if message.group:
            fields["MessageGroupId"] = _identifier(message.group)
        if message.delay_s > 0:
            fields["DelaySeconds"] = math.ceil(message.delay_s)
        return Entry(fields=fields, size=size)
    # A message with an order of its own is a group of its own: a tenant as the group would make its messages wait in line.
    group = _identifier(message.group if message.ordered and message.group else message.id)
    fields["MessageGroupId"] = group
    # By the body, too: SQS drops a repetition in silence, and the same key with other arguments must reach intake, which
    # tells the difference.
    digest = hashlib.blake2b(message.id.encode() + b"\x00" + message.body, digest_size=32)
    fields["MessageDeduplicationId"] = digest.hexdigest()
    # One message of a group at a time: where SQS fails one entry of a batch and takes the next, their order would be lost.
    # A group's runs start one at a time anyway.
    return Entry(fields=fields, size=size, lane=group)


def _text(message: Outgoing) -> str:
    try:
        text = message.body.decode()
    except UnicodeDecodeError as error:
        raise InvalidArgument("body", message.body[:40], "SQS takes UTF-8 text") from error
    # The two characters of JSON that XML, and so SQS, does not have; JSON writes them in ASCII as well.
    return text.replace("\ufffe", "\\ufffe").replace("\uffff", "\\uffff")


def _identifier(text: str) -> str:
    return text if _IDENTIFIER.fullmatch(text) else hashlib.blake2b(text.encode(), digest_size=32).hexdigest()

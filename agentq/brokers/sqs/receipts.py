"""What becomes of messages that were delivered: deleted or made visible again, in batches."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Final

from agentq.brokers.sqs.batches import Batcher, Entry
from agentq.brokers.sqs.errors import Refused
from agentq.errors import BrokerError

if TYPE_CHECKING:
    from agentq.brokers.base import Delivery
    from agentq.brokers.sqs.client import Clients

_STALE: Final = frozenset({"ReceiptHandleIsInvalid", "MessageNotInflight", "InvalidParameterValue", "InvalidIdFormat"})
"""A receipt whose visibility timeout is over: the message is delivered again, to whomever."""


class Receipts:
    """Gives receipts back to SQS, for all inboxes of a broker."""

    def __init__(self, clients: Clients, *, linger_s: float) -> None:
        """Nothing is given back yet."""
        self._clients = clients
        self._linger_s = linger_s
        self._batchers: dict[tuple[str, str], Batcher] = {}

    async def delete(self, deliveries: Sequence[Delivery]) -> None:
        """Let these never be delivered again.

        Raises:
            BrokerError: SQS did not hear of some; they are delivered again.

        """
        await self._all("delete_message_batch", deliveries)

    async def release(self, deliveries: Sequence[Delivery]) -> None:
        """Let these be delivered at once; raises as `delete` does."""
        await self._all("change_message_visibility_batch", deliveries, VisibilityTimeout=0)

    async def close(self) -> None:
        """Return when all is given back."""
        for batcher in self._batchers.values():
            await batcher.close()

    def abandon(self) -> None:
        """Wait for no answer any more; what SQS did not hear of is delivered again."""
        for batcher in self._batchers.values():
            batcher.abandon()

    async def _all(self, operation: str, deliveries: Sequence[Delivery], **fields: Any) -> None:
        by_name: dict[str, list[Entry]] = {}
        for delivery in deliveries:
            name, handle = delivery.receipt
            by_name.setdefault(name, []).append(Entry(fields={"ReceiptHandle": handle, **fields}))
        # Every batcher has its entries before the first is waited for.
        entries = [entry for name, some in by_name.items() for entry in self._batcher(operation, name).add(some)]
        for entry in entries:
            error = await entry.answer()
            if isinstance(error, BrokerError) and not (isinstance(error, Refused) and error.code in _STALE):
                raise error

    def _batcher(self, operation: str, name: str) -> Batcher:
        key = (operation, name)
        if key not in self._batchers:

            async def request(entries: list[dict[str, Any]]) -> dict[str, Any]:
                return await self._clients.ask(operation, name, Entries=entries)

            self._batchers[key] = Batcher(request, f"{operation} on {name}", linger_s=self._linger_s)
        return self._batchers[key]

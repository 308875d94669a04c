"""Intake without a loop: one message batch after the other, as a test's worker asks for it."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AsyncExitStack
from typing import TYPE_CHECKING

from agentq.intake import Admitter

if TYPE_CHECKING:
    from agentq.app import AgentQ
    from agentq.brokers.base import Broker, Delivery, Inbox
    from agentq.clock import Clock
    from agentq.stores.base import Store


class StepwiseInflow:
    """What `agentq.intake.Intake` does, in the same order and by the same admitter, a step at a time."""

    def __init__(self, app: AgentQ, broker: Broker, store: Store, clock: Clock) -> None:
        """Prepare; the inbox is opened when something lies in the broker."""
        self._broker = broker
        self._store = store
        self._queues = app.queues
        self._admitter = Admitter(broker, store, app.name, clock)
        self._inbox: Inbox | None = None
        self._stack = AsyncExitStack()
        self._waiting: Sequence[Delivery] = ()
        """Received, not admitted yet."""

    async def anything(self) -> bool:
        """Whether there is something in the broker, now or later."""
        return any(each.ready + each.delayed + each.taken for each in await self._broker.backlog(self._queues))

    async def step(self, room: int) -> bool:
        """Bring what lies there into the store; whether there was something.

        Raises:
            BrokerUnavailable: what was received, if anything, comes again or is admitted by the next step.
            StoreUnavailable: what was received is admitted by the next step.

        """
        if not self._waiting:
            if not await self.anything():
                return False
            if self._inbox is None:
                self._inbox = await self._stack.enter_async_context(self._broker.inbox(self._queues, self._store.positions))
            self._waiting = await self._inbox.receive(room)
        if not self._waiting or self._inbox is None:
            return False
        await self._admitter.admit(self._waiting)
        admitted, self._waiting = self._waiting, ()
        await self._inbox.acknowledge(admitted)
        return True

    async def close(self) -> None:
        """Leave the inbox as a process does that ends: what was returned is neither acknowledged nor handed back."""
        self._inbox = None
        await self._stack.aclose()

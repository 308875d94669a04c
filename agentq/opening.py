"""What an open app holds: its store, and the broker in front of it."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass
from typing import Any

from agentq import producer, settings
from agentq.brokers import open_broker
from agentq.brokers.base import Broker
from agentq.errors import NotOpen, StoreUnnamed
from agentq.message import Envelope
from agentq.stores import open_store
from agentq.stores.base import Store


@dataclass(frozen=True, slots=True, eq=False)
class Opened:
    """An open store, and a broker or none."""

    store: Store
    broker: Broker | None
    home: asyncio.AbstractEventLoop
    """The loop that the broker belongs to."""
    closing: AsyncExitStack

    async def submit(self, envelopes: Sequence[Envelope], store: Any = None, *, on: object = None) -> list[str]:
        """Put envelopes on their way, through the broker if there is one; their run ids.

        ``store`` is what a run writes with, in place of the app's own. What goes by a connection of the caller's (``on``) goes
        into the store: its row and what else the transaction writes are there together.
        """
        store = store or self.store
        if on is not None:
            return [answer.id for answer in await producer.submit_on(store, on, envelopes)]
        if self.broker is None or not envelopes:
            return [answer.id for answer in await producer.submit(store, envelopes)]
        elsewhere = self.home is not asyncio.get_running_loop()
        if elsewhere and not self.home.is_running():
            raise NotOpen("the event loop that opened the app runs no more: leave `async with aq:` before its loop ends")
        sending = producer.send(self.broker, store, envelopes, now=time.time())
        if not elsewhere:
            answers = await sending
        else:  # the app is open on another loop of this process
            answers = await asyncio.wrap_future(asyncio.run_coroutine_threadsafe(sending, self.home))
        return [answer.id for answer in answers]


async def open_app(app: str, store: str | Store | None, broker: str | Broker | None) -> Opened:
    """Open what was given, or else what the environment names. Objects that were given are open already, and stay so.

    Raises:
        StoreUnavailable, StoreIncompatible: from the store.
        InvalidArgument: an environment variable or URL does not fit.
        StoreUnnamed: a broker stands before the default store.
    """
    inbox = open_broker(broker, app=app) if isinstance(broker, str) else broker  # its url is read; nothing is asked for yet
    if inbox is not None and store is None and not settings.load().store.explicit:
        raise StoreUnnamed
    async with AsyncExitStack() as stack:
        if store is None or isinstance(store, str):
            store = await stack.enter_async_context(open_store(settings.load().store.url if store is None else store))
        if inbox is not None and isinstance(broker, str):
            await stack.enter_async_context(inbox)
        return Opened(store, inbox, asyncio.get_running_loop(), stack.pop_all())

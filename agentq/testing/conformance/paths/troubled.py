"""A broker that hears of nothing, and a store that does not answer."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any, cast

from agentq.brokers.base import Broker
from agentq.errors import StoreUnavailable
from agentq.stores.base import Store


class Away:
    """A store that admits nothing while it is ``away``."""

    def __init__(self, inner: Store) -> None:
        """Stand before ``inner``."""
        self._inner = inner
        self.away = True
        self.asked = 0
        """Admissions that were refused."""

    def __getattr__(self, name: str) -> Any:
        """Everything else is passed on."""
        return getattr(self._inner, name)

    async def admit(self, admission: Any) -> Any:
        """See `IntakeStore.admit`."""
        if self.away:
            self.asked += 1
            raise StoreUnavailable("the store is away, as the clause wants it")
        return await self._inner.admit(admission)

    def as_store(self) -> Store:
        """Itself, for whom types matter."""
        return cast("Store", self)


class Deaf:
    """A broker that hears of no acknowledgement: as if every worker died before it said so."""

    def __init__(self, inner: Broker) -> None:
        """Stand before ``inner``."""
        self._inner = inner
        self.acknowledged = 0

    def __getattr__(self, name: str) -> Any:
        """Everything else is passed on."""
        return getattr(self._inner, name)

    @asynccontextmanager
    async def inbox(self, *args: Any, **options: Any) -> AsyncIterator[Any]:
        """See `Broker.inbox`."""
        async with self._inner.inbox(*args, **options) as inbox:
            yield _DeafInbox(self, inbox)

    def as_broker(self) -> Broker:
        """Itself, for whom types matter."""
        return cast("Broker", self)


class _DeafInbox:
    def __init__(self, deaf: Deaf, inner: Any) -> None:
        self._deaf = deaf
        self._inner = inner

    def __getattr__(self, name: str) -> Any:
        return getattr(self._inner, name)

    async def acknowledge(self, deliveries: Any) -> None:
        self._deaf.acknowledged += len(deliveries)

"""Large arguments in this process's memory, for brokers that keep them apart from the store."""

from __future__ import annotations

from agentq.errors import BrokerError, NotFound

_PREFIX = "memory://"


class MemoryParcels:
    """Fulfils `agentq.brokers.base.Parcels`."""

    def __init__(self) -> None:
        """Keep nothing yet."""
        self.kept: dict[str, bytes] = {}

    async def put(self, sha256: str, data: bytes) -> str:
        """See `Parcels.put`."""
        self.kept[sha256] = data
        return _PREFIX + sha256

    async def get(self, place: str) -> bytes:
        """See `Parcels.get`."""
        if not place.startswith(_PREFIX):
            raise BrokerError(f"{place!r} does not begin with {_PREFIX}")
        try:
            return self.kept[place.removeprefix(_PREFIX)]
        except KeyError:
            raise NotFound(f"nothing lies at {place}") from None

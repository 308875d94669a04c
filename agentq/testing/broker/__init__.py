"""A broker in this process's memory, for tests: a stand-in that keeps a broker's promises and none beyond them."""

from agentq.testing.broker.memory import MemoryBroker
from agentq.testing.broker.parcels import MemoryParcels
from agentq.testing.broker.trouble import Trouble

__all__ = ["MemoryBroker", "MemoryParcels", "Trouble"]

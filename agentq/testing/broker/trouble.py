"""What goes wrong with a broker in memory, as a test says."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from agentq.brokers.base import Delivery, Outgoing
from agentq.errors import BrokerUnavailable


@dataclass(slots=True)
class Trouble:
    """Set by a test at any time; holds for every broker object of the same name from then on."""

    down: bool = False
    """Whether the broker cannot be reached: sends are answered and all else raises `BrokerUnavailable`."""
    refuse: Callable[[Outgoing], BaseException | None] | None = None
    """What a message is refused with; None lets it in. So a batch can be refused in part."""
    twice: int = 0
    """How many of the next deliveries come twice in one batch."""
    lost_acknowledgements: int = 0
    """How many of the next calls of ``acknowledge`` reach nobody, though they return."""
    blind: str = ""
    """Why figures cannot be read."""

    def check(self) -> None:
        """Raise where the broker is down.

        Raises:
            BrokerUnavailable: it is.

        """
        if self.down:
            raise BrokerUnavailable("memory: the broker is down, as the test wants it")

    def verdict(self, message: Outgoing) -> BaseException | None:
        """What this message is refused with, if it is."""
        return self.refuse(message) if self.refuse is not None else None

    def stutter(self, deliveries: list[Delivery]) -> list[Delivery]:
        """Put the next ``twice`` deliveries in twice."""
        told: list[Delivery] = []
        for delivery in deliveries:
            told.append(delivery)
            if self.twice > 0:
                self.twice -= 1
                told.append(delivery)
        return told

    def loses_acknowledgement(self) -> bool:
        """Whether this call of ``acknowledge`` is one that gets lost."""
        if self.lost_acknowledgements <= 0:
            return False
        self.lost_acknowledgements -= 1
        return True

"""Time: the wall clock for people and timers, the steady clock for ownership."""

from __future__ import annotations

import time
from typing import Protocol

_STEADY = getattr(time, "CLOCK_BOOTTIME", None) or getattr(time, "CLOCK_MONOTONIC_RAW", None) or time.CLOCK_MONOTONIC


class Clock(Protocol):
    """Two readings in seconds. Tests pass a simulated one."""

    def wall(self) -> float:
        """Seconds since the Unix epoch; may be stepped by an administrator or NTP."""
        ...

    def steady(self) -> float:
        """Seconds since an arbitrary point, the same for every process of this boot; never stepped, counts suspend."""
        ...


class SystemClock:
    """The machine's clocks. Steady is ``CLOCK_BOOTTIME`` where there is one, so that a suspended machine ages leases."""

    def wall(self) -> float:
        """Seconds since the Unix epoch."""
        return time.time()

    def steady(self) -> float:
        """Seconds since boot."""
        return time.clock_gettime(_STEADY)

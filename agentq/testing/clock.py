"""A clock that only moves when a test moves it."""

from __future__ import annotations

import threading


class SimulatedClock:
    """Fulfils `agentq.clock.Clock`. May be read and moved from any thread."""

    def __init__(self, wall: float = 1_800_000_000.0, steady: float = 1_000.0) -> None:
        """Start at ``wall`` seconds since the Unix epoch and ``steady`` seconds since boot."""
        self._wall = wall
        self._steady = steady
        self._lock = threading.Lock()

    def wall(self) -> float:
        """Seconds since the Unix epoch."""
        with self._lock:
            return self._wall

    def steady(self) -> float:
        """Seconds since boot."""
        with self._lock:
            return self._steady

    def advance(self, seconds: float) -> None:
        """Let time pass: both readings grow."""
        if seconds < 0:
            raise ValueError(f"seconds: {seconds} does not fit; time passes forwards, step_wall() steps back")
        with self._lock:
            self._wall += seconds
            self._steady += seconds

    def step_wall(self, seconds: float) -> None:
        """Set the wall clock forwards or back, as an administrator or NTP does; no time passes."""
        with self._lock:
            self._wall += seconds

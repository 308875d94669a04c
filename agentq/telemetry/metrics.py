"""Events and the store's census as Prometheus metrics, in a registry of their own.

Counting happens on plain numbers under one lock, because a step is counted in a fraction of a microsecond that way;
prometheus_client is imported when the metrics are first rendered.
"""

from __future__ import annotations

import threading
import time
from bisect import bisect_left
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final, Protocol

from agentq.telemetry import families as f

if TYPE_CHECKING:
    from agentq.message import Census

RUN_BUCKETS: Final = (0.1, 0.5, 1.0, 5.0, 15.0, 60.0, 300.0, 900.0, 3600.0, 14400.0, 43200.0)
STEP_BUCKETS: Final = (0.001, 0.005, 0.02, 0.1, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0, 1800.0)
MAX_STEP_NAMES: Final = 200
"""Step names may be made up while running; beyond so many (task, step) pairs the rest is counted as ``other``."""

_OUTCOMES: Final = {
    "run.succeeded": "succeeded",
    "run.failed": "failed",
    "run.cancelled": "cancelled",
    "run.retrying": "retried",
    "run.suspended": "suspended",
    "run.released": "released",
    "run.crashed": "crashed",
    "run.lost": "lost",
    "run.abandoned": "abandoned",
}
"""How a claim of a run ended: event to the label ``outcome``."""
_STEPS: Final = {
    "step.done": "done",
    "step.failed": "failed",
    "step.replayed": "replayed",
    "step.retrying": "retried",
    "step.interrupted": "interrupted",
}
_COUNTED: Final = {
    "run.claimed": f.CLAIMS,
    "run.resumed": f.RESUMES,
    "run.taken_over": f.TAKEOVERS,
    "run.retrying": f.RUN_RETRIES,
    "run.lost": f.LEASES_LOST,
    "run.poisoned": f.POISONED,
    "run.timed_out": f.TIMEOUTS,
    "worker.draining": f.DRAINS,
    "worker.fenced": f.FENCED,
    "heartbeat.failed": f.HEARTBEAT_FAILURES,
    "store.unavailable": f.STORE_FAILURES,
    "broker.unavailable": f.BROKER_FAILURES,
    "broker.refused": f.BROKER_FAILURES,
}
_INTAKE: Final = {"runs": f.ADMITTED, "duplicates": f.DUPLICATES, "letters": f.DEAD_LETTERS}
"""Field of ``intake.admitted`` to what it adds to."""
_LOOK_S: Final = 2.0
"""How long a scrape waits for the store and the broker together, before it shows the figures of the scrape before."""


class BacklogSource(Protocol):
    """Where a scrape finds what lies in the broker. Called in the threads of scrapes."""

    def refresh(self) -> None:
        """Begin to look, unless that was done just now. Never blocks."""
        ...

    def seen(self, wait_s: float) -> Sequence[f.Seen]:
        """Return the newest figures, after waiting up to ``wait_s`` for those that are being read."""
        ...


class Histogram:
    """Counts of durations per bucket; ``bounds`` are upper limits in seconds."""

    __slots__ = ("bounds", "counts", "total")

    def __init__(self, bounds: tuple[float, ...]) -> None:
        """Start at nothing."""
        self.bounds = bounds
        self.counts = [0] * (len(bounds) + 1)
        self.total = 0.0

    def observe(self, seconds: float) -> None:
        """Count one duration. The caller holds the lock."""
        self.counts[bisect_left(self.bounds, seconds)] += 1
        self.total += seconds


class MetricsSink:
    """A telemetry sink that counts, and renders what it counted together with the worker's slots and the queues' backlog."""

    def __init__(
        self,
        *,
        status: Callable[[], Mapping[str, Any]] | None = None,
        census: Callable[[], Census | None] | None = None,
        backlog: BacklogSource | None = None,
    ) -> None:
        """Count from now on.

        ``status`` answers at least ``slots`` and ``busy`` of this worker (`agentq.worker.Worker.status`). ``census`` answers
        the queues as they are now, or None when they cannot be read: then the last known ones are shown with their age.
        ``backlog`` is asked for what lies in the broker, in the same way.
        """
        self._lock = threading.Lock()
        self._steps: dict[tuple[str, str], Histogram] = {}
        self._runs: dict[tuple[str, ...], Histogram] = {}
        self._step_counts: dict[tuple[str, ...], int] = {}
        self._counts: dict[tuple[f.Family, tuple[str, ...]], int] = {}
        self._status = status
        self._census = census
        self._backlog = backlog
        self._seen: tuple[Census, float] | None = None
        self._registry: Any = None

    def __call__(self, event: str, fields: dict[str, Any]) -> None:
        """Count one event."""
        if event == "step.done":  # the one that is hot
            with self._lock:
                self._step(fields, "done")
        elif event in _STEPS:
            with self._lock:
                self._step(fields, _STEPS[event])
        elif event in _OUTCOMES or event in _COUNTED:
            with self._lock:
                self._rare(event, fields)
        elif event == "intake.admitted":
            with self._lock:
                for name, family in _INTAKE.items():
                    self._counts[family, ()] = self._counts.get((family, ()), 0) + int(fields.get(name) or 0)

    def _step(self, fields: dict[str, Any], outcome: str) -> None:
        task = fields.get("task") or ""
        counted = (task, outcome)
        self._step_counts[counted] = self._step_counts.get(counted, 0) + 1
        duration = fields.get("duration_s")
        if duration is None or outcome == "replayed":
            return
        key = (task, fields.get("step") or "")
        histogram = self._steps.get(key)
        if histogram is None:
            if len(self._steps) >= MAX_STEP_NAMES:
                key = (task, "other")
            histogram = self._steps.setdefault(key, Histogram(STEP_BUCKETS))
        histogram.observe(duration)

    def _rare(self, event: str, fields: dict[str, Any]) -> None:
        task, queue = str(fields.get("task") or ""), str(fields.get("queue") or "")
        family = _COUNTED.get(event)
        if family is not None:
            labels = (task, queue) if family.labels else ()
            self._counts[family, labels] = self._counts.get((family, labels), 0) + 1
        outcome = _OUTCOMES.get(event)
        if outcome is not None:
            histogram = self._runs.setdefault((task, queue, outcome), Histogram(RUN_BUCKETS))
            histogram.observe(float(fields.get("duration_s") or 0.0))

    def see(self, census: Census) -> None:
        """Remember the queues as they are now; the next `render` shows them."""
        self._seen = (census, time.monotonic())

    def render(self) -> tuple[bytes, str]:
        """Return the exposition text and its content type. Callable from any thread."""
        from prometheus_client import CollectorRegistry, exposition  # noqa: PLC0415 - see the module's docstring

        if self._registry is None:
            self._registry = CollectorRegistry(auto_describe=False)
            self._registry.register(self)
        return exposition.generate_latest(self._registry), exposition.CONTENT_TYPE_LATEST

    def describe(self) -> list[Any]:
        """Name nothing beforehand: which families there are depends on what happens."""
        return []

    def collect(self) -> list[Any]:
        """Return everything as metric families of prometheus_client, which calls this for a scrape."""
        with self._lock:
            counts = dict(self._counts)
            steps = dict(self._step_counts)
            runs = [(key, list(h.counts), h.total, h.bounds) for key, h in self._runs.items()]
            bodies = [(key, list(h.counts), h.total, h.bounds) for key, h in self._steps.items()]
        found: list[Any] = [
            *f.counters(counts),
            f.counter(f.STEPS, steps),
            f.counter(f.RUNS, {key: sum(buckets) for key, buckets, _, _ in runs}),
            f.histogram(f.RUN_DURATION, runs),
            f.histogram(f.STEP_DURATION, bodies),
        ]
        if self._status is not None:
            status = self._status()
            found.append(f.gauge(f.SLOTS, {(): float(status.get("slots", 0))}))
            found.append(f.gauge(f.BUSY, {(): float(status.get("busy", 0))}))
        until = time.monotonic() + _LOOK_S
        if self._backlog is not None:
            self._backlog.refresh()  # it is read while the store is asked
        found.extend(self._queues())
        if self._backlog is not None:
            found.extend(f.brokers(self._backlog.seen(max(0.0, until - time.monotonic()))))
        return found

    def _queues(self) -> list[Any]:
        if self._census is not None and (fresh := self._census()) is not None:
            self.see(fresh)
        if self._seen is None:
            return []
        census, at = self._seen
        return [*f.queues(census), f.gauge(f.CENSUS_AGE, {(): max(0.0, time.monotonic() - at)})]

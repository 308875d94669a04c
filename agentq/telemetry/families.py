"""The metrics by name, label and meaning, and how plain numbers become families of prometheus_client."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import TYPE_CHECKING, Any, Final, TypeAlias

if TYPE_CHECKING:
    from agentq.message import Census


@dataclass(frozen=True, slots=True)
class Family:
    """One metric. Durations and ages are seconds."""

    name: str
    help: str
    labels: tuple[str, ...] = ()


Observed: TypeAlias = Iterable[tuple[Sequence[str], Sequence[int], float, Sequence[float]]]
"""Per set of labels: counts per bucket (one more than bounds), their sum in seconds, the upper bounds."""

_TASK = ("task", "queue")
RUNS: Final = Family("agentq_runs", "Claims of runs that ended, by outcome.", (*_TASK, "outcome"))
STEPS: Final = Family("agentq_steps", "Steps by outcome; replayed ones executed nothing.", ("task", "outcome"))
CLAIMS: Final = Family("agentq_runs_started", "Runs that this worker started.", _TASK)
RESUMES: Final = Family("agentq_runs_resumed", "Runs that this worker went on with.", _TASK)
TAKEOVERS: Final = Family("agentq_takeovers", "Runs taken over from a worker whose lease expired.", _TASK)
RUN_RETRIES: Final = Family("agentq_run_retries", "Failed attempts that another attempt follows.", _TASK)
LEASES_LOST: Final = Family("agentq_leases_lost", "Runs stopped here because another epoch owns them.", _TASK)
POISONED: Final = Family("agentq_runs_poisoned", "Runs given up because they killed their process without progress.", _TASK)
TIMEOUTS: Final = Family("agentq_run_timeouts", "Attempts ended by a timeout or a deadline.", _TASK)
DRAINS: Final = Family("agentq_drains", "Times this worker began to drain.")
FENCED: Final = Family("agentq_fenced", "Times this worker stopped its runs because it could not renew their leases.")
HEARTBEAT_FAILURES: Final = Family("agentq_heartbeat_failures", "Heartbeats that did not reach the store.")
STORE_FAILURES: Final = Family("agentq_store_failures", "Times the store could not be reached.")
RUN_DURATION: Final = Family("agentq_run_duration_seconds", "Running time of a claim, by how it ended.", (*_TASK, "outcome"))
STEP_DURATION: Final = Family("agentq_step_duration_seconds", "Duration of executed steps.", ("task", "step"))
SLOTS: Final = Family("agentq_worker_slots", "Runs that this worker can run at once.")
BUSY: Final = Family("agentq_worker_busy", "Slots that run something now.")
CENSUS_AGE: Final = Family("agentq_census_age_seconds", "Age of the figures of queues and pools.")

_PLAIN: Final = (
    *(CLAIMS, RESUMES, TAKEOVERS, RUN_RETRIES, LEASES_LOST, POISONED, TIMEOUTS),
    *(DRAINS, FENCED, HEARTBEAT_FAILURES, STORE_FAILURES),
)
_QUEUE: Final = {
    "runnable": Family("agentq_queue_backlog", "Runs that a claim would return now.", ("queue",)),
    "oldest_age_s": Family("agentq_queue_oldest_age_seconds", "How long the oldest runnable run is runnable.", ("queue",)),
    "running": Family("agentq_queue_in_flight", "Runs in the hands of a worker.", ("queue",)),
    "delayed": Family("agentq_queue_delayed", "Runs queued for later: delays, and retries that wait their turn.", ("queue",)),
    "waiting": Family("agentq_queue_waiting", "Runs that wait for a timer, a signal or a child.", ("queue",)),
    "parked": Family("agentq_queue_parked", "Runs held back by a limit.", ("queue",)),
    "paused": Family("agentq_queue_paused", "Runs held by a person.", ("queue",)),
}
"""Field of `QueueStats` to metric."""
_POOL_SLOTS: Final = Family("agentq_pool_slots", "Slots of all live workers.", ("pool", "state"))
_POOL_BUSY: Final = Family("agentq_pool_busy", "Busy slots of all live workers.", ("pool", "state"))
_POOL_WORKERS: Final = Family("agentq_pool_workers", "Live workers.", ("pool", "state"))


def counter(family: Family, values: Mapping[tuple[str, ...], int]) -> Any:
    """Build a counter; a family without labels is there from the start, at 0."""
    from prometheus_client.core import CounterMetricFamily  # noqa: PLC0415 - only a scrape needs it

    built = CounterMetricFamily(family.name, family.help, labels=family.labels)
    for labels, value in values.items() if values or family.labels else [((), 0)]:
        built.add_metric(list(labels), value)
    return built


def counters(counts: Mapping[tuple[Family, tuple[str, ...]], int]) -> list[Any]:
    """Build every plain counter there is."""
    return [
        counter(family, {labels: value for (found, labels), value in counts.items() if found == family}) for family in _PLAIN
    ]


def gauge(family: Family, values: Mapping[tuple[str, ...], float]) -> Any:
    """Build a gauge."""
    from prometheus_client.core import GaugeMetricFamily  # noqa: PLC0415 - only a scrape needs it

    built = GaugeMetricFamily(family.name, family.help, labels=family.labels)
    for labels, value in values.items():
        built.add_metric(list(labels), value)
    return built


def histogram(family: Family, observed: Observed) -> Any:
    """Build a histogram; Prometheus wants buckets cumulated."""
    from prometheus_client.core import HistogramMetricFamily  # noqa: PLC0415 - only a scrape needs it

    built = HistogramMetricFamily(family.name, family.help, labels=family.labels)
    for labels, counts, total, bounds in observed:
        names = [*(f"{bound:g}" for bound in bounds), "+Inf"]
        built.add_metric(list(labels), list(zip(names, accumulate(counts), strict=True)), total)
    return built


def queues(census: Census) -> list[Any]:
    """Build the gauges of every queue, and the slots per pool."""
    built = [
        gauge(family, {(stats.queue,): float(getattr(stats, field)) for stats in census.queues})
        for field, family in _QUEUE.items()
    ]
    pools: dict[tuple[str, ...], tuple[int, int, int]] = {}
    for worker in census.workers:
        key = (worker.pool, worker.state.value)
        slots, busy, count = pools.get(key, (0, 0, 0))
        pools[key] = (slots + worker.slots, busy + worker.busy, count + 1)
    return [
        *built,
        gauge(_POOL_SLOTS, {key: float(slots) for key, (slots, _, _) in pools.items()}),
        gauge(_POOL_BUSY, {key: float(busy) for key, (_, busy, _) in pools.items()}),
        gauge(_POOL_WORKERS, {key: float(count) for key, (_, _, count) in pools.items()}),
    ]

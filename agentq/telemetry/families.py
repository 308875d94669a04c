"""The metrics by name, label and meaning, and how plain numbers become families of prometheus_client."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import TYPE_CHECKING, Any, Final, TypeAlias

if TYPE_CHECKING:
    from agentq.brokers.base import Backlog
    from agentq.message import Census


@dataclass(frozen=True, slots=True)
class Family:
    """One metric. Durations and ages are seconds."""

    name: str
    help: str
    labels: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Seen:
    """What was last read of one queue in the broker."""

    queue: str
    backlog: Backlog | None = None
    """None while it could never be read."""
    age_s: float = 0.0
    failing: bool = False
    """Whether the newest look at it failed; then ``backlog`` is of an earlier one."""


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
BROKER_FAILURES: Final = Family("agentq_broker_failures", "Times the broker could not be reached, or refused.")
ADMITTED: Final = Family("agentq_intake_runs", "Runs that this worker took from the broker into the store.")
DUPLICATES: Final = Family("agentq_intake_duplicates", "Messages whose run the store had already.")
DEAD_LETTERS: Final = Family("agentq_intake_dead_letters", "Messages that could not become a run, kept as dead letters.")
RUN_DURATION: Final = Family("agentq_run_duration_seconds", "Running time of a claim, by how it ended.", (*_TASK, "outcome"))
STEP_DURATION: Final = Family("agentq_step_duration_seconds", "Duration of executed steps.", ("task", "step"))
SLOTS: Final = Family("agentq_worker_slots", "Runs that this worker can run at once.")
BUSY: Final = Family("agentq_worker_busy", "Slots that run something now.")
CENSUS_AGE: Final = Family("agentq_census_age_seconds", "Age of the figures of queues and pools.")

_PLAIN: Final = (
    *(CLAIMS, RESUMES, TAKEOVERS, RUN_RETRIES, LEASES_LOST, POISONED, TIMEOUTS),
    *(DRAINS, FENCED, HEARTBEAT_FAILURES, STORE_FAILURES, BROKER_FAILURES, ADMITTED, DUPLICATES, DEAD_LETTERS),
)
_QUEUE: Final = {
    "runnable": Family("agentq_queue_backlog", "Runs that a claim would return now.", ("queue",)),
    "oldest_age_s": Family("agentq_queue_oldest_age_seconds", "How long the oldest runnable run is runnable.", ("queue",)),
    "running": Family("agentq_queue_in_flight", "Runs in the hands of a worker.", ("queue",)),
    "delayed": Family("agentq_queue_delayed", "Runs queued for later: delays, and retries that wait their turn.", ("queue",)),
    "waiting": Family("agentq_queue_waiting", "Runs that wait for a timer, a signal or a child.", ("queue",)),
    "parked": Family("agentq_queue_parked", "Runs held back by a limit.", ("queue",)),
    "paused": Family("agentq_queue_paused", "Runs held by a person.", ("queue",)),
    "ordered": Family("agentq_queue_ordered", "Runs behind another one of their ordering key.", ("queue",)),
    "dead": Family("agentq_queue_dead_letters", "Messages that could not become a run, kept for a person.", ("queue",)),
}
"""Field of `QueueStats` to metric."""
_BROKER: Final = {
    "ready": Family("agentq_queue_broker_backlog", "Messages in the broker that a worker would receive now.", ("queue",)),
    "delayed": Family("agentq_queue_broker_delayed", "Messages that the broker delivers later.", ("queue",)),
    "taken": Family("agentq_queue_broker_in_flight", "Messages delivered and not yet acknowledged.", ("queue",)),
    "dead": Family("agentq_queue_broker_dead_letters", "Messages that the broker gave up delivering.", ("queue",)),
    "oldest_age_s": Family("agentq_queue_broker_oldest_age_seconds", "Age of the oldest message in the broker.", ("queue",)),
}
"""Field of `Backlog` to metric."""
_BROKER_AGE: Final = Family("agentq_queue_broker_age_seconds", "Age of the figures of the broker.", ("queue",))
_BROKER_ERROR: Final = Family(
    "agentq_queue_broker_error", "1 while the broker's figures cannot be read and older ones stand.", ("queue",)
)
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


def brokers(seen: Sequence[Seen]) -> list[Any]:
    """Build the gauges of every queue in the broker; one that could never be read has no figures, only the error."""
    known = [(one, one.backlog) for one in seen if one.backlog is not None]
    built = []
    for field, family in _BROKER.items():
        values = {(one.queue,): getattr(backlog, field) for one, backlog in known}
        built.append(gauge(family, {key: float(value) for key, value in values.items() if value is not None}))
    return [
        *built,
        gauge(_BROKER_AGE, {(one.queue,): one.age_s for one, _ in known}),
        gauge(_BROKER_ERROR, {(one.queue,): float(one.failing) for one in seen}),
    ]

"""The catalogue of events: stable names, their level, and the fields they may carry.

Names and fields are a promise: dashboards and alerts are written against them. Fields are flat, and never hold arguments,
results or any other value of the user's. Durations are seconds.
"""

from __future__ import annotations

from dataclasses import dataclass
from logging import DEBUG, ERROR, INFO, WARNING
from types import MappingProxyType
from typing import Final


@dataclass(frozen=True, slots=True, kw_only=True)
class Event:
    """One kind of thing that happens."""

    name: str
    level: int
    """A level of the standard library's ``logging``."""
    fields: tuple[str, ...]
    """Fields it may carry; which are present depends on what is known."""
    help: str
    """What happened, for a person who reads the log."""


_RUN = ("run_id", "task", "queue", "attempt", "epoch", "worker")
_STEP = ("run_id", "task", "queue", "epoch", "worker", "step", "branch", "occurrence", "attempt")
_WHY = ("reason", "error", "error_type")


def _event(name: str, level: int, fields: tuple[str, ...], text: str) -> Event:
    return Event(name=name, level=level, fields=fields, help=text)


_EVENTS: Final = (
    # The worker process.
    _event(
        "worker.started",
        INFO,
        ("worker", "app", "pool", "pod", "pid", "version", "slots", "queues", "tasks", "store", "process"),
        "a worker process began",
    ),
    _event("worker.ready", INFO, ("worker", "store", "duration_s"), "it reached the store for the first time"),
    _event("worker.draining", INFO, ("worker", "reason", "busy", "grace_s"), "it takes no more and hands back what it has"),
    _event("worker.stopped", INFO, ("worker", "reason", "runs", "duration_s", *_WHY), "it ended"),
    _event("worker.recycled", INFO, ("worker", "reason", "runs", "memory_mb", "limit_mb"), "it ends to give its memory back"),
    _event("worker.cordoned", INFO, ("worker", "state", "reason", "busy"), "an operator changed what it may claim"),
    _event("worker.fenced", ERROR, ("worker", "runs", "duration_s", *_WHY), "it stopped its runs before their leases ran out"),
    _event("worker.admission", WARNING, ("worker", "memory_mb", "limit_mb", *_WHY), "it claims nothing while memory is short"),
    _event(
        "worker.exited",
        WARNING,
        ("worker", "process", "pid", "code", "signal", "delay_s", *_WHY),
        "a worker process of ours died",
    ),
    _event(
        "worker.clock", WARNING, ("worker", "store", "apart_s"), "this machine's clock is wrong by so much; the store's counts"
    ),
    _event("worker.reloading", INFO, ("worker", "file", "reason"), "a source file changed, the worker starts anew"),
    # Its contact with the store.
    _event("heartbeat.failed", WARNING, ("worker", "failures", "duration_s", "margin_s", *_WHY), "leases could not be renewed"),
    _event("heartbeat.recovered", INFO, ("worker", "failures", "duration_s"), "leases are renewed again"),
    _event("store.unavailable", WARNING, ("worker", "store", "verb", "run_id", *_WHY), "the store cannot be reached for now"),
    _event("store.recovered", INFO, ("worker", "store", "run_id", "duration_s"), "the store answers again"),
    _event("store.swept", DEBUG, ("worker", "runs", "duration_s"), "final runs past their retention were deleted"),
    # What comes in through a broker.
    _event("broker.unavailable", WARNING, ("worker", "broker", "verb", "queue", *_WHY), "the broker cannot be reached for now"),
    _event("broker.recovered", INFO, ("worker", "broker", "queue", "duration_s"), "the broker answers again"),
    _event(
        "broker.refused",
        ERROR,
        ("worker", "broker", "verb", "queue", *_WHY),
        "the broker refused; a person has to change something",
    ),
    _event("broker.assigned", INFO, ("worker", "broker", "partitions"), "the partitions that this worker reads changed"),
    _event(
        "broker.gap",
        ERROR,
        ("worker", "broker", "queue", "partition", "expected", "found", *_WHY),
        "a log no longer has what was to be read next",
    ),
    _event(
        "broker.expiring",
        WARNING,
        ("worker", "broker", "queue", "age_s", "retention_s", *_WHY),
        "messages will be deleted by the broker before they are read",
    ),
    _event(
        "intake.admitted", DEBUG, ("worker", "broker", "runs", "duplicates", "letters", "duration_s"), "messages became rows"
    ),
    _event(
        "intake.dead_letter",
        WARNING,
        ("worker", "broker", "queue", "letter", "origin", *_WHY),
        "a message could not become a run; it is kept",
    ),
    _event("intake.handed_back", INFO, ("worker", "broker", "messages", *_WHY), "messages went back to the broker unread"),
    # A run.
    _event("run.claimed", INFO, (*_RUN, "wait_s", "steps", "key"), "a worker took a run that starts"),
    _event("run.resumed", INFO, (*_RUN, "wait_s", "steps", "entries", "key"), "a worker took a run that goes on"),
    _event("run.taken_over", WARNING, (*_RUN, "takeovers", "steps", "entries", "suspect"), "…whose last worker lost its lease"),
    _event("run.succeeded", INFO, (*_RUN, "duration_s", "steps", "tokens", "cost_usd"), "the task returned"),
    _event("run.failed", ERROR, (*_RUN, "duration_s", "steps", "step", "permanent", *_WHY), "the run failed for good"),
    _event("run.retrying", WARNING, (*_RUN, "duration_s", "delay_s", "step", *_WHY), "an attempt failed, another will follow"),
    _event("run.suspended", INFO, (*_RUN, "duration_s", "waits", "due_s"), "every branch waits; the slot is free"),
    _event("run.released", INFO, (*_RUN, "duration_s", "steps", *_WHY), "handed back, to go on elsewhere"),
    _event("run.cancelled", INFO, (*_RUN, "duration_s", *_WHY), "cancelled, and its code has ended"),
    _event(
        "run.crashed", ERROR, (*_RUN, "duration_s", "deaths", "code", "signal", *_WHY), "the process that ran it alone died"
    ),
    _event("run.lost", WARNING, (*_RUN, "duration_s", *_WHY), "another epoch owns it: this attempt was stopped"),
    _event("run.poisoned", ERROR, (*_RUN, "deaths", "losses", *_WHY), "it killed its process too often without progress"),
    _event(
        "run.timed_out", WARNING, (*_RUN, "duration_s", "timeout_s", "limit", *_WHY), "its running time or deadline is over"
    ),
    _event(
        "run.abandoned", ERROR, (*_RUN, "duration_s", "grace_s", *_WHY), "its code would not end; the lease runs out instead"
    ),
    # A step.
    _event("step.done", DEBUG, (*_STEP, "duration_s", "tokens", "cost_usd"), "a step's value is recorded"),
    _event("step.failed", WARNING, (*_STEP, "duration_s", *_WHY), "a step's last try failed"),
    _event("step.retrying", INFO, (*_STEP, "duration_s", "delay_s", *_WHY), "a step's try failed, another will follow"),
    _event("step.replayed", DEBUG, (*_STEP,), "a recorded value was used, nothing was executed"),
    _event("step.interrupted", WARNING, (*_STEP, "policy", *_WHY), "an at-most-once step may have happened"),
    # What joins runs together.
    _event("signal.received", INFO, (*_STEP, "signal"), "a wait got the signal it waited for"),
    _event("signal.refused", WARNING, (*_STEP, "signal", *_WHY), "a signal was not of the type that the run waits for"),
    _event("child.started", INFO, (*_STEP, "child"), "a run started another"),
    _event(
        "journal.mismatch", ERROR, (*_STEP, "seq", "expected", "found", "policy", *_WHY), "the code no longer fits the journal"
    ),
)

CATALOGUE: Final = MappingProxyType({event.name: event for event in _EVENTS})
"""Event name to event."""

LEVELS: Final = {event.name: event.level for event in _EVENTS}
"""Event name to log level; a plain dict, because it is read for every step."""

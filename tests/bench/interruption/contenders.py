"""Who is measured: each library in its default setting, and in the best that its documentation knows for long tasks."""

from __future__ import annotations

import sys
from dataclasses import dataclass, field
from pathlib import Path

from tests.bench.interruption.venvs import python_with

HERE = "tests.bench.interruption"
SLOTS = 4
VISIBILITY_S = 30
ABOVE_TASK_S = 120
"""A visibility timeout longer than the longest task takes."""

CELERY = ("celery[sqs]==5.7.0", "kombu==5.7.0", "pycurl==7.49.0", "boto3==1.44.5")
DRAMATIQ = ("dramatiq==2.2.1", "dramatiq-sqs==0.4.4", "boto3==1.44.5")
TASKIQ = ("taskiq==0.13.0", "taskiq-aio-sqs==2.1.1", "aiobotocore==3.10.0")


@dataclass(frozen=True, slots=True, kw_only=True)
class Contender:
    """One library in one setting."""

    name: str
    shown: str
    """For people: what is set."""
    module: str
    """Where its task is; run as a program with a number it sends so many."""
    worker: tuple[str, ...]
    """The worker's arguments after the interpreter."""
    setting: str = "default"
    visibility_s: int = VISIBILITY_S
    """Of the queue."""
    requirements: tuple[str, ...] = ()
    """What its environment holds; empty: the environment of the bench itself."""
    environment: dict[str, str] = field(default_factory=dict)

    @property
    def library(self) -> str:
        """The first word of the name."""
        return self.name.partition("-")[0]

    def python(self) -> Path:
        """The interpreter with the library in it.

        Raises:
            VenvError: it cannot be installed here.
        """
        return python_with(self.library, self.requirements) if self.requirements else Path(sys.executable)


def _celery(
    setting: str, shown: str, *, visibility_s: int = VISIBILITY_S, environment: dict[str, str] | None = None
) -> Contender:
    module = f"{HERE}.peer_celery"
    return Contender(
        name=f"celery-{setting}",
        shown=f"Celery, {shown}",
        module=module,
        worker=("-m", "celery", "-A", module, "worker", "--loglevel", "INFO", "--concurrency", str(SLOTS)),
        setting=setting,
        visibility_s=visibility_s,
        requirements=CELERY,
        environment=environment or {},
    )


def _dramatiq(
    setting: str, shown: str, *, visibility_s: int = VISIBILITY_S, environment: dict[str, str] | None = None
) -> Contender:
    module = f"{HERE}.peer_dramatiq"
    return Contender(
        name=f"dramatiq-{setting}",
        shown=f"Dramatiq, {shown}",
        module=module,
        worker=("-m", "dramatiq", module, "--processes", "1", "--threads", str(SLOTS)),
        setting=setting,
        visibility_s=visibility_s,
        requirements=DRAMATIQ,
        environment=environment or {},
    )


def _taskiq(setting: str, shown: str) -> Contender:
    module = f"{HERE}.peer_taskiq"
    return Contender(
        name=f"taskiq-{setting}",
        shown=f"Taskiq, {shown}",
        module=module,
        worker=("-m", "taskiq", "worker", f"{module}:broker", "--workers", "1", "--max-async-tasks", str(SLOTS)),
        setting=setting,
        requirements=TASKIQ,
    )


ALL: tuple[Contender, ...] = (
    Contender(
        name="agentq",
        shown="agentq, SQS + PostgreSQL, defaults",
        module=f"{HERE}.ours",
        worker=("-m", "agentq", "worker", f"{HERE}.ours:aq", "--concurrency", str(SLOTS)),
    ),
    _celery("default", "defaults"),
    _celery("late", "acks_late, reject_on_worker_lost, prefetch 1"),
    _celery(
        "best",
        f"the same, visibility timeout {ABOVE_TASK_S} s, soft shutdown",
        visibility_s=ABOVE_TASK_S,
        environment={"REMAP_SIGTERM": "SIGQUIT"},
    ),
    _dramatiq("default", "defaults (visibility timeout 12 h)"),
    _dramatiq("queue", f"visibility timeout {VISIBILITY_S} s"),
    _dramatiq(
        "best",
        f"visibility timeout {ABOVE_TASK_S} s, no prefetch, notify_shutdown",
        visibility_s=ABOVE_TASK_S,
        environment={"dramatiq_queue_prefetch": str(SLOTS)},
    ),
    _taskiq("default", "defaults"),
    _taskiq("best", "heartbeat"),
)

"""How long a run may still run, purely: its own timeout and that of its attempt, in seconds of running time."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from agentq.message import Run
    from agentq.task import TaskSpec


def timeout_of(run: Run, spec: TaskSpec) -> float | None:
    """The run's timeout over all its attempts: the submission's, else the task's."""
    return run.timeout_s if run.timeout_s is not None else spec.timeout_s


def time_left(run: Run, spec: TaskSpec) -> float | None:
    """What is left of that timeout at the beginning of this claim; None without one."""
    timeout = timeout_of(run, spec)
    return None if timeout is None else max(0.0, timeout - run.running_s)


def ends_within(run: Run, spec: TaskSpec) -> float | None:
    """After how long the code must have ended, counted from the claim; None if it need not."""
    return min((span for span in (time_left(run, spec), spec.attempt_timeout_s) if span is not None), default=None)

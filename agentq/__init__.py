"""Long AI-agent tasks that resume at their last step.

Declare tasks with `AgentQ.task` and steps with `AgentQ.step`; enqueue them, run ``agentq worker``, and ask their `RunHandle`.
"""

from agentq.app import AgentQ
from agentq.budget import Budget
from agentq.context import Context, Current, Outcome, SyncContext, Transcript, current
from agentq.errors import (
    AgentQError,
    BudgetExceeded,
    ChildFailed,
    InvalidArgument,
    KeyConflict,
    PermanentError,
    RunCancelled,
    RunFailed,
    StepFailed,
    TemporaryError,
    WaitTimeout,
)
from agentq.handle import RunEvent, RunHandle, RunStatus
from agentq.retry import Retry
from agentq.signal import Signal

__all__ = [
    "AgentQ",
    "AgentQError",
    "Budget",
    "BudgetExceeded",
    "ChildFailed",
    "Context",
    "Current",
    "InvalidArgument",
    "KeyConflict",
    "Outcome",
    "PermanentError",
    "Retry",
    "RunCancelled",
    "RunEvent",
    "RunFailed",
    "RunHandle",
    "RunStatus",
    "Signal",
    "StepFailed",
    "SyncContext",
    "TemporaryError",
    "Transcript",
    "WaitTimeout",
    "current",
]

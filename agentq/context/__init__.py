"""What a task is given: steps, branches, waits, children, memory and money of its run."""

from agentq.context.awaiting import Context
from agentq.context.blocking import SyncContext
from agentq.context.current import Current, current
from agentq.context.outcome import UNSET, Outcome, Unset
from agentq.context.transcript import SyncTranscript, Transcript

__all__ = ["UNSET", "Context", "Current", "Outcome", "SyncContext", "SyncTranscript", "Transcript", "Unset", "current"]

"""Values that cross walls: what a producer submits, a store keeps, a worker claims and a reader sees.

All are frozen. Times are float seconds since the Unix epoch (UTC) unless a name ends in ``_s`` (a duration in seconds).
JSON payloads are ``bytes`` exactly as the codec wrote them. Money is whole nano-dollars (1e-9 USD), so that sums are exact.
"""

from agentq.message.claim import Arrival, Beat, Claim, ClaimRef, ClaimRequest, Claims
from agentq.message.command import Cancel, Command, DropLetters, Fork, Pause, Reply, Requeue, Resume, Send, SetWorker
from agentq.message.intake import Admission, DeadLetter, LetterQuery, Position
from agentq.message.journal import Chunk, Entry, EntryKind, Wait, WaitKind
from agentq.message.run import Census, QueueStats, Run, RunQuery, Worker, WorkerState
from agentq.message.state import FINAL, Failure, RunState
from agentq.message.wire import WIRE_VERSION, Envelope, Submitted, broker_run_id, child_run_id, keyed_run_id, new_run_id
from agentq.message.write import Cancelled, Crashed, Failed, Released, Retried, Settlement, Succeeded, Suspended, Verdict, Write

__all__ = [
    "FINAL",
    "WIRE_VERSION",
    "Admission",
    "Arrival",
    "Beat",
    "Cancel",
    "Cancelled",
    "Census",
    "Chunk",
    "Claim",
    "ClaimRef",
    "ClaimRequest",
    "Claims",
    "Command",
    "Crashed",
    "DeadLetter",
    "DropLetters",
    "Entry",
    "EntryKind",
    "Envelope",
    "Failed",
    "Failure",
    "Fork",
    "LetterQuery",
    "Pause",
    "Position",
    "QueueStats",
    "Released",
    "Reply",
    "Requeue",
    "Resume",
    "Retried",
    "Run",
    "RunQuery",
    "RunState",
    "Send",
    "SetWorker",
    "Settlement",
    "Submitted",
    "Succeeded",
    "Suspended",
    "Verdict",
    "Wait",
    "WaitKind",
    "Worker",
    "WorkerState",
    "Write",
    "broker_run_id",
    "child_run_id",
    "keyed_run_id",
    "new_run_id",
]

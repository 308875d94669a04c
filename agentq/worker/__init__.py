"""The worker: claims runs, runs them step by step, hands them on."""

from agentq.worker.report import WorkerReport
from agentq.worker.worker import Worker

__all__ = ["Worker", "WorkerReport"]

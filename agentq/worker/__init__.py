"""The worker: claims runs, runs them step by step, hands them on."""

from agentq.worker.worker import Worker, WorkerReport

__all__ = ["Worker", "WorkerReport"]

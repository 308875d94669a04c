"""A claimed run that this process cannot even take up, such as one with a broken journal: it fails, and says why."""

from __future__ import annotations

from agentq.failure import failure_from
from agentq.message import Claim, Failed, Verdict, Write
from agentq.stores.base import Store
from agentq.telemetry import emit
from agentq.worker.ends import End
from agentq.worker.ledger import Lease, Stop, deliver


class Unusable:
    """Stands in its slot until its failure is written; there is no code to stop."""

    unsaved_s = 0.0

    def __init__(self, claim: Claim, lease: Lease, store: Store, error: Exception) -> None:
        """``error`` is what came of trying."""
        self._claim = claim
        self._lease = lease
        self._store = store
        self._error = error

    async def work(self) -> End:
        """Settle the run as failed for good."""
        run, failure = self._claim.run, failure_from(self._error)
        write = Write(ref=self._claim.ref, settle=Failed(failure=failure))
        verdict, _ = await deliver(self._store, self._lease, write)
        if verdict is not Verdict.COMMITTED:
            emit("run.lost", run_id=run.id, task=run.task, epoch=self._claim.ref.epoch, reason=failure.message)
            return End.LOST
        emit("run.failed", run_id=run.id, task=run.task, queue=run.queue, attempt=run.attempt, error=failure.type,
             reason=failure.message)  # fmt: skip
        return End.FAILED

    def stop(self, stop: Stop, reason: str) -> None:
        """Nothing runs."""

    def give_up(self) -> None:
        """Nothing runs."""

    def hurry(self) -> None:
        """Nothing runs."""

    def arrived(self) -> None:
        """Nothing waits."""

"""The slots of a worker: claims runs for free ones, starts them, and knows which are busy."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from agentq.clock import Clock
from agentq.message import Claim, ClaimRequest
from agentq.poison import poisoned
from agentq.settings import WorkerSettings
from agentq.stores.base import Store
from agentq.telemetry import emit
from agentq.worker.ends import End
from agentq.worker.host import ExecutionOptions
from agentq.worker.isolate import Isolated, can_isolate
from agentq.worker.leases import Heart, Held
from agentq.worker.ledger import Stop
from agentq.worker.limits import ends_within
from agentq.worker.unusable import Unusable
from agentq.worker.verbs import LiveRun

if TYPE_CHECKING:
    from agentq.app import AgentQ

MAX_SUSPECTS = 2
"""Runs whose last worker died are tried in processes of their own, so many at a time."""


class Working(Protocol):
    """A run in a slot, in this process or in one of its own."""

    async def work(self) -> End:
        """Run to the end of this claim."""
        ...

    def stop(self, stop: Stop, reason: str) -> None:
        """End the code."""
        ...

    def hurry(self) -> None:
        """Do not wait for step bodies any more."""
        ...

    def give_up(self) -> None:
        """The claim is unsafe and the store silent: wait no longer for its word on the outcome."""
        ...

    @property
    def unsaved_s(self) -> float:
        """Seconds of work since the last journal entry."""
        ...

    def arrived(self) -> None:
        """Something came that a wait of the run waits for."""
        ...


@dataclass(slots=True, eq=False)
class Slot:
    """A busy slot."""

    claim: Claim
    held: Held
    working: Working
    alone: bool


class Pool:
    """Slots, and nothing else."""

    def __init__(
        self,
        app: AgentQ,
        store: Store,
        clock: Clock,
        heart: Heart,
        settings: WorkerSettings,
        worker_id: str,
        *,
        root: str | None,
        started: Callable[[Working], None],
        ended: Callable[[Claim, End], None],
    ) -> None:
        """``started`` and ``ended`` are called for each run; ``root`` limits claims to one run and its descendants."""
        self._started = started
        self._app = app
        self._store = store
        self._clock = clock
        self._heart = heart
        self._settings = settings
        self._worker_id = worker_id
        self._root = root
        self._ended = ended
        self._options = ExecutionOptions(grace_s=settings.grace_s)
        self._tasks: set[asyncio.Task[None]] = set()
        self.slots: dict[str, Slot] = {}
        weights = dict(settings.queues) or dict.fromkeys(app.queues, 1)
        self.queues = tuple(weights)
        self._weights = weights
        self._known = tuple(sorted(app.tasks))
        self._versions = {name: task.spec.version for name, task in app.tasks.items() if task.spec.version is not None}

    @property
    def busy(self) -> int:
        """Slots with a run."""
        return len(self.slots)

    async def fill(self, most: int) -> tuple[int, float | None]:
        """Claim runs for up to ``most`` free slots and start them; (how many, seconds until the next is due).

        Raises:
            StoreUnavailable: nothing was claimed, as far as is known.

        """
        suspects = sum(slot.alone for slot in self.slots.values()) < MAX_SUSPECTS
        sent = self._clock.steady()
        claims = await self._store.claim(
            ClaimRequest(
                worker=self._worker_id,
                app=self._app.name,
                queues=self._order(),
                tasks=self._known,
                limit=min(most, self._settings.concurrency - self.busy),
                lease_s=self._settings.lease_s,
                version=self._versions,
                suspects=suspects,
                root=self._root,
            )
        )
        for claim in claims.claims:
            self._start(claim, sent)
        return len(claims.claims), claims.next_due_s

    def stop_all(self, stop: Stop, reason: str) -> None:
        """Stop every run."""
        for slot in list(self.slots.values()):
            slot.working.stop(stop, reason)

    def hurry_all(self) -> None:
        """Wait for no step body any more."""
        for slot in list(self.slots.values()):
            slot.working.hurry()

    def unsaved(self) -> dict[str, float]:
        """Run id to seconds of work that a kill would lose."""
        return {run_id: slot.working.unsaved_s for run_id, slot in list(self.slots.items())}

    async def empty(self) -> None:
        """Wait until every slot is free."""
        while self._tasks:
            await asyncio.wait(self._tasks)

    def _order(self) -> tuple[str, ...]:
        """Queues in the order in which to ask them: a random one by weight first (Efraimidis and Spirakis 2006)."""
        if len(self.queues) == 1:
            return self.queues
        drawn = sorted(self.queues, key=lambda name: random.random() ** (1.0 / self._weights[name]), reverse=True)  # noqa: S311
        return tuple(drawn)

    def _start(self, claim: Claim, sent: float) -> None:
        held = self._heart.hold(claim.ref, sent)
        run = claim.run
        task = self._app.find(run.task)
        apart = (run.suspect or task.spec.isolate) and not poisoned(run.deaths, run.losses)  # settled without running
        working: Working
        if apart and can_isolate(self._app, self._store):
            working = Isolated(self._app, task, claim, held, self._store, self._clock, self._settings)
        else:
            try:
                working = LiveRun(task, claim, held, self._store, self._clock, self._options)
            except ValueError as error:
                working = Unusable(claim, held, self._store, error)
        span = ends_within(run, task.spec) if isinstance(working, LiveRun) else None
        held.limit_at = None if span is None else self._clock.steady() + span + self._settings.grace_s
        if claim.taken_over:
            emit("run.taken_over", run_id=run.id, task=run.task, queue=run.queue, takeovers=run.takeovers, suspect=run.suspect)
        slot = Slot(claim, held, working, alone=run.suspect and isinstance(working, Isolated))
        self.slots[run.id] = slot
        self._started(working)
        job = asyncio.get_running_loop().create_task(self._work(slot))
        self._tasks.add(job)
        job.add_done_callback(self._tasks.discard)

    async def _work(self, slot: Slot) -> None:
        end = End.LOST
        try:
            end = await slot.working.work()
        except Exception as error:  # noqa: BLE001 - a defect of ours must cost one run its lease, not the worker
            emit("run.lost", run_id=slot.claim.run.id, task=slot.claim.run.task, reason="internal error", error=repr(error))
        finally:
            self._heart.let_go(slot.held)
            if self.slots.get(slot.claim.run.id) is slot:
                del self.slots[slot.claim.run.id]
            self._ended(slot.claim, end)

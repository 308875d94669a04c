"""A worker process: contact with the store, slots, drain and recycling, from its first claim to its last hand-over."""

from __future__ import annotations

import asyncio
import os
import secrets
import socket
from collections import Counter
from contextlib import AsyncExitStack
from typing import TYPE_CHECKING, Any

from agentq import settings as settings_module
from agentq.clock import Clock
from agentq.errors import StoreError
from agentq.message import Beat, Claim, ClaimRef, WorkerState
from agentq.message import Worker as Row
from agentq.settings import WorkerSettings
from agentq.telemetry import emit
from agentq.telemetry.outage import outage_of
from agentq.worker.admission import Door, over
from agentq.worker.drain import Drain
from agentq.worker.ends import End
from agentq.worker.inflow import Inflow
from agentq.worker.leases import Heart
from agentq.worker.ledger import Stop
from agentq.worker.pool import Pool
from agentq.worker.report import WorkerReport
from agentq.worker.store_clock import StoreClock
from agentq.worker.sweeping import sweep

if TYPE_CHECKING:
    from agentq.app import AgentQ

_ONE_POLL_S = 2.0
"""Of a worker for a single run: its process is to end soon after it."""
_BACKOFF_S = (0.1, 0.2, 0.5, 1.0, 2.0, 5.0)
_CLAIM_S = 1.0
"""For a claim under way when a drain begins."""
_LEAVE_S = 5.0
_LEAVE_UNHEARD_S = 1.0
"""For taking our row away; the second where the last heartbeat had no answer, either."""


class Worker:
    """Works on the runs of an open app until it is drained. One use: create, `run`."""

    def __init__(
        self,
        app: AgentQ,
        settings: WorkerSettings | None = None,
        *,
        root: str | None = None,
        one: bool = False,
        patience_s: float = 0.0,
        clock: Clock | None = None,
    ) -> None:
        """Prepare; nothing is claimed yet.

        Args:
            app: open, or opened by the time `run` is awaited.
            settings: default from the environment.
            root: only this run and its descendants.
            one: claim a single run, and end with it.
            patience_s: how long to look for that one.
            clock: simulated in tests.

        """
        self.id = secrets.token_hex(8)
        self._app = app
        self._settings = settings or settings_module.load().worker
        self._root = root
        self._one = one
        self._clock = clock or StoreClock()
        self._patience_until = self._clock.steady() + patience_s
        self._ends: Counter[End] = Counter()
        self._last: tuple[str, End] | None = None
        self._recycle = ""
        self._cordoned = False
        self._started_at = self._clock.wall()
        self._reached = False
        self._store_error = ""
        self._door = Door(self.id, self._settings.admit_memory)
        self._loop: asyncio.AbstractEventLoop | None = None
        self._stir: asyncio.Event | None = None
        self._heart: Heart | None = None
        self._pool: Pool | None = None
        self._inflow: Inflow | None = None
        self._serving: asyncio.Task[None] | None = None
        self._drain = Drain(self._settings.drain_s)

    async def run(self) -> WorkerReport:
        """Claim and work until drained, and hand back what is left.

        Raises:
            NotOpen: the app is not open.

        """
        store = self._app.store
        self._loop, self._stir = asyncio.get_running_loop(), asyncio.Event()
        emit("worker.started", worker=self.id, app=self._app.name, pool=self._settings.pool, pid=os.getpid(),
             slots=self._settings.concurrency, queues=[name for name, _ in self._settings.queues] or self._app.queues,
             tasks=len(self._app.tasks), store=store.where)  # fmt: skip
        async with AsyncExitStack() as stack:
            if self._app.lifespan is not None:
                await stack.enter_async_context(self._app.lifespan(self._app))
            heart = self._heart = Heart(
                store, self._clock, heartbeat_s=self._settings.heartbeat_s, lease_s=self._settings.lease_s,
                fence_s=self._settings.fence_s, row=self._row, deliver=self._heard, fenced=self._fenced,
            )  # fmt: skip
            pool = self._pool = Pool(
                self._app, store, self._clock, heart, self._settings, self.id, root=self._root, started=self._drain.join,
                ended=self._run_ended,
            )  # fmt: skip
            self._drain.attach(pool, self._stir.set)
            if isinstance(self._clock, StoreClock):
                await self._clock.compare(store, self.id)
            heart.start()
            inflow = self._inflow = Inflow(
                self._app, pool.queues, self._clock, worker=self.id, drain_s=self._settings.drain_s,
                poll_s=_ONE_POLL_S if self._one else None,
            )  # fmt: skip
            if self._root is None:
                inflow.start()
            watching = [asyncio.create_task(self._watch()), asyncio.create_task(sweep(store, self.id))]
            if isinstance(self._clock, StoreClock):
                watching.append(asyncio.create_task(self._clock.keep(store, self.id)))
            try:
                await self._work(pool, inflow)
            finally:
                for task in watching:
                    task.cancel()
                await asyncio.wait(watching)
                await heart.stop()
                await self._leave()
        report = self._report()
        emit("worker.recycled" if self._recycle else "worker.stopped", worker=self.id, runs=report.runs,
             reason=self._recycle or self._drain.reason)  # fmt: skip
        return report

    def drain(self, reason: str = "asked to") -> None:
        """Claim no more, stop each run at its next step, hand it back. Thread-safe; the second call changes nothing."""
        self._from_anywhere(self._drain_now, reason)

    def abort(self, reason: str = "asked to stop at once") -> None:
        """Drain without waiting for step bodies. Thread-safe."""
        self._from_anywhere(self._abort_now, reason)

    @property
    def ready(self) -> bool:
        """Whether the store was reached once and the worker is not draining; a hiccup of the store changes nothing."""
        return self._reached and not self._drain.handing_over

    def alive(self) -> tuple[bool, str]:
        """Whether the heartbeat thread turns and the event loop is not blocked for longer than its runs allow."""
        return self._heart.alive() if self._heart is not None else (True, "starting")

    def status(self) -> dict[str, Any]:
        """The worker and its dependencies at this moment, as JSON-able data."""
        heart, pool, now = self._heart, self._pool, self._clock.steady()
        beaten = heart.beaten_at if heart is not None else None
        return {
            "worker": self.id,
            "app": self._app.name,
            "pool": self._settings.pool,
            "pid": os.getpid(),
            "state": self._state(),
            "ready": self.ready,
            "slots": self._settings.concurrency,
            "busy": pool.busy if pool is not None else 0,
            "runs": pool.unsaved() if pool is not None else {},
            "done": sum(self._ends.values()),
            "store": {
                "where": self._app.store.where,
                "ok": heart is not None and heart.failures == 0 and self._reached and not self._store_error,
                "error": (heart.error if heart is not None else "") or self._store_error,
                "last_heartbeat_s": None if beaten is None else round(now - beaten, 3),
            },
            "event_loop": {"answered_s": round(heart.lag_s, 3) if heart is not None else None},
            "admission": "open" if self._door.is_open else "closed: memory is short",
        }

    async def _work(self, pool: Pool, inflow: Inflow) -> None:
        """Serve until the drain begins, then let broker and runs go side by side."""
        serving = self._serving = asyncio.create_task(self._serve(pool, inflow))
        try:
            await asyncio.wait({serving})
        finally:
            serving.cancel()
        if not serving.cancelled():
            serving.result()
        leaving = asyncio.create_task(inflow.finish())
        await self._drain.finish()
        await leaving

    async def _serve(self, pool: Pool, inflow: Inflow) -> None:
        """Fill free slots whenever one is free and something may be there, until the worker is to end."""
        assert self._stir is not None  # noqa: S101 - set by run, for mypy
        failures = 0
        while not self._over(pool):
            self._stir.clear()
            wait: float = self._settings.poll_s
            free = self._room(pool)
            if free is None:
                inflow.close()
            elif not free:
                inflow.want(0)
            else:
                try:
                    taken, due = await pool.fill(free)
                except StoreError as error:
                    inflow.close()
                    self._trouble(error)
                    wait = _BACKOFF_S[min(failures, len(_BACKOFF_S) - 1)]
                    failures += 1
                else:
                    self._in_contact()
                    failures = self._well(failures)
                    inflow.want(free - taken)
                    if self._one and (taken or self._clock.steady() >= self._patience_until):
                        self._drain.request("one run", stop=None)
                        continue
                    if taken == free and pool.busy < self._settings.concurrency:
                        continue
                    wait = min(wait, due) if due is not None else wait
            await self._pause(wait)

    def _room(self, pool: Pool) -> int | None:
        """How many slots are free; None while nothing may be claimed."""
        if self._cordoned or self._recycle or not self._door.open():
            return None
        return 1 if self._one else self._settings.concurrency - pool.busy

    def _over(self, pool: Pool) -> bool:
        if self._recycle and not pool.busy:
            self._drain.request(self._recycle, stop=None)
        return self._drain.requested

    async def _pause(self, wait_s: float) -> None:
        assert self._stir is not None and self._loop is not None  # noqa: S101, PT018 - set by run, for mypy
        timer = self._loop.call_later(max(wait_s, 0.0), self._stir.set)
        await self._stir.wait()
        timer.cancel()

    async def _watch(self) -> None:
        """Turn the store's bell into a look for work, and into an early heartbeat: a command may have come."""
        assert self._stir is not None and self._heart is not None  # noqa: S101, PT018 - set by run, for mypy
        store, tick = self._app.store, -1
        while True:
            try:
                heard = await store.watch("work", tick, self._settings.poll_s)
            except StoreError:
                await asyncio.sleep(self._settings.poll_s)
                continue
            if heard != tick:
                tick = heard
                self._stir.set()
                if self._pool is not None and self._pool.busy:
                    self._heart.poke()

    def _row(self) -> Row:
        """This worker as a row of the store; called in the heart's thread."""
        pool, given = self._pool, self._settings
        return Row(
            id=self.id,
            pool=given.pool,
            app=self._app.name,
            version=given.version,
            host=socket.gethostname(),
            pod=given.pod,
            pid=os.getpid(),
            slots=given.concurrency,
            busy=pool.busy if pool is not None else 0,
            queues=pool.queues if pool is not None else (),
            tasks=tuple(sorted(self._app.tasks)),
            runs=pool.unsaved() if pool is not None else {},
            state=WorkerState.DRAINING if self._drain.handing_over else WorkerState.ACTIVE,
            started_at=self._started_at,
            seen_at=self._clock.wall(),
        )

    def _heard(self, beat: Beat) -> None:
        """Obey what a heartbeat brought back."""
        self._in_contact()
        pool = self._pool
        if pool is None:
            return
        for ref in beat.lost:
            self._stop_run(pool, ref, Stop.LOST, "another worker owns it")
        for run_id in beat.cancel:
            if slot := pool.slots.get(run_id):
                slot.working.stop(Stop.CANCEL, "cancelled")
        for run_id in beat.pause:
            if slot := pool.slots.get(run_id):
                slot.working.stop(Stop.PAUSE, "paused")
        for run_id in beat.arrivals:
            if slot := pool.slots.get(run_id):
                slot.working.arrived()
        self._obey(beat.state)

    def _in_contact(self) -> None:
        if not self._reached:
            self._reached = True
            emit("worker.ready", worker=self.id, store=self._app.store.where)

    def _obey(self, state: WorkerState) -> None:
        cordoned = state is WorkerState.CORDONED
        if cordoned != self._cordoned and not self._drain.handing_over:
            self._cordoned = cordoned
            emit("worker.cordoned", worker=self.id, state=str(state), busy=self._pool.busy if self._pool else 0)
            if self._stir is not None:
                self._stir.set()
        if state is WorkerState.DRAINING and not self._drain.handing_over:
            self._drain_now("an operator drained it")

    def _fenced(self, refs: list[ClaimRef]) -> None:
        if self._pool is not None:
            for ref in refs:
                self._stop_run(self._pool, ref, Stop.LOST, "its lease was not confirmed in time")
                slot = self._pool.slots.get(ref.run_id)
                if slot is not None and slot.held.ref.token == ref.token:
                    slot.working.give_up()

    @staticmethod
    def _stop_run(pool: Pool, ref: ClaimRef, stop: Stop, reason: str) -> None:
        slot = pool.slots.get(ref.run_id)
        if slot is not None and slot.held.ref.token == ref.token:
            slot.working.stop(stop, reason)

    def _run_ended(self, claim: Claim, end: End) -> None:
        self._ends[end] += 1
        self._last = (claim.run.id, end)
        given = self._settings
        if not self._recycle:
            if given.max_runs is not None and sum(self._ends.values()) >= given.max_runs:
                self._recycle = f"{given.max_runs} runs"
            elif use := over(given.max_memory):
                self._recycle = f"memory at {use.share:.0%} of its limit"
            elif end is End.ABANDONED:
                self._recycle = "code that does not end"
        if self._stir is not None:
            self._stir.set()

    def _drain_now(self, reason: str) -> None:
        if not self._drain.handing_over:
            emit("worker.draining", worker=self.id, reason=reason, busy=self._pool.busy if self._pool else 0,
                 grace_s=self._settings.drain_s)  # fmt: skip
            if self._serving is not None and self._loop is not None:
                self._loop.call_later(_CLAIM_S, self._serving.cancel)  # the store hands back what a late answer brings
        self._drain.request(reason, stop=Stop.DRAIN)

    def _abort_now(self, reason: str) -> None:
        self._drain_now(reason)
        self._drain.hurry()
        if self._inflow is not None:
            self._inflow.hurry()

    async def _leave(self) -> None:
        """Take our row away, unless code of ours still runs: then its lease must run out first."""
        if self._ends[End.ABANDONED]:
            return
        try:
            well = self._heart is not None and self._heart.well
            await asyncio.wait_for(self._app.store.leave(self.id), _LEAVE_S if well else _LEAVE_UNHEARD_S)
        except (StoreError, TimeoutError) as error:
            outage_of(self._app.store).met(error, verb="leave", worker=self.id)

    def _report(self) -> WorkerReport:
        return WorkerReport(
            runs=sum(self._ends.values()),
            ends=dict(self._ends),
            recycled=bool(self._recycle),
            abandoned=self._ends[End.ABANDONED],
            last=self._last,
        )

    def _state(self) -> str:
        if self._drain.handing_over:
            return "draining"
        return "cordoned" if self._cordoned else "active"

    def _trouble(self, error: StoreError) -> None:
        self._store_error = str(error)
        outage_of(self._app.store).met(error, verb="claim", worker=self.id)

    def _well(self, failures: int) -> int:
        if failures:
            self._store_error = ""
        outage_of(self._app.store).over(worker=self.id)
        return 0

    def _from_anywhere(self, fn: Any, reason: str) -> None:
        if self._loop is None:
            fn(reason)
        elif not self._loop.is_closed():
            self._loop.call_soon_threadsafe(fn, reason)

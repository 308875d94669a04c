"""Ownership kept alive: a thread of its own renews the claims, hears commands, and stops runs before others may take them."""

from __future__ import annotations

import asyncio
import contextlib
import os
import threading
from collections.abc import Callable
from dataclasses import dataclass

from agentq.clock import Clock
from agentq.message import Beat, ClaimRef, Worker
from agentq.stores.base import WorkerStore
from agentq.telemetry import emit

EXIT_STUCK = 75
"""Exit code of a worker whose code blocks the event loop past its timeout (EX_TEMPFAIL)."""
BLOCKED_S = 3600.0
"""A blocked event loop is tolerated so long where no run has a timeout."""
_POKE_S = 0.5
"""Beats asked for out of turn come at most so often."""
_BEAT_TIMEOUT_S = 10.0
_LATE_S = 2.0
"""Beyond a heartbeat's pause, its answer is late."""
_TOGETHER_S = 0.2
"""Claims that become unsafe within so long are stopped, and told, together."""
_STUCK_S = 1.0
"""A loop that did not answer for less is busy, not blocked."""


@dataclass(slots=True, eq=False)
class Held:
    """A claim in our hands. Written by the heart's thread and by the event loop, a field at a time."""

    ref: ClaimRef
    clock: Clock
    fence_s: float
    confirmed_at: float
    """Steady time at which the last successful claim or heartbeat was sent."""
    limit_at: float | None = None
    """Steady time at which the run's own timeout, with its grace, is over."""
    lost: bool = False

    def fenced(self) -> bool:
        """Whether nothing may be written under this claim any more."""
        return self.lost or self.clock.steady() - self.confirmed_at >= self.fence_s


class Heart:
    """The heartbeat of one worker.

    It runs in its own thread with its own event loop, so that a task that blocks the worker's loop does not lose its lease.
    Answers are delivered on the worker's loop.
    """

    def __init__(
        self,
        store: WorkerStore,
        clock: Clock,
        *,
        heartbeat_s: float,
        lease_s: float,
        fence_s: float,
        row: Callable[[], Worker],
        deliver: Callable[[Beat], None],
        fenced: Callable[[list[ClaimRef]], None],
        give_up: Callable[[str], None] | None = None,
    ) -> None:
        """``row`` is called in the heart's thread; ``deliver`` and ``fenced`` on the worker's loop.

        ``give_up`` ends the process; tests pass their own.
        """
        self._store = store
        self._clock = clock
        self._heartbeat_s = heartbeat_s
        self._lease_s = lease_s
        self._fence_s = fence_s
        self._row = row
        self._deliver = deliver
        self._on_fenced = fenced
        self._give_up = give_up or _exit
        self._held: dict[str, Held] = {}
        self._loop = asyncio.get_running_loop()
        self._own: asyncio.AbstractEventLoop | None = None
        self._poked: asyncio.Event | None = None
        self._beating: asyncio.Task[None] | None = None
        self._ended = False
        self._thread = threading.Thread(target=self._main, name="agentq-heart", daemon=True)
        self.beaten_at: float | None = None
        """Steady time of the last answer from the store."""
        self.failures = 0
        """Beats without an answer since then."""
        self.error = ""
        self._turned_at = clock.steady()
        self._looped_at = clock.steady()

    def start(self) -> None:
        """Begin to beat."""
        self._thread.start()

    async def stop(self) -> None:
        """Beat no more; returns when the thread has ended."""
        self._ended = True
        self.poke()
        if self._own is not None:
            with contextlib.suppress(RuntimeError):  # it has just ended
                self._own.call_soon_threadsafe(self._interrupt)
        await asyncio.get_running_loop().run_in_executor(None, self._thread.join)

    def poke(self) -> None:
        """Ask for a beat soon: something may have been said to this worker. Thread-safe."""
        own, poked = self._own, self._poked
        if own is not None and poked is not None and not own.is_closed():
            try:
                own.call_soon_threadsafe(poked.set)
            except RuntimeError:
                return  # it has just ended

    def hold(self, ref: ClaimRef, sent_at: float) -> Held:
        """Keep a claim alive that was asked for at steady time ``sent_at``."""
        held = Held(ref, self._clock, self._fence_s, sent_at)
        self._held[ref.run_id] = held
        return held

    def let_go(self, held: Held) -> None:
        """Renew a claim no more."""
        if self._held.get(held.ref.run_id) is held:
            del self._held[held.ref.run_id]

    def alive(self) -> tuple[bool, str]:
        """Whether the heart turns and the event loop is not blocked for longer than its runs allow."""
        now = self._clock.steady()
        if now - self._turned_at > 3 * self._heartbeat_s + _BEAT_TIMEOUT_S:
            return False, f"the heartbeat thread has not moved for {now - self._turned_at:.0f} s"
        blocked = now - self._looped_at
        if blocked > self._tolerance():
            return False, f"the event loop has been blocked for {blocked:.0f} s"
        return True, f"heartbeat turning, event loop answered {blocked:.1f} s ago"

    @property
    def lag_s(self) -> float:
        """Seconds since the worker's event loop last answered."""
        return self._clock.steady() - self._looped_at

    def _tolerance(self) -> float:
        """Seconds for which the event loop may be blocked: up to the latest timeout among the runs."""
        limits = [held.limit_at for held in list(self._held.values())]
        if not limits:
            return 60.0
        return max(60.0, *(BLOCKED_S if limit is None else limit - self._looped_at + self._heartbeat_s for limit in limits))

    def _main(self) -> None:
        asyncio.run(self._turn())

    async def _turn(self) -> None:
        self._own, self._poked = asyncio.get_running_loop(), asyncio.Event()
        while not self._ended:
            self._turned_at = self._clock.steady()
            self._call(self._mark)
            self._beating = asyncio.create_task(self._beat())
            while not self._beating.done():  # an answer may take longer than leases allow
                await asyncio.wait({self._beating}, timeout=self._fence_in())
                self._guard()
            await self._pause()

    def _interrupt(self) -> None:
        """Wait for no answer any more."""
        if self._beating is not None:
            self._beating.cancel()

    async def _pause(self) -> None:
        """Wait for the next turn: sooner after a failure, or when somebody asks."""
        poked = self._poked
        if poked is None or self._ended:
            return
        wait = min(1.0, self._heartbeat_s) if self.failures else self._heartbeat_s
        try:
            await asyncio.wait_for(poked.wait(), wait)
        except TimeoutError:
            return
        if not self._ended:
            await asyncio.sleep(min(_POKE_S, self._heartbeat_s))
        poked.clear()

    async def _beat(self) -> None:
        held = list(self._held.values())
        sent = self._clock.steady()
        try:
            beat = await asyncio.wait_for(
                self._store.beat(self._row(), [each.ref for each in held], self._lease_s), _BEAT_TIMEOUT_S
            )
        except Exception as error:  # noqa: BLE001 - whatever it is, runs must be stopped in time all the same
            self.failures += 1
            self.error = str(error) or ("no answer in time" if isinstance(error, TimeoutError) else repr(error))
            if self.failures == 1:
                emit("heartbeat.failed", failures=self.failures, error=self.error, margin_s=self._margin())
            return
        if self.failures:
            emit("heartbeat.recovered", failures=self.failures)
        self.beaten_at, self.failures, self.error = self._clock.steady(), 0, ""
        lost = {(ref.run_id, ref.token) for ref in beat.lost}
        for each in held:
            if (each.ref.run_id, each.ref.token) in lost:
                each.lost = True
            else:
                each.confirmed_at = max(each.confirmed_at, sent)
        self._call(self._deliver, beat)

    def _guard(self) -> None:
        """Stop what may soon be somebody else's, and end the process if code that must end does not let us."""
        now = self._clock.steady()
        fenced = [held.ref for held in list(self._held.values()) if not held.lost and held.fenced()]
        if fenced:
            for held in list(self._held.values()):
                held.lost = held.lost or held.fenced()
            emit("worker.fenced", runs=len(fenced), reason="no heartbeat was answered in time", error=self.error)
            self._call(self._on_fenced, fenced)
        blocked = now - self._looped_at > max(_STUCK_S, 2 * self._heartbeat_s)
        late = [held for held in list(self._held.values()) if held.limit_at is not None and now > held.limit_at]
        if blocked and late:
            self._give_up(f"run {late[0].ref.run_id} blocks the event loop past its timeout")

    @property
    def well(self) -> bool:
        """Whether the store answered lately."""
        beaten = self.beaten_at
        return beaten is not None and not self.failures and self._clock.steady() - beaten < self._heartbeat_s + _LATE_S

    def _fence_in(self) -> float | None:
        """Seconds until the next claim is unsafe; None if there is none."""
        held = [each.confirmed_at for each in list(self._held.values()) if not each.lost]
        return max(_TOGETHER_S, min(held) + self._fence_s - self._clock.steady()) if held else None

    def _margin(self) -> float:
        now = self._clock.steady()
        return min((held.confirmed_at + self._fence_s - now for held in list(self._held.values())), default=self._fence_s)

    def _mark(self) -> None:
        self._looped_at = self._clock.steady()

    def _call(self, fn: Callable[..., None], *args: object) -> None:
        try:
            self._loop.call_soon_threadsafe(fn, *args)
        except RuntimeError:
            self._ended = True


def _exit(reason: str) -> None:
    """End the process without releasing anything: its leases run out, and others resume its runs."""
    emit("worker.stopped", reason=reason)
    os._exit(EXIT_STUCK)

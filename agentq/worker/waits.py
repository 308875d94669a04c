"""Waits of one run: opened durably, ended by what arrives, and given up together when the run suspends."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, cast

import msgspec

from agentq.errors import AgentQError, StoreUnavailable
from agentq.journal import ABANDONED, Identity
from agentq.message import Arrival, Cancel, Entry, EntryKind, Envelope, Failure, Wait, WaitKind
from agentq.telemetry import emit
from agentq.telemetry.outage import outage_of
from agentq.worker.host import Host
from agentq.worker.ledger import Stop
from agentq.worker.timers import ticking

if TYPE_CHECKING:
    from agentq.scope import Scope

QUIET_S = 0.2
"""With foreign tasks about, the run suspends after so long without a call."""

TICKING_S = 0.1
"""While a timeout of the code's own ticks around a wait, the slot is kept; look again after so long."""
LOOK_AGAIN_S = 0.5
"""After the store could not be asked."""
BUSY_S = 0.01
"""Before the run suspends, what it has streamed goes out; look again after so long."""

Render = Callable[[Arrival | None], bytes]
"""Writes the value of a ``waited`` entry: of what arrived, or None for a timer that fired or a signal that came too late."""


Fits = Callable[[Arrival], str | None]
"""Says why an arrival is not what the code waits for; None if it is."""


@dataclass(slots=True, eq=False)
class _Pending:
    wait: Wait
    arrived: asyncio.Future[Arrival | None]
    line: asyncio.Task[Any]
    fits: Fits | None = None
    timer: asyncio.TimerHandle | None = None


class Waits:
    """The open waits that this execution of the run has come to."""

    def __init__(self, run: Host, linger_s: float) -> None:
        """A wait that ends within ``linger_s`` seconds keeps its slot: handing the run over would cost more."""
        self._run = run
        self._linger_s = linger_s
        self._recorded = {(wait.branch, wait.step, wait.occurrence): wait for wait in run.claim.waits}
        run.history.left_at.update(branch for branch, _, _ in self._recorded)
        self._pending: dict[Identity, _Pending] = {}
        self.joining: set[asyncio.Task[Any]] = set()
        """Tasks that wait for branches."""
        self._waited: frozenset[Identity] | None = None
        self._taken: set[int] = set()
        self._looking = asyncio.Lock()
        self._looks = 0
        self._check: asyncio.TimerHandle | None = None
        self._ticked = False

    def recorded(self, place: Identity) -> Wait | None:
        """The wait as it was opened before this execution."""
        return self._recorded.get(place)

    async def wait(
        self,
        scope: Scope,
        wait: Wait,
        render: Render,
        *,
        fits: Fits | None = None,
        children: tuple[Envelope, ...] = (),
        args_hash: str = "",
        foreign: bool,
    ) -> Entry:
        """Wait until ``wait`` ends and return its ``waited`` entry, whose value ``render`` writes.

        ``render`` gets the arrival, or None for a timer that fired or a signal that did not come in time. An arrival that
        ``fits`` refuses is recorded with the reason and not waited for any more; the wait goes on.
        """
        run = self._run
        place = (wait.branch, wait.step, wait.occurrence)
        if scope.frame is not None:
            raise AgentQError(
                f"step {scope.frame.step!r} waits inside its body; waits belong into the task, where they free the slot "
                "and survive it"
            )
        begun = run.clock.wall()
        attempt, _ = run.history.next_try(place)
        wait = self._recorded.get(place) or msgspec.structs.replace(wait, attempt=attempt)
        pending = _Pending(wait, asyncio.get_running_loop().create_future(), own_task(), fits)
        try:
            if place not in self._recorded:
                self._recorded[place] = wait
                await run.ledger.commit(waits=(wait,), children=children)
            arrival = await self._rest(place, pending, foreign=foreign)
        except asyncio.CancelledError:
            if run.stopping is None:
                self._keep_arrival(pending)
                self.give_up(place)
            raise
        attempt, _ = run.history.next_try(place)
        value, tokens, cost = render(arrival), 0, 0
        if arrival is not None:
            tokens, cost = arrival.tokens, arrival.cost_nanos
        entry = run.ledger.entry(
            EntryKind.WAITED, place, attempt=attempt, args_hash=args_hash, value=value, started_at=begun,
            tokens=tokens, cost_nanos=cost,
        )  # fmt: skip
        del self._recorded[place]
        await run.ledger.commit(entry, signals=(arrival.signal,) if arrival is not None and arrival.signal else ())
        return entry

    async def _rest(self, place: Identity, pending: _Pending, *, foreign: bool) -> Arrival | None:
        self._pending[place] = pending
        self._run.presence.rest(foreign=foreign)
        try:
            return await self._arrival(pending)
        finally:
            del self._pending[place]
            if pending.timer is not None:
                pending.timer.cancel()
            self._run.presence.rise(foreign=foreign)

    async def look(self) -> bool:
        """Ask the store what has arrived, and hand it to who waits for it; False when it cannot be asked now."""
        self._looks += 1
        try:
            async with self._looking:
                if not any(pending.wait.kind is not WaitKind.TIMER for pending in self._pending.values()):
                    return True
                arrivals = await self._run.store.inbox([self._run.claim.ref.run_id])
        except StoreUnavailable:
            return False
        finally:
            self._looks -= 1
        for arrival in arrivals:
            self._hand_over(arrival)
        return True

    def consider(self) -> None:
        """Suspend the run if all of it waits, and for longer than it is worth keeping the slot."""
        presence = self._run.presence
        if self._run.stopping is not None or not self._pending:
            return
        if any(pending.arrived.done() for pending in self._pending.values()):
            return
        if presence.quiet:
            self._later(0.0)
        elif presence.perhaps_quiet:
            self._later(QUIET_S)

    def close(self) -> None:
        """Forget all timers."""
        for pending in self._pending.values():
            if pending.timer is not None:
                pending.timer.cancel()
        if self._check is not None:
            self._check.cancel()

    async def _arrival(self, pending: _Pending) -> Arrival | None:
        run = self._run
        if pending.wait.kind is not WaitKind.TIMER:
            await self.look()
        self._arm(pending)
        if not pending.arrived.done():
            self.consider()
        arrival = await pending.arrived
        if run.stopping is not None:
            await run.park()
        return arrival

    def _arm(self, pending: _Pending) -> None:
        """Have the wait end when it is due."""
        due = pending.wait.due_at
        if due is None or pending.arrived.done():
            return
        left = due - self._run.clock.wall()
        if left > 0:
            pending.timer = asyncio.get_running_loop().call_later(left, self._arm, pending)
        elif pending.wait.kind is WaitKind.TIMER:
            pending.arrived.set_result(None)
        else:
            self._run.background(self._time_out(pending))

    async def _time_out(self, pending: _Pending) -> None:
        """What came in time but was not seen yet counts; only then is it too late."""
        while not await self.look() and self._run.stopping is None:  # noqa: ASYNC110 - a store sends no event when it is back
            await asyncio.sleep(LOOK_AGAIN_S)
        if not pending.arrived.done():
            pending.arrived.set_result(None)

    def _hand_over(self, arrival: Arrival) -> None:
        if arrival.signal and arrival.signal in self._taken:
            return
        for pending in self._pending.values():
            wait = pending.wait
            if wait.kind is arrival.kind and wait.ref == arrival.ref and not pending.arrived.done():
                if arrival.signal:
                    self._taken.add(arrival.signal)
                reason = pending.fits(arrival) if pending.fits is not None else None
                if reason is None:
                    pending.arrived.set_result(arrival)
                else:
                    self._run.background(self._refuse(wait, arrival, reason))
                return

    async def _refuse(self, wait: Wait, arrival: Arrival, reason: str) -> None:
        """Keep what came and does not fit where a person finds it, and take it out of the mailbox."""
        run = self._run
        place = (wait.branch, wait.step, wait.occurrence)
        emit("signal.refused", run_id=run.row.id, signal=wait.ref, reason=reason)
        failure = Failure(type="UnfitSignal", message=reason)
        attempt, _ = run.history.next_try(place)
        entry = run.ledger.entry(EntryKind.TRIED, place, attempt=attempt, value=msgspec.json.encode(failure))
        await run.ledger.commit(entry, signals=(arrival.signal,))
        await self.look()

    def _keep_arrival(self, pending: _Pending) -> None:
        """What arrived for a wait that is given up is kept for the next."""
        if pending.arrived.done() and not pending.arrived.cancelled():
            arrival = pending.arrived.result()
            if arrival is not None:
                self._taken.discard(arrival.signal)

    def give_up(self, place: Identity) -> None:
        """The code waits no more (a timeout of its own, a sibling that failed): close the wait, and cancel the child."""
        wait = self._recorded.pop(place, None)
        if wait is not None:
            self._run.background(self._close(place, wait))

    async def _close(self, place: Identity, wait: Wait) -> None:
        run = self._run
        if wait.kind is WaitKind.CHILD:
            if run.ledger.busy:
                await run.ledger.commit()  # the child may be on its way into the store: it can be cancelled when it is there
            try:
                await run.store.command(Cancel(run_id=wait.ref))
            except StoreUnavailable as error:
                outage_of(run.store).met(error, verb="command")
                return  # the wait stays open: a replay gives it up again
        await run.ledger.commit(self._closing(place))

    def orphans(self) -> tuple[Entry, ...]:
        """Close what was opened and is waited for no more, or else it would wake the run for nothing, again and again.

        The code changed, or its worker died before it could give a wait up. Only where all lines of the run are known.
        """
        if self._waited is None:
            return ()
        left = [place for place in self._recorded if place not in self._waited]
        return tuple(self._closing(place) for place in left)

    def _closing(self, place: Identity) -> Entry:
        attempt, _ = self._run.history.next_try(place)
        return self._run.ledger.entry(EntryKind.WAITED, place, attempt=attempt, value=ABANDONED)

    def _kept(self) -> bool:
        """Whether a timeout of the code's own ticks around a wait, or has just fired and is still to take effect."""
        lines = self._lines()
        if ticking(asyncio.get_running_loop(), lines):
            self._ticked = True
            self._later(TICKING_S)
        elif self._ticked or any(line.cancelling() for line in lines):
            self._ticked = False
            self._later(BUSY_S)
        else:
            return False
        return True

    def _lines(self) -> set[asyncio.Task[Any]]:
        """Tasks that are known to wait, or to wait for those."""
        lines = {pending.line for pending in self._pending.values()} | self.joining
        root = self._run.root
        return lines if root is None else lines | {root}

    def _later(self, delay_s: float) -> None:
        if self._check is not None:
            self._check.cancel()
        self._check = asyncio.get_running_loop().call_later(delay_s, self._suspend_if_still, self._run.presence.calls)

    def _suspend_if_still(self, calls: int) -> None:
        self._check = None
        run = self._run
        if run.stopping is not None or not self._pending or run.presence.bodies:
            return
        if run.ledger.busy or self._looks:  # something may just be arriving
            self._later(BUSY_S)
            return
        if run.presence.calls != calls:
            self.consider()
            return
        if any(pending.arrived.done() for pending in self._pending.values()):
            return
        if self._kept():
            return
        due = min((p.wait.due_at for p in self._pending.values() if p.wait.due_at is not None), default=None)
        if due is not None and due - run.clock.wall() <= self._linger_s:
            return
        if run.presence.quiet:
            self._waited = frozenset(self._pending)
        run.stop(Stop.SUSPEND, "every branch waits")


def own_task() -> asyncio.Task[Any]:
    """Return the calling task; waits are only ever called in one."""
    return cast("asyncio.Task[Any]", asyncio.current_task())

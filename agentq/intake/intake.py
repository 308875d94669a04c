"""The loop between a broker and a store: receive while there is room, admit in order, acknowledge."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections import deque
from typing import TYPE_CHECKING

from agentq.clock import Clock, SystemClock
from agentq.errors import BrokerError, BrokerUnavailable, StoreError
from agentq.intake.admitting import PORTION_BYTES, Admitter
from agentq.telemetry import emit
from agentq.telemetry.outage import Outage, outage_of

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Sequence

    from agentq.brokers.base import Broker, Delivery, Inbox
    from agentq.stores.base import Store

BATCH = 500
"""Deliveries in one transaction at most: a few milliseconds of the database's."""
_BACKOFF_S = (0.1, 0.2, 0.5, 1.0, 2.0, 5.0)
_REMIND_S = 30.0
"""Between two events that say the same trouble."""
WAITING_BYTES = 2 * PORTION_BYTES
"""Of a log's messages received and not admitted yet, beyond which no more are: they lie in this process's memory."""
_RECOUNT_S = 0.1
"""Between two looks at how much of a log lies in the store already, while that decides."""
_RECOUNT_IDLE_S = 5.0
"""…and while it does not: others read ahead, too."""
_TOUCH_S = 2.0
"""Between two calls of a log's inbox that take nothing: it keeps its membership by them."""


class Intake:
    """Brings an app's queues from its broker into its store until it is stopped. One use: create, `run`."""

    def __init__(
        self,
        broker: Broker,
        store: Store,
        app: str,
        queues: Sequence[str],
        *,
        room: Callable[[], int],
        ahead: int,
        worker: str = "",
        clock: Clock | None = None,
        brought: Callable[[int], None] | None = None,
        poll_s: float | None = None,
    ) -> None:
        """Prepare; nothing is received yet.

        Args:
            broker: open.
            store: open.
            app: whose messages these are.
            queues: which of its queues.
            room: how many runs could be claimed at once, beside those that the store has already; negative while the store
                does not accept writes or nothing may be taken. `stir` says that it may have changed.
            ahead: runnable runs up to which a partitioned log is read ahead, whatever the room.
            worker: its id, for events.
            clock: wall time, for what arrives.
            brought: told of so many new runs, before ``room`` is asked again.
            poll_s: for how long `run` may go on after `stop`, because a poll is under way; None is the broker's own limit.

        """
        self._broker = broker
        self._store = store
        self._queues = tuple(queues)
        self._room = room
        self._ahead = ahead
        self._worker = worker
        self._brought = brought
        self._poll_s = poll_s
        self._admitter = Admitter(broker, store, app, clock or SystemClock())
        self._log = any(broker.capabilities(queue).partitioned for queue in queues)
        self._stirred = asyncio.Event()
        self._stopped = asyncio.Event()
        self._waiting: deque[Delivery] = deque()
        """Received, not admitted yet."""
        self._arrived = asyncio.Event()
        self._blocked = False
        """Whether the store refuses what was received, so that no more is taken."""
        self._counted_at = -_RECOUNT_IDLE_S
        self._runnable = 0
        self._touched_at = 0.0
        self._trouble = _Trouble(broker.where, worker, outage_of(store))
        self._chores: set[asyncio.Task[None]] = set()

    def stir(self) -> None:
        """There may be room now."""
        self._stirred.set()

    def stop(self) -> None:
        """Take no more; `run` returns when a poll under way has ended, and what it brought is handed back."""
        self._stopped.set()
        self._stirred.set()
        self._arrived.set()

    async def run(self) -> None:
        """Receive, admit and acknowledge until `stop`. A broker that cannot be reached is tried again and again."""
        while not self._stopped.is_set():
            try:
                async with self._broker.inbox(self._queues, self._store.positions, poll_s=self._poll_s) as inbox:
                    await self._serve(inbox)
            except (BrokerError, StoreError) as error:
                await self._rest(self._trouble.delay(error, "inbox"))
            except Exception as error:  # noqa: BLE001 - a defect of ours costs time, and not the intake in silence
                await self._rest(self._trouble.delay(error, "intake"))

    async def _serve(self, inbox: Inbox) -> None:
        receiving = asyncio.create_task(self._receive_all(inbox))
        admitting = asyncio.create_task(self._admit_all(inbox))
        try:
            await asyncio.wait({receiving, admitting}, return_when=asyncio.FIRST_COMPLETED)
            if self._blocked:  # the store does not answer: what was received goes back
                admitting.cancel()
            if not self._stopped.is_set():  # one of them met what it does not know
                receiving.cancel()
                admitting.cancel()
            await asyncio.wait({receiving, admitting})
        finally:
            for task in (receiving, admitting):
                task.cancel()
            await asyncio.wait({receiving, admitting, *self._chores})
            await self._hand_back(inbox)
        for task in (receiving, admitting):
            if not task.cancelled():
                task.result()

    async def _receive_all(self, inbox: Inbox) -> None:
        while not self._stopped.is_set():
            self._stirred.clear()
            room = max(await self._space(), 0)
            if not room and not (self._log and time.monotonic() - self._touched_at >= _TOUCH_S):
                await self._pause(_RECOUNT_S if self._log else None)
                continue
            try:
                deliveries = await inbox.receive(room)
            except (BrokerError, StoreError) as error:  # the store says where a log is read on
                await self._rest(self._trouble.delay(error, "receive"))
                continue
            self._touched_at = time.monotonic()
            self._trouble.over()
            if deliveries and self._room() < 0:  # nothing may be taken any more since it was asked for
                await self._release(inbox, deliveries)
            elif deliveries:
                self._waiting.extend(deliveries)
                self._arrived.set()

    async def _space(self) -> int:
        """How many deliveries to ask for."""
        given = self._room()
        if given < 0 or self._blocked:
            return 0
        if not self._log:
            return given - len(self._waiting)
        if sum(len(delivery.body) for delivery in self._waiting) >= WAITING_BYTES:
            return 0
        since = time.monotonic() - self._counted_at
        if since >= (_RECOUNT_S if self._runnable >= self._ahead // 2 else _RECOUNT_IDLE_S):
            try:
                census = await self._store.census()
            except StoreError:
                return 0
            self._counted_at = time.monotonic()
            self._runnable = sum(stats.runnable for stats in census.queues if stats.queue in self._queues)
        return self._ahead - self._runnable - len(self._waiting)

    async def _admit_all(self, inbox: Inbox) -> None:
        failures = 0
        while not self._stopped.is_set():
            if not self._waiting:
                self._arrived.clear()
                await self._arrived.wait()
                continue
            batch = [self._waiting[number] for number in range(min(BATCH, len(self._waiting)))]
            started = time.monotonic()
            try:
                admitted = await self._admitter.admit(batch)
            except (StoreError, BrokerUnavailable) as error:
                self._blocked = True
                if isinstance(error, BrokerError):  # large arguments lie there
                    self._trouble.delay(error, "fetch")
                else:
                    outage_of(self._store).met(error, verb="admit", worker=self._worker)
                await self._rest(_BACKOFF_S[min(failures, len(_BACKOFF_S) - 1)])
                failures += 1
                continue
            if failures:
                outage_of(self._store).over(worker=self._worker)
            failures, self._blocked = 0, False
            for _ in batch:
                self._waiting.popleft()
            self._runnable += admitted.runs
            if self._brought is not None:
                self._brought(admitted.runs)
            emit("intake.admitted", worker=self._worker, broker=self._broker.where, runs=admitted.runs,
                 duplicates=admitted.duplicates, letters=admitted.letters, duration_s=time.monotonic() - started)  # fmt: skip
            self._stirred.set()
            self._chore(self._acknowledge(inbox, batch))

    async def _acknowledge(self, inbox: Inbox, batch: Sequence[Delivery]) -> None:
        try:
            await inbox.acknowledge(batch)
        except BrokerError as error:  # they come again, and are dropped as duplicates
            self._trouble.delay(error, "acknowledge")

    async def _hand_back(self, inbox: Inbox) -> None:
        """What was received and has no row goes back, so that others get it at once."""
        left, self._waiting = list(self._waiting), deque()
        if left:
            await self._release(inbox, left)

    async def _release(self, inbox: Inbox, left: Sequence[Delivery]) -> None:
        try:
            await inbox.release(left)
        except BrokerError as error:
            self._trouble.delay(error, "release")
        else:
            emit("intake.handed_back", worker=self._worker, broker=self._broker.where, messages=len(left))

    def _chore(self, work: Coroutine[None, None, None]) -> None:
        task = asyncio.create_task(work)
        self._chores.add(task)
        task.add_done_callback(self._chores.discard)

    async def _pause(self, wait_s: float | None) -> None:
        """Until it is stirred, at most ``wait_s`` seconds."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(wait_s):
                await self._stirred.wait()

    async def _rest(self, wait_s: float) -> None:
        """After a failure: until it is stopped, at most ``wait_s`` seconds."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(wait_s):
                await self._stopped.wait()


class _Trouble:
    """How long the broker has been failing, said once and then now and again."""

    def __init__(self, where: str, worker: str, outage: Outage) -> None:
        self._where = where
        self._outage = outage
        """Of the store, which says where a log is read on."""
        self._worker = worker
        self._since: float | None = None
        self._said_at = 0.0
        self._failures = 0

    def delay(self, error: BaseException, verb: str) -> float:
        """Note a failure; seconds to wait before the next try."""
        now = time.monotonic()
        if isinstance(error, StoreError):
            self._outage.met(error, verb=verb, worker=self._worker)
        elif self._since is None or now - self._said_at >= _REMIND_S:
            name = "broker.unavailable" if isinstance(error, BrokerUnavailable) else "broker.refused"
            told = str(error) if isinstance(error, (BrokerError, StoreError)) else repr(error)
            emit(name, worker=self._worker, broker=self._where, verb=verb, error=told)
            self._said_at = now
        if not isinstance(error, StoreError) and self._since is None:
            self._since = now
        self._failures += 1
        return _BACKOFF_S[min(self._failures - 1, len(_BACKOFF_S) - 1)]

    def over(self) -> None:
        """Note that the broker answered."""
        if self._since is not None:
            emit("broker.recovered", worker=self._worker, broker=self._where, duration_s=time.monotonic() - self._since)
        if self._failures:
            self._outage.over(worker=self._worker)
        self._since, self._failures = None, 0

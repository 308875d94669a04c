"""One claimed run from its first line to its settlement: the root task, why it stops, and what is written at the end."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable, Coroutine
from dataclasses import replace
from typing import TYPE_CHECKING, Any, cast

import msgspec

from agentq.clock import Clock
from agentq.context import Context, SyncContext
from agentq.errors import CodecError, DeadlineExceeded, InvalidArgument, PayloadTooLarge, RunTimeout
from agentq.failure import failure_from
from agentq.journal import History
from agentq.message import (
    Cancelled,
    Claim,
    Entry,
    Failed,
    Failure,
    Released,
    Retried,
    Run,
    Settlement,
    Succeeded,
    Suspended,
    Verdict,
)
from agentq.retry import decide
from agentq.scope import Scope, enter_scope
from agentq.stores.base import Store
from agentq.telemetry import emit
from agentq.worker.children import Children
from agentq.worker.ends import ENDS, End
from agentq.worker.host import ExecutionOptions, Host
from agentq.worker.ledger import Lease, Ledger, Stop
from agentq.worker.limits import time_left, timeout_of
from agentq.worker.mailbox import Mailbox
from agentq.worker.memory import Memory
from agentq.worker.poisoning import poison
from agentq.worker.presence import Presence
from agentq.worker.settling import Settling
from agentq.worker.steps import Steps
from agentq.worker.threads import Line
from agentq.worker.waits import Waits

if TYPE_CHECKING:
    from agentq.step import StepSpec
    from agentq.task import Task

_RETRY_CANCEL_S = 1.0


class Execution:
    """The life of one claimed run. Create it on the event loop, await `work`, and `stop` it from callbacks of the same loop."""

    def __init__(
        self,
        task: Task[..., Any],
        claim: Claim,
        lease: Lease,
        store: Store,
        clock: Clock,
        options: ExecutionOptions | None = None,
    ) -> None:
        """Prepare; nothing runs yet."""
        self.task = task
        self.claim = claim
        self.store = store
        self.clock = clock
        self.history = History.of(claim.journal)
        self.presence = Presence()
        self.stopping: Stop | None = None
        self.unwinding = False
        self.options = options or ExecutionOptions()
        self._reason = ""
        self.loop = asyncio.get_running_loop()
        self._began = clock.steady()
        self.root: asyncio.Task[Any] | None = None
        self._over: asyncio.Future[bool] = self.loop.create_future()
        self._timers: list[asyncio.TimerHandle] = []
        self._guests: set[asyncio.Task[Any]] = set()
        """Tasks of the user's code."""
        self._chores: set[asyncio.Task[Any]] = set()
        """What the run itself does on the side."""
        me = cast("Host", self)
        self.me = me
        self.ledger = Ledger(store, lease, self.history, clock, self.stop, self.options.sleep)
        self._settling = Settling(self.ledger)
        self.waits = Waits(me, self.options.linger_s)
        self.mailbox = Mailbox(me, self.waits)
        self.steps = Steps(me, self.mailbox)
        self.children = Children(me, self.waits)
        self.memory = Memory(me, self.steps)

    @property
    def row(self) -> Run:
        """The run as it was claimed."""
        return self.claim.run

    @property
    def draining(self) -> bool:
        """Whether the run is to be handed on at its next step."""
        return self.stopping in {Stop.DRAIN, Stop.PAUSE}

    @property
    def running_s(self) -> float:
        """Seconds since the claim."""
        return self.clock.steady() - self._began

    @property
    def code_ended(self) -> bool:
        """Whether the task's code is over, and only its outcome is still to be written."""
        return self._over.done()

    @property
    def unsaved_s(self) -> float:
        """Seconds since the last journal entry."""
        return self.clock.steady() - self.ledger.grown_at

    def arrived(self) -> None:
        """Something came that a wait of the run waits for."""
        self.background(self.waits.look())

    async def work(self) -> End:
        """Run the task's code until it returns, raises, waits or is stopped, and write what came of it."""
        settlement = self._refusal()
        entries: tuple[Entry, ...] = ()
        if settlement is None and self.row.suspect and self.stopping is None and not await self.ledger.begin():
            self.stop(Stop.LOST, "its lease was lost before it began")
        if settlement is None and self.stopping is not None:
            settlement, entries = self._stopped(self.stopping)
        elif settlement is None:
            self._start()
            ended = await self._over
            self._stop_timers()
            if not ended:
                return self._abandoned()
            await self._end_guests()
            settlement, entries = self._outcome()
            self._shut()
        if settlement is None:
            self.ledger.close()
            emit("run.lost", run_id=self.row.id, task=self.row.task, epoch=self.claim.ref.epoch, reason=self._reason)
            return End.LOST
        return self._told(settlement, await self._settling.settle(settlement, self.running_s, *entries))

    def give_up(self) -> None:
        """Wait no longer for the store's word on the outcome."""
        self._settling.give_up()

    def stop(self, stop: Stop, reason: str) -> None:
        """End the code: at once if the run is lost, cancelled or out of time, else once no step body is running."""
        if self.stopping is not None and self.stopping >= stop:
            return
        self.stopping, self._reason = stop, reason
        if stop >= Stop.ATTEMPT_TIMEOUT or self.presence.bodies == 0:
            self._unwind()

    def hurry(self) -> None:
        """Do not wait for step bodies any more."""
        if self.stopping is not None:
            self._unwind()

    def step_ended(self) -> None:
        """Called when a step body is over, with its result committed or without one."""
        if self.stopping is not None:
            if self.presence.bodies == 0:
                self._unwind()
        else:
            self.waits.consider()

    async def park(self, scope: Scope | None = None) -> None:
        """Stand still until the stop reaches the caller as cancellation; inside a step's body go on, so that it can end."""
        if self.unwinding:
            raise asyncio.CancelledError(self._reason)
        if scope is not None and scope.frame is not None:
            return
        self.adopt()
        if self.presence.bodies == 0:
            self._unwind()
        await self.loop.create_future()

    def replacement(self, spec: StepSpec) -> Callable[..., Any]:
        """The function to call for a step."""
        fakes = self.options.fakes
        return fakes.get(spec) or fakes.get(spec.name, spec.fn) if fakes else spec.fn

    def background(self, work: Coroutine[Any, Any, Any]) -> None:
        """Do something for the run that nobody waits for; it ends before the run is settled."""
        chore = self.loop.create_task(work)
        self._chores.add(chore)
        chore.add_done_callback(self._chores.discard)

    def adopt(self) -> None:
        """Note that the calling task works for the run, though the user's code made it: it ends with the run."""
        task = asyncio.current_task()
        if task is not None and task is not self.root and task not in self._guests:
            self.track(task)

    def track(self, task: asyncio.Task[Any]) -> None:
        """Remember a task that works for the run, so that it ends with it."""
        self._guests.add(task)
        task.add_done_callback(self._guests.discard)

    async def fetch(self, entry: Entry) -> bytes:
        """The value of an entry, wherever it is kept."""
        return await self.memory.fetch(entry)

    def _refusal(self) -> Settlement | None:
        """Settle without running any code: poison, and calls that this code cannot take."""
        if settled := poison(self.row):
            return settled
        try:
            arguments = self.task.arguments
            self._arguments = arguments.spread(arguments.decode(self.row.args))
        except InvalidArgument as error:
            return Failed(failure=failure_from(error))
        return None

    def _start(self) -> None:
        run, spec = self.row, self.task.spec
        emit("run.resumed" if self.history.next_seq else "run.claimed", run_id=run.id, task=run.task, queue=run.queue,
             attempt=run.attempt, epoch=self.claim.ref.epoch, steps=self.history.steps)  # fmt: skip
        left = time_left(run, spec)
        if left is not None:
            message = f"used up its running time of {timeout_of(run, spec):g} s"
            self._timers.append(self.loop.call_later(left, self.stop, Stop.TIMEOUT, message))
        if spec.attempt_timeout_s is not None:
            message = f"the attempt took longer than {spec.attempt_timeout_s:g} s"
            self._timers.append(self.loop.call_later(spec.attempt_timeout_s, self.stop, Stop.ATTEMPT_TIMEOUT, message))
        if run.deadline is not None:
            left = max(0.0, run.deadline - self.clock.wall())
            self._timers.append(self.loop.call_later(left, self.stop, Stop.DEADLINE, "its deadline passed"))
        scope = Scope(self.me, "")
        code = self._async_code(scope) if spec.is_async else self._sync_code(scope)
        self.root = self.loop.create_task(code)
        self.root.add_done_callback(self._root_ended)

    async def _async_code(self, scope: Scope) -> Any:
        scope.owner = asyncio.current_task()
        enter_scope(scope)
        try:
            args, kwargs = self._arguments
            return await self.task.fn(Context(self.me, scope), *args, **kwargs)
        except (SystemExit, KeyboardInterrupt) as error:
            raise RuntimeError(f"the task raised {error!r}") from error

    async def _sync_code(self, scope: Scope) -> Any:
        context = SyncContext(self.me, scope)
        args, kwargs = self._arguments
        return await self.line(lambda: self.task.fn(context, *args, **kwargs), scope, owner=True).run()

    def line(self, fn: Callable[[], Any], scope: Scope, *, owner: bool) -> Line:
        """Return a thread for the run's synchronous code."""
        return Line(f"agentq-{self.row.id}", self.loop, fn, scope, owner=owner)

    def at_loop(self, fn: Callable[..., None], *args: Any) -> None:
        """Call something of the loop's from the loop or from a thread."""
        if asyncio._get_running_loop() is self.loop:  # noqa: SLF001 - the documented way raises, and this is a hot path
            fn(*args)
        else:
            self.loop.call_soon_threadsafe(fn, *args)

    def _root_ended(self, root: asyncio.Task[Any]) -> None:
        if not root.cancelled():
            root.exception()
        if not self._over.done():
            self._over.set_result(True)

    def _unwind(self) -> None:
        """Cancel the root, and everything that works for it."""
        if self.root is None or self.root.done():
            return
        if not self.unwinding:
            self.unwinding = True
            self._timers.append(self.loop.call_later(self.options.grace_s, self._give_up))
        self.root.cancel(self._reason)
        for task in self._guests:
            task.cancel(self._reason)
        self._timers.append(self.loop.call_later(_RETRY_CANCEL_S, self._unwind))

    def _give_up(self) -> None:
        if not self._over.done():
            self._over.set_result(False)

    def _stop_timers(self) -> None:
        for timer in self._timers:
            timer.cancel()
        self._timers.clear()
        self.waits.close()

    async def _end_guests(self) -> None:
        """Cancel tasks of the user's that outlive the root; finish what the run does itself, while it is ours."""
        ours = self.stopping not in {Stop.LOST, Stop.CANCEL, Stop.BROKEN}
        for task in self._guests if ours else self._guests | self._chores:
            task.cancel()
        if left := self._guests | self._chores:
            await asyncio.wait(left, timeout=self.options.grace_s)

    def _shut(self) -> None:
        """From now on every verb refuses: a task of the user's that outlives the run must not go on in its name."""
        self.unwinding = True
        self.stopping = self.stopping or Stop.LOST

    def _abandoned(self) -> End:
        self.ledger.close()
        emit("run.abandoned", run_id=self.row.id, task=self.row.task, reason=self._reason, grace_s=self.options.grace_s)
        return End.ABANDONED

    def _outcome(self) -> tuple[Settlement | None, tuple[Entry, ...]]:
        """What to write, given how the root ended and why it was stopped."""
        root = self.root
        stop = self.stopping if self.unwinding or self.stopping in {Stop.LOST, Stop.CANCEL, Stop.BROKEN} else None
        if stop is not None:
            return self._stopped(stop)
        if root is None or root.cancelled():
            return self._failed(RuntimeError("the task was cancelled by its own code"))
        error = root.exception()
        if error is not None:
            return self._failed(error)
        try:
            return Succeeded(result=self.task.codec.encode(root.result())), ()
        except (CodecError, PayloadTooLarge) as unfit:
            message = f"what the task returned cannot be recorded: {unfit}"
            return Failed(failure=Failure(type="CodecError", message=message, permanent=True)), ()

    def _stopped(self, stop: Stop) -> tuple[Settlement | None, tuple[Entry, ...]]:  # noqa: PLR0911 - one for each case
        match stop:
            case Stop.LOST:
                return None, ()
            case Stop.CANCEL:
                return Cancelled(), ()
            case Stop.SUSPEND:
                return Suspended(), self.waits.orphans()
            case Stop.DRAIN | Stop.PAUSE:
                return Released(reason=self._reason), ()
            case Stop.DEADLINE:
                return Failed(failure=_named(DeadlineExceeded(self._reason), permanent=True)), ()
            case Stop.TIMEOUT | Stop.ATTEMPT_TIMEOUT:
                emit("run.timed_out", run_id=self.row.id, task=self.row.task, reason=self._reason)
                return self._failed(RunTimeout(self._reason), permanent=stop is Stop.TIMEOUT)
            case Stop.BROKEN:
                return self._failed(RuntimeError(self._reason))

    def _failed(self, error: BaseException, *, permanent: bool = False) -> tuple[Settlement, tuple[Entry, ...]]:
        run = self.row
        failure = _named(error, permanent=permanent)
        policy = self.task.spec.retry
        if run.max_attempts is not None:
            policy = replace(policy, max_attempts=run.max_attempts)
        delay = decide(policy, run.attempt, failure, error, random.random())  # noqa: S311 - jitter
        if delay is None:
            carried = self.steps.escaped(error)
            if carried:
                failure = msgspec.structs.replace(failure, step=carried[-1].step, seq=carried[-1].seq)
            return Failed(failure=failure), ()
        return Retried(failure=failure, delay_s=delay), self.steps.supersede(error)

    def _told(self, settlement: Settlement, verdict: Verdict) -> End:
        """Tell the world how this claim ended."""
        run = self.row
        told = {"run_id": run.id, "task": run.task, "queue": run.queue, "attempt": run.attempt, "duration_s": self.running_s}
        if verdict is Verdict.FENCED:
            emit("run.lost", **told, epoch=self.claim.ref.epoch, reason="the store refused the settlement")
            return End.LOST
        end = End.CANCELLED if verdict is Verdict.CANCELLED else ENDS[type(settlement)]
        more: dict[str, Any] = {}
        if isinstance(settlement, Failed | Retried):
            more = {"error": settlement.failure.type, "reason": settlement.failure.message}
        if isinstance(settlement, Retried):
            more["delay_s"] = settlement.delay_s
        emit(f"run.{end}", **told, **more)
        return end


def _named(error: BaseException, *, permanent: bool) -> Failure:
    failure = failure_from(error)
    return msgspec.structs.replace(failure, permanent=True) if permanent else failure

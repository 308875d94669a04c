"""A run in a child process of its own: an out-of-memory kill or a crash in C code costs that run alone."""

from __future__ import annotations

import asyncio
import signal
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

from agentq.clock import Clock
from agentq.message import Claim, Crashed, Failed, Failure, Settlement, Verdict, Write
from agentq.settings import WorkerSettings
from agentq.stores.base import Store
from agentq.telemetry import emit
from agentq.worker.ends import End
from agentq.worker.host import ExecutionOptions
from agentq.worker.leases import Held
from agentq.worker.ledger import Stop, deliver
from agentq.worker.limits import time_left, timeout_of

if TYPE_CHECKING:
    from agentq.app import AgentQ
    from agentq.task import Task

EXIT_BASE = 10
"""The child exits with this plus the index of its `End`; anything else is a crash."""
CRASH_DELAY_S = 1.0
_CONFIRM_S = 1.0
LOST_S = 1.0
"""For the child of a run that is no longer ours to end by itself."""
ENDS = tuple(End)


class Target(msgspec.Struct, frozen=True, kw_only=True):
    """How a child finds the app: an importable module, or the file of the main script."""

    module: str | None = None
    file: str | None = None
    attribute: str = ""
    path: list[str] = []


class Order(msgspec.Struct, frozen=True, kw_only=True):
    """The first line that a child reads: what to run."""

    target: Target
    store: str
    broker: str | None
    """Through which the run's own submissions go; None is the store."""
    claim: Claim
    fence_s: float
    grace_s: float


class Word(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A later line: what its parent has to say. Their pipe closing says that the parent is dead."""

    confirmed_s: float | None = None
    """The claim was confirmed so many seconds ago."""
    stop: int | None = None
    reason: str = ""
    hurry: bool = False
    arrived: bool = False


def can_isolate(app: AgentQ, store: Store) -> bool:
    """Whether a child process could find the app and the same store."""
    return store.shared and app.store_url is not None and target_of(app) is not None


def target_of(app: AgentQ) -> Target | None:
    """Where the app is declared, for a process that has to import it."""
    for name, module in list(sys.modules.items()):
        for attribute, value in _members(module):
            if value is app:
                if name not in {"__main__", "__mp_main__"}:
                    return Target(module=name, attribute=attribute, path=sys.path)
                spec, file = getattr(module, "__spec__", None), getattr(module, "__file__", None)
                if spec is not None:
                    return Target(module=spec.name, attribute=attribute, path=sys.path)
                return Target(file=str(Path(file).resolve()), attribute=attribute, path=sys.path) if file else None
    return None


def _members(module: Any) -> Iterator[tuple[str, Any]]:
    try:
        yield from list(vars(module).items())
    except TypeError:
        return


class Isolated:
    """The parent's side of an isolated run."""

    def __init__(
        self,
        app: AgentQ,
        task: Task[..., Any],
        claim: Claim,
        held: Held,
        store: Store,
        clock: Clock,
        settings: WorkerSettings,
    ) -> None:
        """Prepare; nothing runs yet."""
        self._app = app
        self._task = task
        self._claim = claim
        self._held = held
        self._store = store
        self._clock = clock
        self._settings = settings
        self._process: asyncio.subprocess.Process | None = None
        self._stopping: Stop | None = None
        self._late: str | None = None
        self._killer: asyncio.TimerHandle | None = None
        self._began = clock.steady()

    @property
    def unsaved_s(self) -> float:
        """Seconds since the claim: what the child records in between is not known here."""
        return self._clock.steady() - self._began

    async def work(self) -> End:
        """Start the child, keep it told, and judge by its exit code."""
        run = self._claim.run
        try:
            self._process = process = await asyncio.create_subprocess_exec(
                sys.executable, "-m", "agentq.worker.isolated", stdin=asyncio.subprocess.PIPE, limit=1 << 20
            )
        except OSError as error:
            return await self._crashed(f"the process could not be started: {error}")
        self._say(
            Order(
                target=target_of(self._app) or Target(),
                store=self._app.store_url or "",
                broker=self._app.broker_url,
                claim=self._claim,
                fence_s=self._settings.fence_s,
                grace_s=self._settings.grace_s,
            )
        )
        emit("run.resumed" if self._claim.journal else "run.claimed", run_id=run.id, task=run.task, queue=run.queue,
             attempt=run.attempt, epoch=run.epoch, steps=run.steps)  # fmt: skip
        if self._stopping is not None:
            self._say(Word(stop=int(self._stopping)))
        telling = asyncio.create_task(self._keep_telling())
        killing = asyncio.create_task(self._kill_late(process))
        try:
            code = await process.wait()
        finally:
            telling.cancel()
            killing.cancel()
            if self._killer is not None:
                self._killer.cancel()
            if process.returncode is None:
                process.kill()
        if 0 <= code - EXIT_BASE < len(ENDS):
            end = ENDS[code - EXIT_BASE]
            emit(f"run.{end}", run_id=run.id, task=run.task, queue=run.queue,
                 attempt=run.attempt, duration_s=self.unsaved_s)  # fmt: skip
            return end
        return await self._crashed(_died(code))

    def stop(self, stop: Stop, reason: str) -> None:
        """Pass it on; a lost run's child is killed if it does not end by itself: it may just have settled the run."""
        self._stopping = stop
        self._say(Word(stop=int(stop), reason=reason))
        if stop is Stop.LOST and self._killer is None:
            self._killer = asyncio.get_running_loop().call_later(LOST_S, self._kill)

    def _kill(self) -> None:
        if self._process is not None and self._process.returncode is None:
            self._process.kill()

    def give_up(self) -> None:
        """Nothing more: the child of a lost run is killed."""

    def hurry(self) -> None:
        """Pass it on."""
        self._say(Word(hurry=True))

    def arrived(self) -> None:
        """Pass it on."""
        self._say(Word(arrived=True))

    async def _keep_telling(self) -> None:
        while True:
            self._say(Word(confirmed_s=self._clock.steady() - self._held.confirmed_at))
            await asyncio.sleep(min(_CONFIRM_S, self._settings.heartbeat_s))

    async def _kill_late(self, process: asyncio.subprocess.Process) -> None:
        """A child that does not end by itself after its timeout is killed: that is what it is isolated for."""
        run, spec = self._claim.run, self._task.spec
        left = time_left(run, spec)
        if left is None:
            return
        await asyncio.sleep(left + self._settings.grace_s)
        self._late = f"used up its running time of {timeout_of(run, spec):g} s and did not end by itself"
        process.kill()

    async def _crashed(self, message: str) -> End:
        run = self._claim.run
        if self._stopping is Stop.LOST or self._held.fenced():
            emit("run.lost", run_id=run.id, task=run.task, epoch=run.epoch, reason="lost while isolated")
            return End.LOST
        settlement: Settlement
        if self._late is not None:
            settlement = Failed(failure=Failure(type="RunTimeout", message=self._late, permanent=True))
            emit("run.failed", run_id=run.id, task=run.task, queue=run.queue, attempt=run.attempt, reason=self._late)
        else:
            settlement = Crashed(failure=Failure(type="ProcessDied", message=message), delay_s=CRASH_DELAY_S)
            emit("run.crashed", run_id=run.id, task=run.task, queue=run.queue, deaths=run.deaths, reason=message)
        write = Write(ref=self._claim.ref, settle=settlement, running_s=self.unsaved_s)
        verdict, _ = await deliver(self._store, self._held, write)
        if verdict is not Verdict.COMMITTED:
            return End.LOST
        return End.FAILED if self._late is not None else End.RETRYING

    def _say(self, word: Order | Word) -> None:
        process = self._process
        if process is None or process.stdin is None or process.stdin.is_closing() or process.returncode is not None:
            return
        process.stdin.write(msgspec.json.encode(word) + b"\n")


def _died(code: int) -> str:
    if code >= 0:
        return f"the process ended with exit code {code}"
    try:
        name = signal.Signals(-code).name
    except ValueError:
        name = f"signal {-code}"
    hint = " (out of memory?)" if name == "SIGKILL" else ""
    return f"the process was ended by {name}{hint}"


def options_of(order: Order) -> ExecutionOptions:
    """What the child needs to know of its parent's settings."""
    return ExecutionOptions(grace_s=order.grace_s)

"""A run seen from outside: its result, its status, its live events, and the verbs that steer it."""

from __future__ import annotations

import secrets
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from decimal import Decimal
from typing import TYPE_CHECKING, Any, Generic, Literal, TypeVar

import msgspec

from agentq.budget import from_nanos
from agentq.codec import Codec
from agentq.errors import AgentQError, NotFound, ResultTimeout, RunCancelled, RunFailed
from agentq.message import (
    Cancel,
    Chunk,
    Command,
    Entry,
    EntryKind,
    Failure,
    Pause,
    Reply,
    Resume,
    Run,
    RunQuery,
    RunState,
    Send,
    Wait,
)
from agentq.scope import current_scope
from agentq.signal import Signal

if TYPE_CHECKING:
    from agentq.app import AgentQ

R = TypeVar("R")
S = TypeVar("S")

_LOOK_S = 1.0
"""Seconds after which a waiter looks again though nothing rang."""

EventKind = Literal["state", "step", "progress", "emit"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """A question that a run waits for a person to answer, by the signal of that name."""

    signal: str
    ask: str | None
    until: datetime | None


@dataclass(frozen=True, slots=True, kw_only=True)
class RunStatus:
    """A run at one moment."""

    id: str
    task: str
    queue: str
    state: RunState
    attempt: int
    steps: int
    """Steps done."""
    last_step: str
    progress: float | None
    """0 to 1, as the task last said."""
    note: str
    submitted_at: datetime
    started_at: datetime | None
    finished_at: datetime | None
    due_at: datetime | None
    takeovers: int
    """How often another worker took it over because its own had died."""
    tokens: int
    cost_usd: Decimal
    tenant: str | None
    tags: dict[str, str]
    failure: Failure | None
    """Why it failed; while it is not final: why its last attempt did."""
    cancelling: bool
    paused: bool
    waiting_for: tuple[Asked, ...] = ()

    @property
    def final(self) -> bool:
        """Whether it is over."""
        return self.state.final


@dataclass(frozen=True, slots=True, kw_only=True)
class RunEvent:
    """Something that happened in a run, as `RunHandle.events` tells it.

    ``state``: it is now ``state``. ``step``: ``step`` was recorded. ``progress``: ``progress`` and ``note``.
    ``emit``: ``topic`` and ``payload``; after a takeover the same may be emitted again under a higher ``epoch``.
    """

    kind: EventKind
    at: datetime
    epoch: int
    state: RunState | None = None
    step: str = ""
    entry: Entry | None = None
    progress: float | None = None
    note: str = ""
    topic: str = ""
    payload: Any = None


class RunHandle(Generic[R]):
    """One run. Cheap to make; it looks up nothing until a verb is called."""

    __slots__ = ("_app", "_codec", "id")

    def __init__(self, app: AgentQ, run_id: str, codec: Codec[R]) -> None:
        """Use ``task.enqueue(…)`` or ``task.handle(run_id)``."""
        self._app = app
        self._codec = codec
        self.id = run_id

    def __repr__(self) -> str:
        """The run id."""
        return f"<RunHandle {self.id}>"

    async def result(self, timeout: float | None = None) -> R:
        """Wait for the run and return what its task returned.

        Args:
            timeout: seconds to wait; None is for ever.

        Raises:
            RunFailed: it failed for good; ``.failure`` says why.
            RunCancelled: it was cancelled.
            ResultTimeout: it is not over yet (it goes on).
            NotFound: no such run.
            AgentQError: called by a task's own code, where ``ctx.call`` is the way.
            CodecError: what it returned is not of the type that this task declares.

        """
        scope = current_scope()
        if scope is not None and scope.frame is None:
            raise AgentQError(
                "result() waits for another run from inside a run: it would hold the slot that the other may need, and is not "
                "recorded. Use `await ctx.call(task, …)` or ctx.call_many; for a run of another app, wait inside a step."
            )
        run = await self._until_final(timeout)
        if run.state is RunState.SUCCEEDED:
            return self._codec.decode(run.result or b"null")
        if run.state is RunState.FAILED:
            raise RunFailed(self.id, run.failure or Failure(type="Unknown", message="no reason was recorded"))
        raise RunCancelled(self.id, f"run {self.id} was cancelled")

    async def status(self) -> RunStatus:
        """Look the run up. With a broker, one without a row is `submitted`: on its way, or never heard of.

        Raises:
            NotFound: no such run.

        """
        run = await self._look()
        asks = await self._app.store.waits(self.id) if run.state is RunState.WAITING else []
        return status_of(run, asks)

    async def cancel(self) -> bool:
        """Cancel the run and all that it called; a running one ends within a heartbeat. False if it was over already."""
        return await self._command(Cancel(run_id=self.id, early=self._early))

    async def pause(self) -> bool:
        """Hold the run at its next step until `resume`. False if it was over already."""
        return await self._command(Pause(run_id=self.id, early=self._early))

    async def resume(self) -> bool:
        """Let a paused run go on. False if it was not paused."""
        return await self._command(Resume(run_id=self.id, early=self._early))

    async def signal(self, signal: Signal[S], value: S, *, id: str | None = None) -> bool:  # noqa: A002 - the field's word
        """Put a signal into the run's mailbox, before or while it waits for it.

        Args:
            signal: which.
            value: of the signal's type.
            id: the same id twice is one signal; default a fresh one.

        Returns:
            False if a signal of this id came before, or the run is over.

        Raises:
            InvalidArgument: the value is not of the signal's type.
            NotFound: no such run.

        """
        payload = signal.encode(value)
        send = Send(run_id=self.id, name=signal.name, signal_id=id or secrets.token_hex(8), payload=payload, early=self._early)
        return await self._command(send)

    async def events(self) -> AsyncIterator[RunEvent]:
        """Tell what happens from the beginning on, live, until the run is over."""
        store = self._app.store
        tail = _Tail()
        tick, patience_s = -1, 0.0
        while True:
            tick = await store.watch("news", tick, patience_s)
            run = await self._look()
            entries = await store.journal(self.id, tail.seq)
            chunks = await store.stream(self.id, tail.offset)
            for event in tail.advance(run, entries, chunks):
                yield event
            if run.state.final and not entries and not chunks:
                return
            patience_s = 0.0 if run.state.final else _LOOK_S

    async def _until_final(self, timeout_s: float | None) -> Run:
        store = self._app.store
        end = None if timeout_s is None else time.monotonic() + timeout_s
        tick = await store.watch("news", -1, 0.0)
        while True:
            run = await self._look()
            if run.state.final:
                return run
            left = _LOOK_S if end is None else min(_LOOK_S, end - time.monotonic())
            if left <= 0:
                raise ResultTimeout(
                    self.id, f"run {self.id} is still {run.state} in {store.where} after {timeout_s} s; it goes on"
                )
            tick = await store.watch("news", tick, left)

    async def _look(self) -> Run:
        run = await self._find()
        if run is None:
            raise NotFound(f"no run {self.id!r} in {self._app.store.where}")
        return run

    async def _find(self) -> Run | None:
        """The run; where there is a broker and no row yet, one that says so."""
        found = await self._app.store.runs(RunQuery(ids=(self.id,), limit=1))
        if found:
            return found[0]
        return _submitted(self.id, self._app.name) if self._early else None

    @property
    def _early(self) -> bool:
        """Whether the run may still be on its way."""
        return self._app.broker is not None

    async def _command(self, command: Command) -> bool:
        reply = await self._app.store.command(command)
        if reply is Reply.NOT_FOUND:
            raise NotFound(f"no run {self.id!r} in {self._app.store.where}")
        return reply is Reply.DONE


@dataclass(slots=True)
class _Tail:
    """How far a reader of events has come."""

    seq: int = -1
    offset: int = 0
    state: RunState | None = None
    progress: tuple[float | None, str] = field(default=(None, ""))

    def advance(self, run: Run, entries: list[Entry], chunks: list[Chunk]) -> list[RunEvent]:
        """Events for what is new, in the order of their times."""
        news: list[tuple[float, RunEvent]] = []
        for entry in entries:
            self.seq = entry.seq
            if entry.kind is not EntryKind.SAVED:
                step = RunEvent(kind="step", at=_utc(entry.ended_at), epoch=entry.epoch, step=entry.step, entry=entry)
                news.append((entry.ended_at, step))
        for chunk in chunks:
            self.offset = chunk.offset
            payload = msgspec.json.decode(chunk.payload)
            emit = RunEvent(kind="emit", at=_utc(chunk.at), epoch=chunk.epoch, topic=chunk.topic, payload=payload)
            news.append((chunk.at, emit))
        news.sort(key=lambda pair: pair[0])
        events = [event for _, event in news]
        now = datetime.now(UTC)
        if (run.progress, run.progress_note) != self.progress:
            self.progress = (run.progress, run.progress_note)
            events.append(RunEvent(kind="progress", at=now, epoch=run.epoch, progress=run.progress, note=run.progress_note))
        if run.state is not self.state and not (run.state.final and (entries or chunks)):
            self.state = run.state
            events.append(RunEvent(kind="state", at=now, epoch=run.epoch, state=run.state))
        return events


def _submitted(run_id: str, app: str) -> Run:
    """A run as it is known before it has a row: by its id alone."""
    return Run(
        id=run_id, app=app, task="", queue="", state=RunState.SUBMITTED, args=b"null", args_hash="", submitted_at=0.0
    )  # fmt: skip


def status_of(run: Run, waits: list[Wait]) -> RunStatus:
    """Show a row and its open waits to a person."""
    return RunStatus(
        id=run.id,
        task=run.task,
        queue=run.queue,
        state=run.state,
        attempt=run.attempt,
        steps=run.steps,
        last_step=run.last_step,
        progress=run.progress,
        note=run.progress_note,
        submitted_at=_utc(run.submitted_at),
        started_at=_utc_or_none(run.started_at),
        finished_at=_utc_or_none(run.finished_at),
        due_at=_utc_or_none(run.due_at),
        takeovers=run.takeovers,
        tokens=run.tokens,
        cost_usd=from_nanos(run.cost_nanos),
        tenant=run.tenant,
        tags=run.tags,
        failure=run.failure,
        cancelling=run.cancelling,
        paused=run.paused,
        waiting_for=tuple(
            Asked(signal=wait.ref, ask=wait.ask, until=_utc_or_none(wait.due_at)) for wait in waits if wait.kind == "signal"
        ),
    )


def _utc(moment: float) -> datetime:
    return datetime.fromtimestamp(moment, UTC)


def _utc_or_none(moment: float | None) -> datetime | None:
    return None if moment is None else _utc(moment)

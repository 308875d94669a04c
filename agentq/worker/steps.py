"""One step: replay it if it was recorded, else try it under its policy and record what came of it."""

from __future__ import annotations

import asyncio
import hashlib
import inspect
import random
import sys
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any

import msgspec

from agentq.budget import Usage, exceeded
from agentq.errors import BudgetExceeded, CodecError, JournalMismatch, StoreUnavailable
from agentq.failure import failure_from
from agentq.journal import Identity, Mismatch, OnInterrupt, superseding
from agentq.message import Entry, EntryKind, Failure
from agentq.retry import decide
from agentq.scope import Frame, Scope, enter_scope, leave_scope
from agentq.stores.transactional import Rejected, StepTransaction
from agentq.telemetry import emit
from agentq.worker.failures import TIMEOUT, escaped, step_error
from agentq.worker.host import Host
from agentq.worker.mailbox import Mailbox
from agentq.worker.mismatch import other_arguments, other_place
from agentq.worker.transactional import LOSSES, Lost, in_transaction, record

if TYPE_CHECKING:
    from agentq.step import StepSpec

Invoke = Callable[[Callable[..., Any], tuple[Any, ...], dict[str, Any], Scope], Awaitable[Any]]
"""How a body is called: on the loop, in the task's own thread, or in a helper thread."""

INTERRUPTED = "StepInterrupted"


async def call_here(fn: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any], inside: Scope) -> Any:
    """Call a body on the event loop, in the caller's task."""
    inside.owner = asyncio.current_task()
    token = enter_scope(inside)
    try:
        value = fn(*args, **kwargs)
        return await value if inspect.isawaitable(value) else value
    finally:
        leave_scope(token)


class Steps:
    """The steps of one execution."""

    def __init__(self, run: Host, mailbox: Mailbox) -> None:
        """Belong to ``run``."""
        self._run = run
        self._mailbox = mailbox

    async def step(
        self, scope: Scope, spec: StepSpec, args: tuple[Any, ...], kwargs: dict[str, Any], invoke: Invoke, *, foreign: bool
    ) -> Any:
        """Return the recorded value, or do the step and return what was recorded.

        Raises:
            StepFailed: its tries are used up (now, or when it was recorded).
            JournalMismatch: it was recorded with other arguments.
            BudgetExceeded: the run may not do another step.

        """
        run = self._run
        if run.stopping is not None:
            await run.park(scope)
        sign = spec.arguments.digest(args[1:] if spec.is_method else args, kwargs)
        place = scope.place(spec.name, sign, foreign=foreign)
        self._check_order(place, spec)
        entry = run.history.read(place)
        if entry is not None and self._fits(entry, sign, spec):
            return await self._replay(entry, spec)
        return await self._live(scope, spec, place, sign, args, kwargs, invoke)

    def _check_order(self, place: Identity, spec: StepSpec) -> None:
        """A new step in front of recorded ones: what those answered may have been something else."""
        run = self._run
        left_out = run.history.passed_over(place)
        if left_out and (spec.on_mismatch or run.task.spec.on_mismatch) is Mismatch.ERROR:
            emit("journal.mismatch", run_id=run.row.id, step=place[1], branch=place[0], policy=str(Mismatch.ERROR))
            raise other_place(run, place, left_out)

    def _fits(self, entry: Entry, sign: str, spec: StepSpec) -> bool:
        if entry.args_hash == sign:
            return True
        policy = spec.on_mismatch or self._run.task.spec.on_mismatch
        if policy is Mismatch.IGNORE:
            return True
        emit("journal.mismatch", run_id=self._run.row.id, step=entry.step, branch=entry.branch, policy=str(policy))
        if policy is Mismatch.ERROR:
            raise other_arguments(self._run, entry, sign)
        self._run.history.forgive(entry.identity)
        return False

    async def _replay(self, entry: Entry, spec: StepSpec) -> Any:
        emit("step.replayed", run_id=self._run.row.id, step=entry.step, branch=entry.branch)
        raw = await self._run.fetch(entry)
        if entry.kind is EntryKind.FAILED:
            raise step_error(entry, msgspec.json.decode(raw, type=Failure))
        try:
            return spec.codec.decode(raw)
        except CodecError as error:
            raise JournalMismatch(
                f"step {entry.step!r}: its recorded result (entry {entry.seq}) no longer fits its annotation: {error}. Read it "
                f"with a type that takes both, or start over from before it with `agentq runs fork RUN --keep {entry.seq}`."
            ) from None

    async def _live(
        self,
        scope: Scope,
        spec: StepSpec,
        place: Identity,
        sign: str,
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
        invoke: Invoke,
    ) -> Any:
        run = self._run
        interrupted = run.history.begun.get(place)
        if interrupted is not None and not await self._again(scope, spec, place, sign, interrupted):
            answer = run.history.answers[place]
            return await self._replay(answer, spec)
        while True:
            self._allow_one_more()
            attempt, used = run.history.next_try(place)
            run.presence.begin()
            try:
                value = await self._try(spec, place, sign, attempt, args, kwargs, invoke)
            except _Tried as tried:
                delay: float | None = await self._record_failure(spec, place, sign, attempt, used + 1, tried)
            else:
                delay = None
            finally:
                run.presence.end()
                run.step_ended()
            if run.stopping is not None:
                await run.park(scope)
            if delay is None:
                self.check_budget()
                return value
            await run.options.sleep(delay)
            if run.stopping is not None:
                await run.park(scope)

    async def _try(
        self,
        spec: StepSpec,
        place: Identity,
        sign: str,
        attempt: int,
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
        invoke: Invoke,
    ) -> Any:
        """Run the body once and record its value.

        Raises:
            _Tried: the body failed; nothing is recorded yet.

        """
        run = self._run
        began, outer = run.clock.wall(), sys.exception()
        if spec.at_most_once:
            mark = run.ledger.entry(EntryKind.STARTED, place, attempt=attempt, args_hash=sign, started_at=began)
            await run.ledger.commit(mark)
        frame = Frame(spec.name, step_key(run.row.id, place), attempt)
        inside = Scope(run, f"{place[0]}/{place[1]}#{place[2]}", frame=frame)
        fn = run.replacement(spec)
        if run.options.watch_body is not None:
            run.options.watch_body(frame, run.row.id)

        async def once(shared: StepTransaction | None) -> Any:
            raw, value = await self._body(spec, place, sign, frame, lambda: invoke(fn, args, kwargs, inside), began, outer)
            entry = run.ledger.entry(
                EntryKind.DONE, place, attempt=attempt, args_hash=sign, value=raw, started_at=began,
                tokens=frame.tokens, cost_nanos=frame.cost_nanos, keep=shared is None,
            )  # fmt: skip
            await (run.ledger.commit(entry) if shared is None else record(run, shared, entry))
            emit("step.done", run_id=run.row.id, task=run.row.task, step=spec.name, duration_s=entry.ended_at - began)
            return value

        if not spec.transactional or fn is not spec.fn:
            return await once(None)
        try:
            return await in_transaction(run, spec, frame, once)
        except Rejected as rejected:
            cause = rejected.__cause__
            raise _Tried(cause if isinstance(cause, Exception) else rejected, frame, began, outer) from cause
        except Lost as lost:
            error = StoreUnavailable(
                f"{run.store.where}: the transaction of the step was lost {LOSSES} times before its commit"
            )
            raise _Tried(error, frame, began, outer) from lost

    async def _body(
        self,
        spec: StepSpec,
        place: Identity,
        sign: str,
        frame: Frame,
        call: Callable[[], Awaitable[Any]],
        began: float,
        outer: BaseException | None,
    ) -> tuple[bytes, Any]:
        """What the body returned, as it is recorded and as it is read back.

        Raises:
            _Tried: it failed.

        """
        run = self._run
        try:
            returned = await self._timed(spec, call())
            recorded = spec.codec.roundtrip(returned)
        except Exception as error:
            if run.unwinding:  # it was cancelled: what a body makes of that is not what it does
                await run.park()
            raise _Tried(error, frame, began, outer) from error
        except asyncio.CancelledError:
            if run.stopping is None and not spec.at_most_once:
                self._given_up(spec, place, sign, frame, began)
            raise
        except (SystemExit, KeyboardInterrupt) as error:
            named = RuntimeError(f"the step raised {error!r}")
            raise _Tried(named, frame, began, outer) from error
        if run.unwinding:
            await run.park()
        return recorded

    def _given_up(self, spec: StepSpec, place: Identity, sign: str, frame: Frame, began: float) -> None:
        """The code cancelled its own step (a timeout around it, a sibling that failed): record that it was begun here."""
        failure = Failure(type="Cancelled", message="given up by the code that called it", step=spec.name)
        entry = self._run.ledger.entry(
            EntryKind.TRIED, place, attempt=frame.attempt, args_hash=sign, value=msgspec.json.encode(failure), started_at=began,
            tokens=frame.tokens, cost_nanos=frame.cost_nanos,
        )  # fmt: skip
        self._run.ledger.post(entry)

    async def _timed(self, spec: StepSpec, body: Awaitable[Any]) -> Any:
        if spec.timeout_s is None:
            return await body
        try:
            async with asyncio.timeout(spec.timeout_s) as limit:
                return await body
        except TimeoutError as error:
            if limit.expired():
                raise _TooLong(f"took longer than {spec.timeout_s:g} s") from error
            raise

    async def _record_failure(
        self, spec: StepSpec, place: Identity, sign: str, attempt: int, counted: int, tried: _Tried
    ) -> float:
        """Record a failed try; return the delay before the next.

        Raises:
            StepFailed: there is no next.

        """
        run = self._run
        error = tried.error
        inner = escaped(error, run.history.failures, tried.outer)
        failure = failure_from(error, step=spec.name, seq=inner[-1].seq if inner else None)
        if isinstance(error, _TooLong):
            failure = msgspec.structs.replace(failure, type=TIMEOUT)
        delay = decide(spec.retry, counted, failure, error, random.random())  # noqa: S311 - jitter
        kind = EntryKind.FAILED if delay is None else EntryKind.TRIED
        entry = run.ledger.entry(
            kind, place, attempt=attempt, args_hash=sign, value=msgspec.json.encode(failure), started_at=tried.began,
            tokens=tried.frame.tokens, cost_nanos=tried.frame.cost_nanos,
        )  # fmt: skip
        forgiven = () if delay is None else self._supersede(inner)
        await run.ledger.commit(entry, *forgiven)
        name = "step.failed" if delay is None else "step.retrying"
        more = {} if delay is None else {"delay_s": delay}
        emit(name, run_id=run.row.id, task=run.row.task, step=spec.name, branch=place[0], attempt=attempt,
             error=failure.type, **more)  # fmt: skip
        if delay is None:
            final = step_error(entry, failure)
            final.carried = inner
            raise final from error
        return delay

    def supersede(self, error: BaseException) -> tuple[Entry, ...]:
        """Let the step failures that ``error`` carries no longer count: whoever tries again really tries them again.

        The entries are in the history; the caller commits them in the same breath.
        """
        return self._supersede(self.escaped(error))

    def _supersede(self, failed: list[Entry]) -> tuple[Entry, ...]:
        run = self._run
        entries = superseding(failed, run.history.next_seq, epoch=run.claim.ref.epoch, now=run.clock.wall())
        for entry in entries:
            run.history.append(entry)
        return entries

    def escaped(self, error: BaseException) -> list[Entry]:
        """Journal entries of the step failures that ``error`` carries."""
        return escaped(error, self._run.history.failures)

    async def _again(self, scope: Scope, spec: StepSpec, place: Identity, sign: str, begun: Entry) -> bool:
        """Decide on an ``at_most_once`` step that was begun and never ended: True is another try."""
        run = self._run
        emit("step.interrupted", run_id=run.row.id, step=spec.name, branch=place[0], policy=str(spec.on_interrupt))
        choice = spec.on_interrupt
        if choice is OnInterrupt.ASK:
            choice = await self._mailbox.ask_about(scope, spec.name, place, skippable=spec.skippable)
        if choice is OnInterrupt.RETRY:
            return True
        if choice is OnInterrupt.SKIP:
            entry = run.ledger.entry(EntryKind.DONE, place, attempt=begun.attempt, args_hash=sign, value=b"null")
        else:
            failure = Failure(
                type=INTERRUPTED,
                message=f"step {spec.name!r} was begun at most once and its worker died in the middle: it may have happened",
                permanent=True,
                step=spec.name,
            )
            entry = run.ledger.entry(
                EntryKind.FAILED, place, attempt=begun.attempt, args_hash=sign, value=msgspec.json.encode(failure)
            )
        await run.ledger.commit(entry)
        return False

    def _allow_one_more(self) -> None:
        budget, history = self._run.task.spec.budget, self._run.history
        if budget is not None:
            usage = Usage(history.steps + 1, history.tokens, history.cost_nanos)
            if over := exceeded(budget, usage):
                raise BudgetExceeded(f"the budget of task {self._run.task.name!r} is used up: {over}")

    def check_budget(self) -> None:
        """Raise BudgetExceeded when tokens or money are over the task's budget."""
        budget, history = self._run.task.spec.budget, self._run.history
        if budget is not None and (over := exceeded(budget, Usage(0, history.tokens, history.cost_nanos))):
            raise BudgetExceeded(f"the budget of task {self._run.task.name!r} is used up: {over}")


class _Tried(Exception):
    def __init__(self, error: Exception, frame: Frame, began: float, outer: BaseException | None) -> None:
        super().__init__()
        self.error = error
        self.frame = frame
        self.began = began
        self.outer = outer
        """What was being handled where the step was called: context of the body's errors, but not theirs."""


class _TooLong(TimeoutError):
    """A try took longer than its step's timeout."""


def step_key(run_id: str, place: Identity) -> str:
    """Idempotency key of a step: 32 hex characters, the same for every try of it anywhere."""
    text = f"{run_id}\x1f{place[0]}\x1f{place[1]}\x1f{place[2]}"
    return hashlib.blake2b(text.encode(), digest_size=16).hexdigest()

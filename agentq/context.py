"""What a task is given: steps, branches, waits, children, memory and money of its run."""

from __future__ import annotations

import functools
import hashlib
from collections.abc import Awaitable, Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import TYPE_CHECKING, Any, Generic, ParamSpec, TypeVar, overload

from agentq.budget import to_nanos
from agentq.codec import Codec, codec_for
from agentq.errors import AgentQError, ChildFailed, InvalidArgument
from agentq.message import Failure
from agentq.scope import Scope, current_scope
from agentq.signal import Signal
from agentq.step import Effect, Interrupted, ad_hoc

if TYPE_CHECKING:
    from agentq.retry import Retry
    from agentq.running import Running
    from agentq.task import Bound, Task

P = ParamSpec("P")
R = TypeVar("R")
R_co = TypeVar("R_co", covariant=True)
T = TypeVar("T")


class Unset:
    """Type of the marker for an argument that was not given."""

    def __repr__(self) -> str:
        """As it shows in a signature."""
        return "…"


UNSET = Unset()
_ANY: Codec[Any] = codec_for(Any)


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome(Generic[R_co]):
    """How a child run of ``call_many`` ended."""

    run_id: str
    task: str
    value: R_co | None = None
    failure: Failure | None = None
    """Why it has no value; ``type`` is ``Cancelled`` for a child that was cancelled or not needed any more."""

    @property
    def ok(self) -> bool:
        """Whether it succeeded."""
        return self.failure is None

    def unwrap(self) -> R_co:
        """Return the value.

        Raises:
            ChildFailed: there is none.

        """
        if self.failure is not None:
            raise ChildFailed(self.run_id, self.task, self.failure)
        return self.value  # type: ignore[return-value]  # without a failure it is the task's own result


class _Base:
    """What a run says of itself, for both kinds of context."""

    __slots__ = ("_root", "_run")

    def __init__(self, run: Running, root: Scope) -> None:
        self._run = run
        self._root = root

    def _here(self) -> Scope:
        scope = current_scope()
        return scope if scope is not None and scope.run is self._run else self._root

    @property
    def run_id(self) -> str:
        """The run's id."""
        return self._run.row.id

    @property
    def attempt(self) -> int:
        """Attempt of the run, from 1; only failures count."""
        return self._run.row.attempt

    @property
    def tenant(self) -> str | None:
        """Whose run it is."""
        return self._run.row.tenant

    @property
    def tags(self) -> dict[str, str]:
        """As given with the submission."""
        return dict(self._run.row.tags)

    @property
    def fence(self) -> int:
        """Fencing token: grows with every claim of the run. A system that remembers the highest can refuse zombies."""
        return self._run.claim.ref.epoch

    @property
    def idempotency_key(self) -> str:
        """32 hex characters for other systems to deduplicate by: of the step inside one, of the run outside."""
        frame = self._here().frame
        return frame.key if frame else hashlib.blake2b(self.run_id.encode(), digest_size=16).hexdigest()

    @property
    def draining(self) -> bool:
        """Whether the worker wants to hand this run on: a long step may save what it has and return early."""
        return self._run.draining

    @property
    def replaying(self) -> bool:
        """Whether the code is still going over what it did before."""
        return self._run.history.replaying(self._here().branch)


class Context(_Base):
    """The run of an async task, as its first argument."""

    __slots__ = ()

    @overload
    async def step(
        self,
        name: str,
        fn: Callable[[], Any],
        *,
        returns: type[T],
        retry: Retry | None = None,
        timeout: timedelta | None = None,
        effect: Effect = "at_least_once",
        on_interrupt: Interrupted = "fail",
    ) -> T: ...
    @overload
    async def step(
        self,
        name: str,
        fn: Callable[[], Any],
        *,
        returns: Any,
        retry: Retry | None = None,
        timeout: timedelta | None = None,
        effect: Effect = "at_least_once",
        on_interrupt: Interrupted = "fail",
    ) -> Any: ...
    @overload
    async def step(
        self,
        name: str,
        fn: Callable[[], Awaitable[R]],
        *,
        retry: Retry | None = None,
        timeout: timedelta | None = None,
        effect: Effect = "at_least_once",
        on_interrupt: Interrupted = "fail",
    ) -> R: ...
    @overload
    async def step(
        self,
        name: str,
        fn: Callable[[], R],
        *,
        retry: Retry | None = None,
        timeout: timedelta | None = None,
        effect: Effect = "at_least_once",
        on_interrupt: Interrupted = "fail",
    ) -> R: ...
    async def step(
        self,
        name: str,
        fn: Callable[[], Any],
        *,
        returns: Any = Any,
        retry: Retry | None = None,
        timeout: timedelta | None = None,
        effect: Effect = "at_least_once",
        on_interrupt: Interrupted = "fail",
    ) -> Any:
        """Do a call once that is not ours to decorate.

        Args:
            name: its name in the journal.
            fn: called without arguments; may return an awaitable. A plain function blocks the event loop while it runs:
                use ``ctx.thread`` for those that take long.
            returns: type to read the recorded result as; default plain JSON data.
            retry, timeout, effect, on_interrupt: as for ``@aq.step``.

        Returns:
            What ``fn`` returned, as its type ``returns``.

        Raises:
            StepFailed: its tries are used up.

        """
        scope = self._here()
        options = {} if retry is None else {"retry": retry}
        spec = ad_hoc(name, fn, returns, timeout=timeout, effect=effect, on_interrupt=on_interrupt, **options)
        return await self._run.step(scope, spec, (), {})

    async def thread(self, fn: Callable[P, R], /, *args: P.args, **kwargs: P.kwargs) -> R:
        """Call a synchronous function in a thread; if it is a step, it is journaled as one."""
        return await self._run.in_thread(self._here(), fn, args, kwargs)  # type: ignore[no-any-return]

    async def gather(self, *work: Awaitable[T], limit: int | None = None) -> list[T]:
        """Run branches side by side and return their results in order.

        Each branch has a place of its own in the journal, so that they may finish in any order and still replay. When one
        raises, the others are cancelled and its error is raised.

        Args:
            work: coroutines, not yet started.
            limit: how many run at a time.

        """
        return await self._run.gather(self._here(), work, _positive("limit", limit))

    @overload
    async def transcript(self, name: str, type: type[T]) -> Transcript[T]: ...
    @overload
    async def transcript(self, name: str, type: Any = Any) -> Transcript[Any]: ...
    async def transcript(self, name: str, type: Any = Any) -> Transcript[Any]:  # noqa: A002 - it is the items' type
        """Return an append-only list of the run: O(n) bytes for an agent's history however often it is resumed."""
        return Transcript(self._run, self, name, codec_for(type))

    async def save(self, state: Any) -> None:
        """Keep a snapshot of where this branch stands; only the last is kept."""
        await self._run.save(self._here(), codec_for(type(state)), state)

    @overload
    async def restore(self, type: type[T], *, default: T) -> T: ...
    @overload
    async def restore(self, type: type[T]) -> T | None: ...
    @overload
    async def restore(self, type: Any, *, default: Any = None) -> Any: ...
    async def restore(self, type: Any, *, default: Any = None) -> Any:  # noqa: A002 - it is the state's type
        """Return the last snapshot of this branch, or ``default``. The first call of its branch.

        Code after it goes on from the snapshot: steps recorded before it are not replayed.

        Raises:
            AgentQError: something else was called in this branch before.

        """
        state = await self._run.restore(self._here(), codec_for(type))
        return default if state is UNSET else state

    async def sleep(self, duration: timedelta | float) -> None:
        """Wait so long (seconds if a number). Frees the slot: no worker is needed meanwhile."""
        scope = self._here()
        await self._run.sleep(scope, _seconds("duration", duration), None, foreign=scope.foreign())

    async def sleep_until(self, moment: datetime) -> None:
        """Wait for a moment (with a time zone). Frees the slot."""
        scope = self._here()
        await self._run.sleep(scope, None, _moment("moment", moment), foreign=scope.foreign())

    @overload
    async def wait_for(self, signal: Signal[T], *, ask: str | None = None, timeout: timedelta | None = None) -> T: ...
    @overload
    async def wait_for(
        self, signal: Signal[T], *, ask: str | None = None, timeout: timedelta | None = None, default: R
    ) -> T | R: ...
    async def wait_for(
        self, signal: Signal[Any], *, ask: str | None = None, timeout: timedelta | None = None, default: Any = UNSET
    ) -> Any:
        """Wait for the next signal of that name. Frees the slot: no worker is needed meanwhile.

        Args:
            signal: which. One that came before is taken at once; each is taken once, first in first out.
            ask: the question a person is to answer, shown by ``agentq runs show``.
            timeout: how long; None is for ever.
            default: returned after the timeout.

        Raises:
            WaitTimeout: after the timeout, without a default.

        """
        scope = self._here()
        limit = None if timeout is None else timeout.total_seconds()
        return await self._run.wait_for(scope, signal, ask, limit, default, foreign=scope.foreign())

    async def call(self, task: Task[P, R], /, *args: P.args, **kwargs: P.kwargs) -> R:
        """Run another task as a child and return its result. Frees the slot meanwhile; cancelled with this run.

        Raises:
            ChildFailed: it failed for good or was cancelled.
            InvalidArgument: an argument does not fit.

        """
        scope = self._here()
        bound = task.bind(*args, **kwargs)
        outcomes = await self._run.call_many(scope, [bound], limit=None, tolerate=0, first=None, foreign=scope.foreign())
        return outcomes[0].unwrap()  # type: ignore[no-any-return]

    async def call_many(
        self, calls: Iterable[Bound[R]], *, limit: int | None = None, tolerate: int = 0, first: int | None = None
    ) -> list[Outcome[R]]:
        """Run many children and return their outcomes in order.

        Args:
            calls: ``task.bind(…)`` for each.
            limit: how many at a time.
            tolerate: how many may fail; one more cancels the rest and raises.
            first: return as soon as so many succeeded, and cancel the rest.

        Raises:
            ChildFailed: more than ``tolerate`` failed; the error of the first of them.

        """
        scope = self._here()
        return await self._run.call_many(
            scope, list(calls), limit=_positive("limit", limit), tolerate=tolerate,
            first=_positive("first", first), foreign=scope.foreign(),
        )  # fmt: skip

    async def now(self) -> datetime:
        """Return the time, the same at every replay."""
        scope = self._here()
        return datetime.fromtimestamp(await self._run.now(scope, foreign=scope.foreign()), UTC)

    async def spend(self, *, tokens: int = 0, cost_usd: Decimal | float | str = 0) -> None:
        """Count usage: inside a step it is committed with it, outside as an entry of its own.

        Raises:
            BudgetExceeded: the task's budget is used up (what was spent is recorded all the same).
            InvalidArgument: a negative or unreadable amount.

        """
        scope = self._here()
        await self._run.spend(scope, _amount(tokens), to_nanos(cost_usd), foreign=scope.foreign())

    async def progress(self, fraction: float | None, note: str = "") -> None:
        """Show how far the run is: 0 to 1, and a word. Silent while replaying."""
        self._run.progress(self._here(), fraction, note)

    async def emit(self, topic: str, payload: Any) -> None:
        """Stream a piece (any JSON value) to whoever watches the run. Silent while replaying; may repeat after a takeover."""
        self._run.emit(self._here(), topic, _ANY.encode(payload))


class SyncContext(_Base):
    """The run of a sync task, as its first argument. The same verbs, blocking; they are for the task's own threads."""

    __slots__ = ()

    @overload
    def step(
        self,
        name: str,
        fn: Callable[[], Any],
        *,
        returns: type[T],
        retry: Retry | None = None,
        timeout: timedelta | None = None,
        effect: Effect = "at_least_once",
        on_interrupt: Interrupted = "fail",
    ) -> T: ...
    @overload
    def step(
        self,
        name: str,
        fn: Callable[[], Any],
        *,
        returns: Any,
        retry: Retry | None = None,
        timeout: timedelta | None = None,
        effect: Effect = "at_least_once",
        on_interrupt: Interrupted = "fail",
    ) -> Any: ...
    @overload
    def step(
        self,
        name: str,
        fn: Callable[[], R],
        *,
        retry: Retry | None = None,
        timeout: timedelta | None = None,
        effect: Effect = "at_least_once",
        on_interrupt: Interrupted = "fail",
    ) -> R: ...
    def step(
        self,
        name: str,
        fn: Callable[[], Any],
        *,
        returns: Any = Any,
        retry: Retry | None = None,
        timeout: timedelta | None = None,
        effect: Effect = "at_least_once",
        on_interrupt: Interrupted = "fail",
    ) -> Any:
        """Do a call once that is not ours to decorate; see `Context.step`."""
        options = {} if retry is None else {"retry": retry}
        spec = ad_hoc(name, fn, returns, timeout=timeout, effect=effect, on_interrupt=on_interrupt, **options)
        return self._run.step_from_thread(self._here(), spec, (), {})

    def gather(self, *work: Callable[[], T], limit: int | None = None) -> list[T]:
        """Run functions side by side, each in a thread and with a place of its own in the journal; results in order."""
        most = _positive("limit", limit)
        results: list[T] = self._do(lambda scope, foreign: self._run.gather_threads(scope, work, most, foreign=foreign))
        return results

    @overload
    def transcript(self, name: str, type: type[T]) -> SyncTranscript[T]: ...
    @overload
    def transcript(self, name: str, type: Any = Any) -> SyncTranscript[Any]: ...
    def transcript(self, name: str, type: Any = Any) -> SyncTranscript[Any]:  # noqa: A002 - the items' type
        """Return an append-only list of the run; see `Context.transcript`."""
        return SyncTranscript(self._run, self, name, codec_for(type))

    def save(self, state: Any) -> None:
        """Keep a snapshot of where this branch stands; only the last is kept."""
        codec = codec_for(type(state))
        self._do(lambda scope, _: self._run.save(scope, codec, state))

    @overload
    def restore(self, type: type[T], *, default: T) -> T: ...
    @overload
    def restore(self, type: type[T]) -> T | None: ...
    @overload
    def restore(self, type: Any, *, default: Any = None) -> Any: ...
    def restore(self, type: Any, *, default: Any = None) -> Any:  # noqa: A002 - it is the state's type
        """Return the last snapshot of this branch, or ``default``; see `Context.restore`."""
        codec = codec_for(type)
        state = self._do(lambda scope, _: self._run.restore(scope, codec))
        return default if state is UNSET else state

    def sleep(self, duration: timedelta | float) -> None:
        """Wait so long (seconds if a number). Frees the slot."""
        seconds = _seconds("duration", duration)
        self._do(lambda scope, foreign: self._run.sleep(scope, seconds, None, foreign=foreign))

    def sleep_until(self, moment: datetime) -> None:
        """Wait for a moment (with a time zone). Frees the slot."""
        until = _moment("moment", moment)
        self._do(lambda scope, foreign: self._run.sleep(scope, None, until, foreign=foreign))

    @overload
    def wait_for(self, signal: Signal[T], *, ask: str | None = None, timeout: timedelta | None = None) -> T: ...
    @overload
    def wait_for(self, signal: Signal[T], *, ask: str | None = None, timeout: timedelta | None = None, default: R) -> T | R: ...
    def wait_for(
        self, signal: Signal[Any], *, ask: str | None = None, timeout: timedelta | None = None, default: Any = UNSET
    ) -> Any:
        """Wait for the next signal of that name; see `Context.wait_for`."""
        limit = None if timeout is None else timeout.total_seconds()
        return self._do(lambda scope, foreign: self._run.wait_for(scope, signal, ask, limit, default, foreign=foreign))

    def call(self, task: Task[P, R], /, *args: P.args, **kwargs: P.kwargs) -> R:
        """Run another task as a child and return its result; see `Context.call`."""
        (outcome,) = self.call_many([task.bind(*args, **kwargs)])
        return outcome.unwrap()

    def call_many(
        self, calls: Iterable[Bound[R]], *, limit: int | None = None, tolerate: int = 0, first: int | None = None
    ) -> list[Outcome[R]]:
        """Run many children and return their outcomes in order; see `Context.call_many`."""
        bound = list(calls)
        verb = functools.partial(
            self._run.call_many, limit=_positive("limit", limit), tolerate=tolerate, first=_positive("first", first)
        )
        outcomes: list[Outcome[R]] = self._do(lambda scope, foreign: verb(scope, bound, foreign=foreign))
        return outcomes

    def now(self) -> datetime:
        """Return the time, the same at every replay."""
        return datetime.fromtimestamp(self._do(lambda scope, foreign: self._run.now(scope, foreign=foreign)), UTC)

    def spend(self, *, tokens: int = 0, cost_usd: Decimal | float | str = 0) -> None:
        """Count usage; see `Context.spend`."""
        amount, nanos = _amount(tokens), to_nanos(cost_usd)
        self._do(lambda scope, foreign: self._run.spend(scope, amount, nanos, foreign=foreign))

    def progress(self, fraction: float | None, note: str = "") -> None:
        """Show how far the run is: 0 to 1, and a word. Silent while replaying."""
        self._run.progress(self._here(), fraction, note)

    def emit(self, topic: str, payload: Any) -> None:
        """Stream a piece (any JSON value) to whoever watches the run; see `Context.emit`."""
        self._run.emit(self._here(), topic, _ANY.encode(payload))

    def _do(self, verb: Callable[[Scope, bool], Any]) -> Any:
        return self._run.from_thread(self._here(), verb)


class Current(_Base):
    """The run as a step's body sees it, and anything the body calls; sync and async alike."""

    __slots__ = ()

    @property
    def step_attempt(self) -> int:
        """Number of this try of the step, from 1."""
        frame = self._here().frame
        return frame.attempt if frame else 1

    def spend(self, *, tokens: int = 0, cost_usd: Decimal | float | str = 0) -> None:
        """Count usage, committed with the step.

        Raises:
            AgentQError: not inside a step; there ``ctx.spend`` is the verb.

        """
        frame = self._here().frame
        if frame is None:
            raise AgentQError("current().spend(…) counts with the step it happens in; outside a step use ctx.spend(…)")
        frame.tokens += _amount(tokens)
        frame.cost_nanos += to_nanos(cost_usd)

    def progress(self, fraction: float | None, note: str = "") -> None:
        """Show how far the run is: 0 to 1, and a word."""
        self._run.progress(self._here(), fraction, note)

    def emit(self, topic: str, payload: Any) -> None:
        """Stream a piece (any JSON value) to whoever watches the run."""
        self._run.emit(self._here(), topic, _ANY.encode(payload))


def current() -> Current:
    """Return the run that the calling code works for.

    Raises:
        AgentQError: not inside a run.

    """
    scope = current_scope()
    if scope is None:
        raise AgentQError("agentq.current() is only there inside a run, in a step or anything that it calls")
    return Current(scope.run, scope)


class _Log(Sequence[T], Generic[T]):
    """The items of a transcript that the code has come to."""

    def __init__(self, run: Running, context: _Base, name: str, codec: Codec[T]) -> None:
        self._run = run
        self._context = context
        self._step = f"ctx.transcript:{name}"
        self._codec = codec
        self._items: dict[int, T] = {}
        self._order: list[int] | None = None
        for entry in run.history.passed(self._step):
            self._items[entry.seq] = codec.decode(run.fetched(entry))

    def __len__(self) -> int:
        """Count the items."""
        return len(self._items)

    @overload
    def __getitem__(self, index: int) -> T: ...
    @overload
    def __getitem__(self, index: slice) -> list[T]: ...
    def __getitem__(self, index: int | slice) -> T | list[T]:
        """Return items by position."""
        order = self._sorted()
        if isinstance(index, slice):
            return [self._items[seq] for seq in order[index]]
        return self._items[order[index]]

    def __iter__(self) -> Iterator[T]:
        """Go over the items in the order in which they were recorded."""
        return iter([self._items[seq] for seq in self._sorted()])

    def __repr__(self) -> str:
        """As a list."""
        return f"<transcript {list(self)!r}>"

    def _sorted(self) -> list[int]:
        if self._order is None:
            self._order = sorted(self._items)
        return self._order

    def _take(self, entry: Any) -> None:
        self._items[entry.seq] = self._codec.decode(self._run.fetched(entry))
        self._order = None


class Transcript(_Log[T]):
    """An append-only list of a run: a chat history, notes. While replaying it shows only what this replay has appended."""

    async def append(self, *items: T) -> None:
        """Append items; each is recorded once."""
        scope = self._context._here()  # noqa: SLF001 - the log belongs to its context
        for item in items:
            self._take(await self._run.append(scope, self._step, self._codec, item, foreign=scope.foreign()))


class SyncTranscript(_Log[T]):
    """A `Transcript` for sync tasks."""

    def append(self, *items: T) -> None:
        """Append items; each is recorded once."""
        scope = self._context._here()  # noqa: SLF001 - the log belongs to its context
        for item in items:
            verb = functools.partial(self._run.append, scope, self._step, self._codec, item)
            self._take(self._run.from_thread(scope, lambda _, foreign: verb(foreign=foreign)))  # noqa: B023 - called at once


def _positive(name: str, value: int | None) -> int | None:
    if value is not None and value < 1:
        raise InvalidArgument(name, value, "give 1 or more, or None for no limit")
    return value


def _amount(tokens: int) -> int:
    if not isinstance(tokens, int) or tokens < 0:
        raise InvalidArgument("tokens", tokens, "give a whole number of zero or more")
    return tokens


def _seconds(name: str, span: timedelta | float) -> float:
    seconds = span.total_seconds() if isinstance(span, timedelta) else float(span)
    if not 0 <= seconds < 10**9:
        raise InvalidArgument(name, span, "give a duration from zero up")
    return seconds


def _moment(name: str, moment: datetime) -> float:
    if moment.tzinfo is None:
        raise InvalidArgument(name, moment, "give it a time zone")
    return moment.timestamp()

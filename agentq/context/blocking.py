"""The context of a sync task: the same verbs, blocking."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import TYPE_CHECKING, Any, ParamSpec, TypeVar, overload

from agentq.budget import to_nanos
from agentq.codec import codec_for
from agentq.context.about import ANY, About, moment_of, positive, seconds_of, whole_tokens
from agentq.context.outcome import UNSET, Outcome
from agentq.context.transcript import SyncTranscript
from agentq.scope import Scope
from agentq.signal import Signal
from agentq.step import Effect, Interrupted, ad_hoc

if TYPE_CHECKING:
    from agentq.retry import Retry
    from agentq.task import Bound, Task

P = ParamSpec("P")
R = TypeVar("R")
T = TypeVar("T")


class SyncContext(About):
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
        most = positive("limit", limit)
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
        seconds = seconds_of("duration", duration)
        self._do(lambda scope, foreign: self._run.sleep(scope, seconds, None, foreign=foreign))

    def sleep_until(self, moment: datetime) -> None:
        """Wait for a moment (with a time zone). Frees the slot."""
        until = moment_of("moment", moment)
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
            self._run.call_many, limit=positive("limit", limit), tolerate=tolerate, first=positive("first", first)
        )
        outcomes: list[Outcome[R]] = self._do(lambda scope, foreign: verb(scope, bound, foreign=foreign))
        return outcomes

    def now(self) -> datetime:
        """Return the time, the same at every replay."""
        return datetime.fromtimestamp(self._do(lambda scope, foreign: self._run.now(scope, foreign=foreign)), UTC)

    def spend(self, *, tokens: int = 0, cost_usd: Decimal | float | str = 0) -> None:
        """Count usage; see `Context.spend`."""
        amount, nanos = whole_tokens(tokens), to_nanos(cost_usd)
        self._do(lambda scope, foreign: self._run.spend(scope, amount, nanos, foreign=foreign))

    def progress(self, fraction: float | None, note: str = "") -> None:
        """Show how far the run is: 0 to 1, and a word. Silent while replaying."""
        self._run.progress(self._here(), fraction, note)

    def emit(self, topic: str, payload: Any) -> None:
        """Stream a piece (any JSON value) to whoever watches the run; see `Context.emit`."""
        self._run.emit(self._here(), topic, ANY.encode(payload))

    def _do(self, verb: Callable[[Scope, bool], Any]) -> Any:
        return self._run.from_thread(self._here(), verb)

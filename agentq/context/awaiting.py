"""The context of an async task."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import TYPE_CHECKING, Any, ParamSpec, TypeVar, overload

from agentq.budget import to_nanos
from agentq.codec import codec_for
from agentq.context.about import ANY, About, moment_of, positive, seconds_of, whole_tokens
from agentq.context.outcome import UNSET, Outcome
from agentq.context.transcript import Transcript
from agentq.signal import Signal
from agentq.step import Effect, Interrupted, ad_hoc

if TYPE_CHECKING:
    from agentq.retry import Retry
    from agentq.task import Bound, Task

P = ParamSpec("P")
R = TypeVar("R")
T = TypeVar("T")


class Context(About):
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
            retry: as for ``@aq.step``, like the following.
            timeout: of one try.
            effect: ``at_least_once`` or ``at_most_once``.
            on_interrupt: what to do with an ``at_most_once`` call that died in the middle.

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
        return await self._run.gather(self._here(), work, positive("limit", limit))

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
        await self._run.sleep(scope, seconds_of("duration", duration), None, foreign=scope.foreign())

    async def sleep_until(self, moment: datetime) -> None:
        """Wait for a moment (with a time zone). Frees the slot."""
        scope = self._here()
        await self._run.sleep(scope, None, moment_of("moment", moment), foreign=scope.foreign())

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
            scope, list(calls), limit=positive("limit", limit), tolerate=tolerate,
            first=positive("first", first), foreign=scope.foreign(),
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
        await self._run.spend(scope, whole_tokens(tokens), to_nanos(cost_usd), foreign=scope.foreign())

    async def progress(self, fraction: float | None, note: str = "") -> None:
        """Show how far the run is: 0 to 1, and a word. Silent while replaying."""
        self._run.progress(self._here(), fraction, note)

    async def emit(self, topic: str, payload: Any) -> None:
        """Stream a piece (any JSON value) to whoever watches the run. Silent while replaying; may repeat after a takeover."""
        self._run.emit(self._here(), topic, ANY.encode(payload))

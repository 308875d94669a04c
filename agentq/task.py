"""What a task is: a registered function with its options, and the calls of it that a producer can enqueue."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any, Generic, Literal, Never, ParamSpec, TypeVar

from agentq.budget import Budget
from agentq.codec import Arguments, Codec, result_codec
from agentq.codec.annotations import resolve
from agentq.context import Context, SyncContext
from agentq.errors import DeclarationError
from agentq.handle import RunHandle
from agentq.journal import Mismatch
from agentq.options import CallOptions, changed, is_duration
from agentq.retry import Retry
from agentq.step import spec_of

if TYPE_CHECKING:
    from agentq.app import AgentQ

P = ParamSpec("P")
R = TypeVar("R")
R_co = TypeVar("R_co", covariant=True)


@dataclass(frozen=True, slots=True, kw_only=True)
class TaskSpec:
    """How a task's runs are run; declared once, with the function."""

    name: str
    queue: str
    retry: Retry
    is_async: bool
    timeout_s: float | None = None
    attempt_timeout_s: float | None = None
    budget: Budget | None = None
    version: str | None = None
    on_mismatch: Mismatch = Mismatch.ERROR
    isolate: bool = False


@dataclass(frozen=True, slots=True, eq=False)
class Bound(Generic[R_co]):
    """A call of a task that has not been made yet: the task, its arguments, its options."""

    task: Task[..., R_co]
    args: bytes
    """The arguments as the codec wrote them."""
    args_hash: str
    """The same for equal arguments, in whatever order a set or a mapping gave its items."""
    call: CallOptions

    def __repr__(self) -> str:
        """The task's name; arguments may be private."""
        return f"<Bound {self.task.name}>"


class Task(Generic[P, R]):
    """A registered task function. Enqueue it; inside another run, ``ctx.call`` it."""

    def __init__(self, app: AgentQ, fn: Callable[..., Any], spec: TaskSpec, *, call: CallOptions | None = None) -> None:
        """Use ``@aq.task``."""
        self.app = app
        self.fn = fn
        self.spec = spec
        self.name = spec.name
        self.queue = spec.queue
        self.__name__ = fn.__name__
        self.__doc__ = fn.__doc__
        self.__module__ = fn.__module__
        self._call = call or CallOptions()
        if call is None:
            self.arguments: Arguments = Arguments(fn, skip=1)
            self.arguments.check()
            self.codec: Codec[R] = result_codec(fn)

    def __repr__(self) -> str:
        """App, name and queue."""
        return f"<Task {self.app.name}:{self.name} queue={self.queue}>"

    def __call__(self, *_: object, **__: object) -> Never:
        """Refuse: calling the function would run it outside any run.

        Raises:
            TypeError: always, with what to write instead.

        """
        raise TypeError(
            f"task {self.name!r} is not called directly: `await {self.name}.enqueue(…)` from outside, "
            f"`await ctx.call({self.name}, …)` inside a run, `await testing.run({self.name}.bind(…))` in a test"
        )

    async def enqueue(self, *args: P.args, **kwargs: P.kwargs) -> RunHandle[R]:
        """Submit one run and return its handle; inside a run, a step that is done once.

        Raises:
            InvalidArgument: an argument does not fit the function's annotation (nothing is submitted).
            KeyConflict: the idempotency key names a run with other arguments.
            NotOpen: outside ``async with aq:``.
            StoreUnavailable: the store cannot be reached; nothing is known to be submitted.
            NotSent: nor the broker, where there is one. A broker answers before anybody compares keys: there a key with
                other arguments becomes a dead letter instead of a KeyConflict.

        """
        (handle,) = await self.app.enqueue_many([self.bind(*args, **kwargs)])
        return handle

    async def enqueue_on(self, connection: object, /, *args: P.args, **kwargs: P.kwargs) -> RunHandle[R]:
        """Submit one run inside a transaction of yours: it is there when that commits, or never.

        Args:
            connection: of asyncpg or psycopg (async or sync), in a transaction on the database that is the app's PostgreSQL
                store. The run goes straight there, past a broker.
            *args: the task's own.
            **kwargs: the task's own.

        Raises:
            InvalidArgument: an argument does not fit the function's annotation, or the connection not the store.
            KeyConflict, NotOpen, StoreUnavailable: as `enqueue`.

        """
        (handle,) = await self.app.enqueue_many([self.bind(*args, **kwargs)], on=connection)
        return handle

    def bind(self, *args: P.args, **kwargs: P.kwargs) -> Bound[R]:
        """Check and keep a call for `AgentQ.enqueue_many`, `Context.call_many`, schedules and tests.

        Raises:
            InvalidArgument: an argument does not fit the function's annotation.

        """
        return Bound(self, *self.arguments.pack(args, kwargs), self._call)

    def options(
        self,
        *,
        key: str | None = None,
        tenant: str | None = None,
        ordering_key: str | None = None,
        delay: timedelta | None = None,
        at: datetime | None = None,
        priority: int | None = None,
        deadline: datetime | timedelta | None = None,
        tags: Mapping[str, str] | None = None,
        max_attempts: int | None = None,
        timeout: timedelta | None = None,
    ) -> Task[P, R]:
        """Return the same task with options for the submissions made through it.

        Args:
            key: idempotency key; within (app, tenant, task) it determines the run id: the same key is the same run.
            tenant: whose run it is.
            ordering_key: runs of one key within the queue start in the order of their submission, one at a time: the next
                one when the one before is final.
            delay: start not before this long from the submission.
            at: start not before this moment (with a time zone); not together with ``delay``.
            priority: higher starts first within the queue; default 0.
            deadline: wall-clock end, waits included; a timedelta counts from the submission.
            tags: strings to find it by.
            max_attempts: instead of the task's own.
            timeout: running time, waits excluded, instead of the task's own.

        Raises:
            InvalidArgument: naming the field.

        """
        call = changed(
            self._call, key=key, tenant=tenant, ordering_key=ordering_key, delay=delay, at=at, priority=priority,
            deadline=deadline, tags=tags, max_attempts=max_attempts, timeout=timeout,
        )  # fmt: skip
        other: Task[P, R] = Task(self.app, self.fn, self.spec, call=call)
        other.arguments, other.codec = self.arguments, self.codec
        return other

    def handle(self, run_id: str) -> RunHandle[R]:
        """Return the handle of an existing run, typed by this task; nothing is looked up yet."""
        return RunHandle(self.app, run_id, self.codec)


def declare(
    app: AgentQ,
    fn: Callable[..., Any],
    *,
    name: str | None,
    queue: str,
    retry: Retry | None,
    timeout: timedelta | None,
    attempt_timeout: timedelta | None,
    budget: Budget | None,
    version: str | None,
    on_mismatch: Literal["error", "rerun", "ignore"],
    isolate: bool,
) -> Task[..., Any]:
    """Check a function and make it a task; see `AgentQ.task`."""
    _check_function(fn, queue)
    is_async = inspect.iscoroutinefunction(fn)
    _check_context(fn, is_async=is_async)
    for field_name, given, fits, words in (
        ("timeout", timeout, is_duration(timeout), "a timedelta longer than zero"),
        ("attempt_timeout", attempt_timeout, is_duration(attempt_timeout), "a timedelta longer than zero"),
        ("retry", retry, isinstance(retry, Retry), "a Retry, such as Retry(max_attempts=5)"),
        ("budget", budget, isinstance(budget, Budget), "a Budget, such as Budget(steps=200)"),
        ("version", version, isinstance(version, str), "a string"),
    ):
        if given is not None and not fits:
            raise DeclarationError(f"@aq.task {fn.__name__}: {field_name}={given!r} must be {words}")
    try:
        mismatch = Mismatch(on_mismatch)
    except ValueError:
        raise DeclarationError(
            f"@aq.task {fn.__name__}: on_mismatch={on_mismatch!r} must be 'error', 'rerun' or 'ignore'"
        ) from None
    spec = TaskSpec(
        name=name or fn.__name__,
        queue=queue,
        retry=retry or Retry(),
        is_async=is_async,
        timeout_s=None if timeout is None else timeout.total_seconds(),
        attempt_timeout_s=None if attempt_timeout is None else attempt_timeout.total_seconds(),
        budget=budget,
        version=version,
        on_mismatch=mismatch,
        isolate=isolate,
    )
    return Task(app, fn, spec)


def _check_function(fn: Callable[..., Any], queue: str) -> None:
    if not inspect.isfunction(fn):
        raise DeclarationError(f"@aq.task: {fn!r} is not a function")
    if spec_of(fn) is not None:
        raise DeclarationError(f"@aq.task {fn.__name__}: it is a step already; a task calls steps, it is none itself")
    if inspect.isasyncgenfunction(fn) or inspect.isgeneratorfunction(fn):
        raise DeclarationError(f"@aq.task {fn.__name__}: a generator has no single result; return it, and stream with ctx.emit")
    if not queue or any(char in queue for char in "=, \n"):
        raise DeclarationError(f"@aq.task {fn.__name__}: queue={queue!r} must be a name without '=', ',' or blanks")


def _check_context(fn: Callable[..., Any], *, is_async: bool) -> None:
    parameters = list(inspect.signature(fn).parameters.values())
    right, wrong = ("Context", "SyncContext") if is_async else ("SyncContext", "Context")
    kind = "async" if is_async else "sync"
    if not parameters:
        raise DeclarationError(f"@aq.task {fn.__name__}: the first parameter is the context: `ctx: {right}`")
    first = parameters[0]
    hint = resolve(fn, first.name, fn.__annotations__.get(first.name))
    if hint is (Context if not is_async else SyncContext):
        raise DeclarationError(
            f"@aq.task {fn.__name__}: a {kind} function takes `{first.name}: {right}`, not {wrong}"
            + ("" if is_async else "; or make it `async def`")
        )
    if hint is not None and hint is not Any and hint not in {Context, SyncContext}:
        raise DeclarationError(
            f"@aq.task {fn.__name__}: the first parameter is the context: write `{first.name}: {right}` first"
        )

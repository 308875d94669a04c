"""The app: where tasks and steps are declared, and what opens the store that they live in and the broker in front of it."""

from __future__ import annotations

import asyncio
import difflib
import inspect
import os
import re
import threading
import time
import weakref
from collections.abc import AsyncIterator, Callable, Coroutine, Iterable
from concurrent.futures import Future
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from datetime import timedelta
from types import TracebackType
from typing import Any, Concatenate, Literal, ParamSpec, Protocol, Self, TypeVar, overload

from agentq import producer, settings
from agentq import step as step_module
from agentq.brokers.base import Broker
from agentq.budget import Budget
from agentq.codec import codec_for
from agentq.context import Context, SyncContext
from agentq.errors import AgentQError, DeclarationError, InvalidArgument, NotOpen, UnknownTask
from agentq.handle import RunHandle
from agentq.opening import Opened, open_app
from agentq.portal import Portal
from agentq.retry import Retry
from agentq.scope import current_scope
from agentq.step import Effect, Interrupted, OnMismatch, SameFunction
from agentq.stores.base import Store
from agentq.task import Bound, Task, declare

P = ParamSpec("P")
R = TypeVar("R")

Lifespan = Callable[["AgentQ"], AbstractAsyncContextManager[Any]]
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,62}")


class AgentQ:
    """A named set of tasks and the store that their runs live in."""

    def __init__(
        self,
        name: str,
        *,
        store: str | Store | None = None,
        broker: str | Broker | None = None,
        queue: str = "default",
        lifespan: Lifespan | None = None,
    ) -> None:
        """Name the app; nothing is opened or read from the environment yet.

        Args:
            name: part of every run's identity; letters, digits, ``.``, ``_`` and ``-``.
            store: URL or store; default ``AGENTQ_STORE``, else ``sqlite:./agentq.db``.
            broker: URL or broker; default ``AGENTQ_BROKER``, else none: the store is the queue.
            queue: where tasks that name no queue go.
            lifespan: an async context manager over the app, entered once per worker process (and by ``testing.run``):
                the place to open clients.

        Raises:
            DeclarationError: the name does not fit.

        """
        if not _NAME.fullmatch(name):
            raise DeclarationError(f"AgentQ(name={name!r}): use up to 63 letters, digits, '.', '_' or '-'")
        self.name = name
        self.queue = queue
        self.lifespan = lifespan
        self.tasks: dict[str, Task[..., Any]] = {}
        self.transactional: set[str] = set()
        """Names of the steps declared here that need a store which shares its transactions."""
        self._given_store = store
        self._given_broker = broker
        self._without_broker = False
        self._opened: Opened | None = None
        self._openings = 0
        self._opening: Future[None] | None = None
        self._portal_lock = threading.Lock()
        _apps.add(self)
        self._portal: Portal | None = None

    def __repr__(self) -> str:
        """Name and number of tasks."""
        return f"<AgentQ {self.name}: {len(self.tasks)} tasks>"

    @property
    def queues(self) -> tuple[str, ...]:
        """Every queue that a task declares, sorted."""
        return tuple(sorted({task.queue for task in self.tasks.values()}))

    @property
    def opened(self) -> Opened:
        """The open store and broker.

        Raises:
            NotOpen: outside ``async with aq:``.

        """
        if self._opened is None:
            raise NotOpen(
                f"AgentQ({self.name!r}) is not open: write `async with aq:` around this, "
                "or `aq.blocking(…)` in synchronous code"
            )
        return self._opened

    @property
    def store(self) -> Store:
        """The open store; raises as `opened`."""
        return self.opened.store

    @property
    def broker(self) -> Broker | None:
        """The broker that submissions go through, None where the store is the queue; raises as `opened`."""
        return self.opened.broker

    @overload
    def step(self, fn: Callable[P, R], /) -> Callable[P, R]: ...
    @overload
    def step(
        self,
        fn: None = None,
        /,
        *,
        name: str | None = None,
        retry: Retry | None = None,
        timeout: timedelta | None = None,
        effect: Effect = "at_least_once",
        on_interrupt: Interrupted = "fail",
        on_mismatch: OnMismatch | None = None,
        ignore: tuple[str, ...] = (),
    ) -> SameFunction: ...
    def step(self, fn: Callable[..., Any] | None = None, /, **options: Any) -> Any:
        """Make a function a step: called inside a run it is journaled, called elsewhere it is just the function.

        Args:
            fn: the function, where the decorator is used without parentheses. Async, or sync (then it is called from sync
                tasks directly and from async ones through ``ctx.thread``). Methods are welcome; ``self`` is not hashed.
            **options: ``name`` in the journal (default the function's), ``retry`` (of a failed try; default none, the task's
                own comes after), ``timeout`` of one try, ``effect`` (``at_least_once``: a try that died with its worker is
                repeated; ``at_most_once``: it is not), ``on_interrupt`` (what then: ``fail``, ``retry``, ``skip`` with None,
                or ``ask`` a person), ``on_mismatch`` (default the task's), ``ignore`` (parameters that do not belong to its
                identity: clients, loggers).

        Raises:
            DeclarationError: it can never work as declared.

        """
        _known("@aq.step", options, step_module.step)
        made = step_module.step(**options) if fn is None else step_module.step(fn)
        if options.get("effect") != "transactional":
            return made
        return lambda function: step_module.noted(made(function), self.transactional)

    @overload
    def task(self, fn: Callable[Concatenate[Context, P], Coroutine[Any, Any, R]], /) -> Task[P, R]: ...
    @overload
    def task(self, fn: Callable[Concatenate[SyncContext, P], R], /) -> Task[P, R]: ...
    @overload
    def task(
        self,
        fn: None = None,
        /,
        *,
        name: str | None = None,
        queue: str | None = None,
        retry: Retry | None = None,
        timeout: timedelta | None = None,
        attempt_timeout: timedelta | None = None,
        budget: Budget | None = None,
        version: str | None = None,
        on_mismatch: Literal["error", "rerun", "ignore"] = "error",
        isolate: bool = False,
    ) -> _Declare: ...
    def task(self, fn: Callable[..., Any] | None = None, /, **options: Any) -> Any:
        """Register a function as a task.

        Args:
            fn: the function, where the decorator is used without parentheses. Async with a `Context`, or sync with a
                `SyncContext`; the context comes first.
            **options: ``name`` (default the function's), ``queue``, ``retry`` (of whole attempts; default three),
                ``timeout`` (running time over all attempts, waits excluded), ``attempt_timeout``, ``budget``, ``version``
                (of the code, recorded when a run starts), ``on_mismatch`` (``error``, ``rerun``, ``ignore``: a resumed run
                calls a step with other arguments than it recorded), ``isolate`` (run in a child process of its own).

        Raises:
            DeclarationError: it can never work as declared; says what to write.

        """
        _known("@aq.task", options, self._register)
        if fn is None:
            return lambda function: self._register(function, **options)
        return self._register(fn)

    def _register(
        self,
        fn: Callable[..., Any],
        *,
        name: str | None = None,
        queue: str | None = None,
        retry: Retry | None = None,
        timeout: timedelta | None = None,
        attempt_timeout: timedelta | None = None,
        budget: Budget | None = None,
        version: str | None = None,
        on_mismatch: Literal["error", "rerun", "ignore"] = "error",
        isolate: bool = False,
    ) -> Task[..., Any]:
        task = declare(
            self, fn, name=name, queue=queue or self.queue, retry=retry, timeout=timeout, attempt_timeout=attempt_timeout,
            budget=budget, version=version, on_mismatch=on_mismatch, isolate=isolate,
        )  # fmt: skip
        if task.name in self.tasks:
            raise DeclarationError(
                f"@aq.task: two tasks are called {task.name!r} "
                f"({self.tasks[task.name].fn.__module__} and {fn.__module__}); give one of them name=…"
            )
        self.tasks[task.name] = task
        return task

    @property
    def store_url(self) -> str | None:
        """URL by which another process can open the same store; None where the app was given a store object."""
        given = self._given_store
        return given or settings.load().store.url if given is None or isinstance(given, str) else None

    @property
    def broker_url(self) -> str | None:
        """URL of the broker that is meant; None where there is none, or the app was given a broker object."""
        given = self._given_broker or settings.load().broker.url
        return given if isinstance(given, str) and not self._without_broker else None

    def find(self, name: str) -> Task[..., Any]:
        """Return the task of that name.

        Raises:
            UnknownTask: naming those that are registered.

        """
        task = self.tasks.get(name)
        if task is None:
            known = ", ".join(sorted(self.tasks)) or "none yet"
            raise UnknownTask("task", name, f"registered with AgentQ({self.name!r}): {known}")
        return task

    def handle(self, run_id: str) -> RunHandle[Any]:
        """Return the handle of any run; its result is plain JSON data."""
        return RunHandle(self, run_id, codec_for(Any))

    async def enqueue_many(self, calls: Iterable[Bound[R]], *, on: object = None) -> list[RunHandle[R]]:
        """Submit many runs at once; inside a run, a step that is done once.

        Up to 5,000 are submitted all or none; more go in such chunks. ``on`` is a connection of yours, see `Task.enqueue_on`.

        Raises:
            KeyConflict: a key names a run with other arguments; the other calls are in.
            NotOpen, StoreUnavailable, NotSent: as `Task.enqueue`.
            InvalidArgument: ``on`` does not fit the store.

        """
        bound = list(calls)
        for call in bound:
            if not isinstance(call, Bound):
                raise InvalidArgument("calls", call, "give task.bind(…) for each run")
        scope = current_scope()
        if scope is not None and on is None:
            ids: list[str] = await scope.run.enqueue(scope, bound)
        else:
            if scope is not None and scope.frame is None:
                raise AgentQError("enqueue_on in a task's own code would happen again with each resumption: call it in a step")
            now = time.time()
            ids = await self.opened.submit([producer.envelope(call, app=self.name, now=now) for call in bound], on=on)
        return [RunHandle(self, run_id, call.task.codec) for run_id, call in zip(ids, bound, strict=True)]

    def blocking(self, verb: Coroutine[Any, Any, R]) -> R:
        """Run one verb from synchronous code: Django, Flask, a shell.

        The first call opens the app in a background thread of this process, which stays until the process ends. In a
        synchronous task it is the run's own way to the app: an ``enqueue`` there is a step that is done once.

        Raises:
            RuntimeError: called on an event loop, where ``await`` is the way.

        """
        try:
            asyncio.get_running_loop()
        except RuntimeError:
            pass
        else:
            verb.close()
            raise RuntimeError("aq.blocking(…) is for synchronous code; here is an event loop, so await the verb instead")
        scope = current_scope()
        if scope is not None:  # in a thread of a run: its own loop has the app open, and an enqueue there is a step
            return scope.run.from_thread(scope, lambda *_: verb)  # type: ignore[no-any-return]
        with self._portal_lock:
            if self._portal is None:
                self._portal = Portal(self)
        return self._portal.run(verb)

    async def __aenter__(self) -> Self:
        """Open the store; opening twice is fine, the last exit closes.

        Raises:
            StoreUnavailable, StoreIncompatible: from the store.
            InvalidArgument: an environment variable or URL does not fit.

        """
        self._openings += 1
        if self._openings > 1:
            if self._opening is not None:  # somebody is at it, perhaps on another loop
                await asyncio.shield(asyncio.wrap_future(self._opening))
            return self
        opening = self._opening = Future()
        try:
            broker = None if self._without_broker else self._given_broker or settings.load().broker.url
            self._opened = await open_app(self.name, self._given_store, broker)
        except BaseException as error:
            self._openings, self._opened, self._opening = 0, None, None
            opening.set_exception(error)
            opening.exception()  # seen, though nobody else may be waiting
            raise
        self._opening = None
        opening.set_result(None)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close what this app opened."""
        self._openings -= 1
        if self._openings == 0:
            opened, self._opened = self._opened, None
            if opened is not None:
                await opened.closing.aclose()

    def _begin_anew(self) -> None:
        """In a forked child: what the parent has open is the parent's, and is neither used nor closed here."""
        _parents.append((self._opened, self._portal))
        self._opened, self._portal, self._openings = None, None, 0
        self._portal_lock = threading.Lock()

    @asynccontextmanager
    async def using(
        self, *, store: str | Store | None = None, broker: str | Broker | None = "configured"
    ) -> AsyncIterator[Self]:
        """Open the app on another store or broker for a while; tests use ``store="memory:"``, and ``broker=None`` for none.

        Raises:
            RuntimeError: the app is open already.

        """
        if self._openings:
            raise RuntimeError(f"AgentQ({self.name!r}) is open already; using(…) opens it itself")
        before = self._given_store, self._given_broker, self._without_broker
        if store is not None:
            self._given_store = store
        if broker is None:
            self._without_broker = True
        elif broker != "configured":
            self._given_broker, self._without_broker = broker, False
        try:
            async with self:
                yield self
        finally:
            self._given_store, self._given_broker, self._without_broker = before


def _known(where: str, options: dict[str, Any], declare: Callable[..., Any]) -> None:
    names = [name for name, each in inspect.signature(declare).parameters.items() if each.kind is each.KEYWORD_ONLY]
    for name, value in options.items():
        if name not in names:
            near = difflib.get_close_matches(name, names, n=1)
            hint = f"; did you mean {near[0]}=…?" if near else ""
            raise DeclarationError(f"{where}: there is no option {name}={value!r}{hint} Options: {', '.join(names)}")


_apps: weakref.WeakSet[AgentQ] = weakref.WeakSet()
_parents: list[object] = []


def _begin_all_anew() -> None:
    for app in list(_apps):
        app._begin_anew()  # noqa: SLF001 - of this module


os.register_at_fork(after_in_child=_begin_all_anew)


class _Declare(Protocol):
    """Type of ``@aq.task(…)`` with options."""

    @overload
    def __call__(self, fn: Callable[Concatenate[Context, P], Coroutine[Any, Any, R]], /) -> Task[P, R]: ...
    @overload
    def __call__(self, fn: Callable[Concatenate[SyncContext, P], R], /) -> Task[P, R]: ...

"""Synchronous code of a run: threads that can be asked to end, and their verbs carried to the event loop and back."""

from __future__ import annotations

import asyncio
import contextvars
import ctypes
import threading
from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from queue import SimpleQueue
from typing import Any

from agentq.errors import AgentQError
from agentq.scope import Scope, enter_scope, leave_scope

_local = threading.local()


class Unwind(BaseException):
    """Ends the code of a run in its thread; no ``except Exception`` catches it."""


@dataclass(slots=True, eq=False)
class _Body:
    """A step body for the thread that called the step."""

    fn: Callable[..., Any]
    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    inside: Scope
    done: asyncio.Future[Any]


@dataclass(slots=True, eq=False)
class _Answer:
    value: Any = None
    error: BaseException | None = None


class Line:
    """A thread that works for a run."""

    def __init__(self, name: str, loop: asyncio.AbstractEventLoop, fn: Callable[[], Any], scope: Scope, *, owner: bool) -> None:
        """Call ``fn`` in ``scope`` when started; as ``owner`` the scope's calls from it are counted by position."""
        self._loop = loop
        self._fn = fn
        self._scope = scope
        self._owner = owner
        self._guard = threading.Lock()
        self._in_code = False
        self._context = contextvars.copy_context()
        self.ended: asyncio.Future[Any] = loop.create_future()
        self._thread = threading.Thread(target=self._context.run, args=(self._main,), name=name, daemon=True)

    async def run(self) -> Any:
        """Run to the end and return the result; when cancelled, make the code end first."""
        self._thread.start()
        while not self.ended.done():
            try:
                await asyncio.shield(self.ended)
            except asyncio.CancelledError:
                if self.ended.cancelled():
                    raise
                self.interrupt()
                await self._end_quietly()
                raise
            except BaseException:  # noqa: BLE001 - read again below
                break
        return self.ended.result()

    def interrupt(self) -> None:
        """Raise `Unwind` in the code at its next bytecode. Code inside a C call goes on until that returns."""
        with self._guard:
            if self._in_code and self._thread.ident is not None:
                _raise_in(self._thread.ident, Unwind)

    async def _end_quietly(self) -> None:
        while not self.ended.done():
            try:
                await asyncio.wait([self.ended])
            except asyncio.CancelledError:
                self.interrupt()
        if not self.ended.cancelled():
            self.ended.exception()

    def _main(self) -> None:
        _local.line = self
        if self._owner:
            self._scope.owner = threading.current_thread()
        enter_scope(self._scope)
        answer = self.code(self._fn)
        try:
            self._loop.call_soon_threadsafe(_resolve, self.ended, answer)
        except RuntimeError:
            return  # the loop is gone: the worker ended without this thread

    def code(self, fn: Callable[[], Any]) -> _Answer:
        """Call the user's code; only while it runs an interrupt is let in."""
        before = self._in_code
        try:
            try:
                self._in_code = True
                return _Answer(fn())
            finally:
                with self._guard:
                    self._in_code = before
                    if not before and self._thread.ident is not None:
                        _raise_in(self._thread.ident, None)
        except BaseException as error:  # noqa: BLE001 - whatever it was is raised where it is awaited
            return _Answer(error=error)

    def pause(self) -> None:
        """Leave the user's code to wait for the loop's answer."""
        with self._guard:
            self._in_code = False

    def proceed(self) -> None:
        """Go back to the user's code."""
        with self._guard:
            self._in_code = True


def call_on_loop(
    loop: asyncio.AbstractEventLoop, scope: Scope, start: Callable[[bool, Invoker], Coroutine[Any, Any, Any]], track: Track
) -> Any:
    """Await a verb on the loop while this thread waits, running here the step bodies that it hands back.

    Raises:
        AgentQError: called on the event loop itself.
        Unwind: the run is being stopped.

    """
    if _on(loop):
        raise AgentQError(
            "a synchronous verb or step was called on the event loop of an async task: call sync steps with "
            "`await ctx.thread(step, …)`"
        )
    inbox: SimpleQueue[_Body | _Answer] = SimpleQueue()
    line: Line | None = getattr(_local, "line", None)
    invoke = _invoker(loop, inbox, line)
    foreign = scope.foreign()

    def begin() -> None:
        task = loop.create_task(start(foreign, invoke), context=context)
        track(task)
        task.add_done_callback(lambda done: inbox.put(_outcome(done)))

    context = contextvars.copy_context()
    if line is not None:
        line.pause()
    loop.call_soon_threadsafe(begin)
    while isinstance(item := inbox.get(), _Body):
        answer = _run_body(line, item)
        loop.call_soon_threadsafe(_resolve, item.done, answer)
    if line is not None:
        line.proceed()
    if item.error is not None:
        raise item.error
    return item.value


Track = Callable[["asyncio.Task[Any]"], None]
Invoker = Callable[[Callable[..., Any], tuple[Any, ...], dict[str, Any], Scope], Coroutine[Any, Any, Any]]


def _invoker(loop: asyncio.AbstractEventLoop, inbox: SimpleQueue[_Body | _Answer], line: Line | None) -> Invoker:
    """Return what calls a step body in the thread that called the step."""

    async def invoke(fn: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any], inside: Scope) -> Any:
        body = _Body(fn, args, kwargs, inside, loop.create_future())
        inbox.put(body)
        try:
            return await asyncio.shield(body.done)
        except asyncio.CancelledError:
            while not body.done.done():
                if line is not None:
                    line.interrupt()
                await asyncio.wait([body.done])
            if not body.done.cancelled():
                body.done.exception()
            raise

    return invoke


def _run_body(line: Line | None, body: _Body) -> _Answer:
    body.inside.owner = threading.current_thread()
    token = enter_scope(body.inside)
    try:
        if line is not None:
            return line.code(lambda: body.fn(*body.args, **body.kwargs))
        return _Answer(body.fn(*body.args, **body.kwargs))
    except BaseException as error:  # noqa: BLE001 - raised where the step is awaited
        return _Answer(error=error)
    finally:
        leave_scope(token)


def _outcome(task: asyncio.Task[Any]) -> _Answer:
    if task.cancelled():
        return _Answer(error=Unwind())
    error = task.exception()
    return _Answer(error=error) if error is not None else _Answer(task.result())


def _resolve(future: asyncio.Future[Any], answer: _Answer) -> None:
    if future.done():
        return
    if answer.error is None:
        future.set_result(answer.value)
    elif isinstance(answer.error, Unwind):
        future.cancel()
    elif isinstance(answer.error, StopIteration | SystemExit | KeyboardInterrupt):
        future.set_exception(RuntimeError(f"the code raised {answer.error!r}"))
    else:
        future.set_exception(answer.error)


def _on(loop: asyncio.AbstractEventLoop) -> bool:
    try:
        return asyncio.get_running_loop() is loop
    except RuntimeError:
        return False


def _raise_in(ident: int, error: type[BaseException] | None) -> None:
    argument = ctypes.py_object(error) if error is not None else None
    ctypes.pythonapi.PyThreadState_SetAsyncExc(ctypes.c_ulong(ident), argument)

"""What a step is: a function, its name, and how often, how long and how dangerously it may run."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, Literal, ParamSpec, Protocol, TypeVar, cast, get_args

from agentq.codec import Arguments, Codec, codec_for, result_codec
from agentq.errors import CodecError, DeclarationError
from agentq.journal import RESERVED, Mismatch, OnInterrupt
from agentq.options import is_duration
from agentq.retry import Retry
from agentq.scope import current_scope

P = ParamSpec("P")
R = TypeVar("R")

Effect = Literal["at_least_once", "at_most_once", "transactional"]
Interrupted = Literal["retry", "skip", "fail", "ask"]
OnMismatch = Literal["error", "rerun", "ignore"]


class SameFunction(Protocol):
    """Type of ``@aq.step(…)`` with options: the function keeps its signature."""

    def __call__(self, fn: Callable[P, R], /) -> Callable[P, R]:
        """Declare ``fn``."""
        ...


ONCE = Retry(max_attempts=1)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class StepSpec:
    """A step's declaration; compared by identity, so that a test can replace just this one."""

    name: str
    fn: Callable[..., Any]
    is_async: bool
    is_method: bool = False
    """Whether the first argument of a call is ``self``, which is not part of its identity."""
    arguments: Arguments
    codec: Codec[Any]
    retry: Retry = ONCE
    timeout_s: float | None = None
    at_most_once: bool = False
    transactional: bool = False
    """Whether its body and the record of its result share a transaction of the store's database."""
    on_interrupt: OnInterrupt = OnInterrupt.FAIL
    on_mismatch: Mismatch | None = None
    """None follows the task's own."""
    skippable: bool = False
    """Whether None may stand for its result."""


def step(
    fn: Callable[..., Any] | None = None,
    /,
    *,
    name: str | None = None,
    retry: Retry | None = None,
    timeout: timedelta | None = None,
    effect: Effect = "at_least_once",
    on_interrupt: Interrupted = "fail",
    on_mismatch: OnMismatch | None = None,
    ignore: tuple[str, ...] = (),
) -> Callable[..., Any]:
    """Make a function a step, or return what does; see `agentq.AgentQ.step`.

    Raises:
        DeclarationError: it can never work as declared.

    """

    def declare(function: Callable[..., Any]) -> Callable[..., Any]:
        spec = _spec(function, name, ignore, retry=retry or ONCE, timeout=timeout, effect=effect,
                     on_interrupt=on_interrupt, on_mismatch=on_mismatch)  # fmt: skip
        return _wrap(function, spec)

    return declare if fn is None else declare(fn)


def spec_of(fn: Callable[..., Any]) -> StepSpec | None:
    """The step that a function (or bound method) was declared as, if any."""
    spec = getattr(fn, "__agentq_step__", None)
    return spec if isinstance(spec, StepSpec) else None


def noted(fn: Callable[..., Any], names: set[str]) -> Callable[..., Any]:
    """Add the name of the step that ``fn`` was declared as; returns ``fn``."""
    names.add(fn.__agentq_step__.name)  # type: ignore[attr-defined]  # `_wrap` has put it there
    return fn


def ad_hoc(name: str, fn: Callable[..., Any], returns: Any, **options: Any) -> StepSpec:
    """A step for one call that is not ours to decorate: its identity is its name and place, it has no arguments."""
    return _build(name, fn, _NO_ARGUMENTS, codec_for(returns), is_async=inspect.iscoroutinefunction(fn), **options)


def _nothing() -> None: ...


_NO_ARGUMENTS = Arguments(_nothing)


def _spec(function: Callable[..., Any], name: str | None, ignore: tuple[str, ...], **options: Any) -> StepSpec:
    if not callable(function) or isinstance(function, type) or not hasattr(function, "__qualname__"):
        raise DeclarationError(f"@aq.step: {function!r} is not a function; a task is no step, and a partial has no name")
    if inspect.isasyncgenfunction(function) or inspect.isgeneratorfunction(function):
        raise DeclarationError(
            f"@aq.step {function.__qualname__}: a generator has no single result to record; return a list, "
            "and send pieces out with agentq.current().emit(…)"
        )
    is_method = _is_method(function)
    arguments = Arguments(function, skip=1 if is_method else 0, ignore=ignore)
    own_name = function.__qualname__.rsplit("<locals>.", 1)[-1] if is_method else function.__name__
    codec = result_codec(function)
    return _build(
        own_name if name is None else name,
        function,
        arguments,
        codec,
        is_async=inspect.iscoroutinefunction(function),
        is_method=is_method,
        **options,
    )


def _build(
    name: str,
    fn: Callable[..., Any],
    arguments: Arguments,
    codec: Codec[Any],
    *,
    is_async: bool,
    is_method: bool = False,
    retry: Retry = ONCE,
    timeout: timedelta | None = None,
    effect: str = "at_least_once",
    on_interrupt: str = "fail",
    on_mismatch: str | None = None,
) -> StepSpec:
    if not isinstance(retry, Retry):
        raise DeclarationError(f"step {name!r}: retry={retry!r} must be a Retry, such as Retry(max_attempts=3)")
    if timeout is not None and not is_duration(timeout):
        raise DeclarationError(f"step {name!r}: timeout={timeout!r} must be a timedelta longer than zero")
    if on_interrupt != "fail" and effect != "at_most_once":
        raise DeclarationError(f"step {name!r}: on_interrupt={on_interrupt!r} says something only with effect='at_most_once'")
    if effect not in get_args(Effect):
        raise DeclarationError(f"step {name!r}: effect={effect!r} must be 'at_least_once', 'at_most_once' or 'transactional'")
    if effect == "transactional" and not is_async:
        raise DeclarationError(
            f"step {name!r}: effect='transactional' wants an `async def`: agentq.current().connection is awaited"
        )
    if not name or any(char in name for char in "/~#") or name.startswith(RESERVED):
        raise DeclarationError(
            f"step name {name!r} must not be empty, contain '/', '~' or '#' (they separate branches) or begin with {RESERVED!r}"
        )
    try:
        interrupt = OnInterrupt(on_interrupt)
        mismatch = None if on_mismatch is None else Mismatch(on_mismatch)
    except ValueError as error:
        raise DeclarationError(f"step {name!r}: {error}") from None
    skippable = _takes_none(codec)
    if interrupt is OnInterrupt.SKIP and not skippable:
        raise DeclarationError(
            f"step {name!r}: on_interrupt='skip' makes its result None, which its annotation does not take; write `-> … | None`"
        )
    return StepSpec(
        name=name, fn=fn, is_async=is_async, is_method=is_method, arguments=arguments, codec=codec, retry=retry,
        timeout_s=None if timeout is None else timeout.total_seconds(),
        at_most_once=effect == "at_most_once", transactional=effect == "transactional",
        on_interrupt=interrupt, on_mismatch=mismatch, skippable=skippable,
    )  # fmt: skip


def _wrap(function: Callable[..., Any], spec: StepSpec) -> Callable[..., Any]:
    if spec.is_async:

        @functools.wraps(function)
        async def call_async(*args: Any, **kwargs: Any) -> Any:
            scope = current_scope()
            if scope is None:
                return await cast("Awaitable[Any]", function(*args, **kwargs))
            return await scope.run.step(scope, spec, args, kwargs)

        wrapper: Any = call_async
    else:

        @functools.wraps(function)
        def call_sync(*args: Any, **kwargs: Any) -> Any:
            scope = current_scope()
            if scope is None:
                return function(*args, **kwargs)
            return scope.run.step_from_thread(scope, spec, args, kwargs)

        wrapper = call_sync
    wrapper.__agentq_step__ = spec
    return cast("Callable[..., Any]", wrapper)


def _is_method(function: Callable[..., Any]) -> bool:
    """Whether the function is written inside a class: its first parameter is then ``self`` or ``cls``."""
    parameters = list(inspect.signature(function).parameters)
    inside_class = "." in function.__qualname__.rsplit("<locals>.", 1)[-1]
    return inside_class and bool(parameters) and parameters[0] in {"self", "cls"}


def _takes_none(codec: Codec[Any]) -> bool:
    try:
        codec.decode(b"null")
    except CodecError:
        return False
    return True

"""Turning an exception into a `Failure`: data that can be kept, shown and decided on in another process."""

from __future__ import annotations

import traceback
from collections.abc import Iterator
from pathlib import Path

from agentq import errors
from agentq.message import Failure
from agentq.redact import redact

MAX_MESSAGE_BYTES = 4096
MAX_TRACEBACK_BYTES = 16_384

_OWN = str(Path(__file__).resolve().parent)
_CUT = " [...] "
_MAIN = ("__main__", "__mp_main__")
_HOPELESS = (
    errors.PermanentError,
    errors.DeclarationError,
    errors.InvalidArgument,
    errors.CodecError,
    errors.KeyConflict,
)
"""Raised by code that will do the same again: another try cannot help."""


def type_name(cls: type[BaseException]) -> str:
    """Qualified name of an exception class; bare for builtins and for classes of the main script."""
    if cls.__module__.startswith("agentq."):  # a private subclass goes by the name that users can catch
        cls = next((base for base in cls.__mro__ if base.__module__ == errors.__name__), cls)
    if cls.__module__ == "builtins" or cls.__module__ in _MAIN:
        return cls.__qualname__
    return f"{cls.__module__}.{cls.__qualname__}"


def leaves(error: BaseException) -> Iterator[BaseException]:
    """Yield the members of an exception group, however deep; any other error is its own only leaf."""
    if isinstance(error, BaseExceptionGroup):
        for member in error.exceptions:
            yield from leaves(member)
    else:
        yield error


def failure_from(error: BaseException, *, step: str | None = None, seq: int | None = None) -> Failure:
    """Describe ``error`` for journal, store and people, with what looks like a credential hidden.

    A group is permanent when one of its members is, and waits for the longest ``retry_after`` among them. A `StepFailed`
    or `ChildFailed` is as permanent as what it carries.
    """
    members = list(leaves(error))
    waits = [seconds for member in members if (seconds := _retry_after(member)) is not None]
    return Failure(
        type=type_name(type(error)),
        message=_shorten(redact(_message(error, members)), MAX_MESSAGE_BYTES),
        traceback=_shorten(redact(_traceback(error)), MAX_TRACEBACK_BYTES),
        permanent=any(_permanent(member) for member in members),
        retry_after_s=max(waits, default=None),
        step=step,
        seq=seq,
    )


def _carried(error: BaseException) -> Failure | None:
    return error.failure if isinstance(error, errors.StepFailed | errors.ChildFailed | errors.RunFailed) else None


def _permanent(error: BaseException) -> bool:
    carried = _carried(error)
    return carried.permanent if carried else isinstance(error, _HOPELESS)


def _retry_after(error: BaseException) -> float | None:
    if isinstance(error, errors.TemporaryError):
        return None if error.retry_after is None else float(error.retry_after)
    carried = _carried(error)
    return carried.retry_after_s if carried else None


def _message(error: BaseException, members: list[BaseException]) -> str:
    if not isinstance(error, BaseExceptionGroup):
        return _text(error)
    return f"{_text(error)}: " + "; ".join(f"{type_name(type(member))}: {_text(member)}" for member in members)


def _text(error: BaseException) -> str:
    """``str(error)`` with its notes, whatever the error's own ``__str__`` does."""
    try:
        text = str(error)
    except Exception as broken:  # noqa: BLE001 - a broken __str__ must not hide the failure itself
        text = f"<no message: its __str__ raised {type(broken).__name__}>"
    notes = getattr(error, "__notes__", ())
    return "\n".join([text, *map(str, notes)]) if notes else text


def _traceback(error: BaseException) -> str:
    try:
        shown = traceback.TracebackException.from_exception(error, compact=True)
        _hide_own_frames(shown)
        return "".join(shown.format())
    except Exception as broken:  # noqa: BLE001 - as above
        return f"<no traceback: formatting it raised {type(broken).__name__}>"


def _hide_own_frames(shown: traceback.TracebackException) -> None:
    """Drop frames of this package, in causes and group members too: a user's error is read in the user's code."""
    todo = [shown]
    while todo:
        each = todo.pop()
        each.stack = traceback.StackSummary.from_list([frame for frame in each.stack if not _own(frame.filename)])
        todo.extend(other for other in (each.__cause__, each.__context__, *(each.exceptions or ())) if other)


def _own(filename: str) -> bool:
    return filename.startswith((_OWN + "/", _OWN + "\\"))


def _shorten(text: str, limit: int) -> str:
    """Keep both ends of ``text`` within ``limit`` bytes of UTF-8; what went wrong is named at the end."""
    raw = text.encode("utf-8", "replace")
    if len(raw) <= limit:
        return raw.decode()
    half = (limit - len(_CUT)) // 2
    return raw[:half].decode("utf-8", "ignore") + _CUT + raw[-half:].decode("utf-8", "ignore")

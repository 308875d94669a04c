"""Failures of steps as errors, and which recorded failures an error carries."""

from __future__ import annotations

from collections.abc import Mapping

import msgspec

from agentq.errors import ChildFailed, StepFailed, StepTimeout
from agentq.failure import leaves
from agentq.message import Entry, Failure

TIMEOUT = "StepTimeout"


def step_error(entry: Entry, failure: Failure) -> StepFailed:
    """Return the error of a recorded failure; it remembers its entry, so that a new attempt can supersede it."""
    kind = StepTimeout if failure.type == TIMEOUT else StepFailed
    error = kind(entry.step, failure)
    error.entry = entry
    return error


def escaped(error: BaseException, failures: Mapping[int, Entry], outer: BaseException | None = None) -> list[Entry]:
    """Journal entries of the failures of steps and children that an error carries: itself, its causes, the members of a group.

    An error raised while another was handled carries that one only where it is not a step failure itself: a failure that
    was caught, and followed by the failure of another step, is not what escaped. ``outer`` was being handled already when
    the code began that raised ``error``.
    """
    found: dict[int, Entry] = {}
    seen: set[int] = {id(outer)}
    todo: list[BaseException | None] = [error]
    while todo:
        each = todo.pop()
        if each is None or id(each) in seen:
            continue
        seen.add(id(each))
        if isinstance(each, StepFailed | ChildFailed):
            found |= {entry.seq: entry for entry in each.carried}
            entry = each.entry if isinstance(each, StepFailed) else None
            while entry is not None and entry.seq not in found:
                found[entry.seq] = entry
                inner = msgspec.json.decode(entry.value or b"{}", type=_Inner).seq
                entry = failures.get(inner) if inner is not None else None
            continue
        todo.append(each.__cause__)
        if not each.__suppress_context__:
            todo.append(each.__context__)
        if isinstance(each, BaseExceptionGroup):
            todo += leaves(each)
    return [found[seq] for seq in sorted(found)]


class _Inner(msgspec.Struct):
    seq: int | None = None

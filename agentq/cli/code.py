"""What the code of a task says about the names in its journal: the policies of its steps, the types of its signals."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Iterator
from types import FunctionType, ModuleType
from typing import Any, Final

from agentq.retry import Retry
from agentq.signal import Signal
from agentq.step import StepSpec, spec_of
from agentq.task import Task

_FUNCTIONS: Final = (FunctionType, staticmethod, classmethod)


class Code:
    """The steps and signals that the module of a task knows by name; those of its classes and of modules beside it too."""

    def __init__(self, task: Task[..., Any]) -> None:
        """Look into the module of ``task`` when something is asked."""
        self.retry = task.spec.retry
        self._globals: dict[str, Any] = getattr(inspect.unwrap(task.fn), "__globals__", {})

    def policy(self, step: str) -> Retry | None:
        """How often a step is tried; None if it is not known here."""
        return self._known[0].get(step)

    def signal(self, name: str) -> Signal[Any] | None:
        """Return the signal of that name, if it is known here."""
        return self._known[1].get(name)

    @functools.cached_property
    def _known(self) -> tuple[dict[str, Retry], dict[str, Signal[Any]]]:
        policies: dict[str, Retry] = {}
        signals: dict[str, Signal[Any]] = {}
        for found in self._named():
            if isinstance(found, Signal):
                signals.setdefault(found.name, found)
            else:
                policies.setdefault(found.name, found.retry)
        return policies, signals

    def _named(self) -> Iterator[Signal[Any] | StepSpec]:
        package = str(self._globals.get("__name__", "")).partition(".")[0]
        for value in list(self._globals.values()):
            beside = isinstance(value, ModuleType) and value.__name__.partition(".")[0] == package
            for each in [value, *(vars(value).values() if beside or isinstance(value, type) else ())]:
                found = spec_of(each) if isinstance(each, _FUNCTIONS) else each  # type: ignore[arg-type]  # they have its mark
                if isinstance(found, Signal | StepSpec):
                    yield found

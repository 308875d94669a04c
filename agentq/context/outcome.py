"""How a child run ended, and the marker for what was not given."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Generic, TypeVar

from agentq.errors import ChildFailed
from agentq.message import Failure

R_co = TypeVar("R_co", covariant=True)


class Unset:
    """Type of the marker for an argument that was not given."""

    def __repr__(self) -> str:
        """As it shows in a signature."""
        return "…"


UNSET = Unset()


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

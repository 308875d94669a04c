"""Runs that failed because a step which may happen at most once was interrupted: what may be done, once somebody has looked."""

from __future__ import annotations

import re
import shlex
import sys
from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import click

from agentq.cli.problem import Problem
from agentq.cli.reading import told
from agentq.cli.shown import failure_of, name_of
from agentq.cli.text import clean
from agentq.message import Entry, EntryKind, Run, RunState

if TYPE_CHECKING:
    from agentq.stores.base import Store

INTERRUPTED: Final = "StepInterrupted"
_SAID: Final = re.compile(rf"{INTERRUPTED}: step '([^']+)' was begun at most once")
"""How the failure of a called run, whose journal is another, names the step."""


@dataclass(frozen=True, slots=True)
class Doubt:
    """A step of which nobody knows whether it happened, and which a retry executes again."""

    run_id: str
    step: str
    entry: Entry | None = None
    """Its failure; None where it is a step of a run that this one called."""

    @property
    def again(self) -> str:
        """The command for when it did not happen."""
        return told(f"runs retry {self.run_id} --again {shlex.quote(self.step)}")

    @property
    def look(self) -> str:
        """What to do first."""
        where = f" (idempotency key {self._key()})" if self.entry is not None else ", in the run that this one called"
        return f"look whether {clean(self.step)!r} happened{where}; a retry executes it again"

    @property
    def keep(self) -> str:
        """The command for when it happened; empty where its run is another."""
        return "" if self.entry is None else told(f"runs fork {self.run_id} --keep {self.entry.seq + 1}")

    def _key(self) -> str:
        from agentq.worker.steps import step_key  # noqa: PLC0415 - few commands need the runtime

        assert self.entry is not None  # noqa: S101 - by `look`
        return step_key(self.run_id, self.entry.identity)


def doubt_of(run: Run, journal: Iterable[Entry]) -> Doubt | None:
    """Return the interrupted step because of which ``run`` failed, if that is why."""
    failure = run.failure
    if run.state is not RunState.FAILED or failure is None:
        return None
    failed = {entry.seq: entry for entry in journal if entry.kind is EntryKind.FAILED}
    seq = failure.seq
    while seq is not None and (entry := failed.pop(seq, None)) is not None:
        inner = failure_of(entry)
        if inner is not None and inner.type == INTERRUPTED:
            return Doubt(run.id, name_of(entry), entry)
        seq = inner.seq if inner is not None else None
    said = _SAID.search(failure.message)
    return Doubt(run.id, said[1]) if said else None


async def confirm_again(store: Store, runs: Iterable[Run], again: tuple[str, ...], *, ask: bool) -> None:
    """Go on only if a person has said of every interrupted step of ``runs`` that it may be executed again.

    Raises:
        Problem: nobody has, and nobody can be asked.
    """
    doubts = [found for run in runs if (found := doubt_of(run, await store.journal(run.id)))]
    for doubt in doubts:
        if doubt.step in again:
            continue
        said = f"step {clean(doubt.step)!r} of run {doubt.run_id} was interrupted and may have happened"
        if not (ask and _on_terminal()):
            raise Problem(f"not retried: {said}", hint="\n".join(ways(doubt)))
        click.confirm(f"{said}: {doubt.look}.\nexecute it again?", abort=True, err=True)


def ways(doubt: Doubt) -> list[str]:
    """Say what may be done, in lines of which the commands stand alone."""
    lines = [clean(doubt.look), "it did not happen:", f"  {doubt.again}"]
    if doubt.keep:
        lines += ["it happened: in a copy that keeps this failure, code that catches StepFailed goes on:", f"  {doubt.keep}"]
    return lines


def _on_terminal() -> bool:
    return sys.stdin.isatty()

"""The outside world of the demo: a file to which every step's body adds a line, whatever the journal says.

What is counted from it (how often a body really ran, in which process) is independent of the store, so that the two can
be held against each other.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import msgspec

VARIABLE = "AGENTQ_DEMO_EFFECTS"
"""Environment variable with the file's path; without it nothing is written."""


class Effect(msgspec.Struct, frozen=True, kw_only=True):
    """One line of the file."""

    run: str
    key: str
    """The step's idempotency key: the same for every try of the same step of the same run."""
    step: str
    epoch: int
    pid: int
    at: float
    """Seconds since the Unix epoch."""
    what: str
    """``began``, then ``ended`` or ``failed``; a body that was killed has neither."""


@contextmanager
def recorded(*, run: str, key: str, step: str, epoch: int) -> Iterator[None]:
    """Write a line when the body begins and one when it ends; a killed process writes none."""
    path = os.environ.get(VARIABLE)
    if not path:
        yield
        return

    def note(what: str) -> None:
        effect = Effect(run=run, key=key, step=step, epoch=epoch, pid=os.getpid(), at=time.time(), what=what)
        file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        try:
            os.write(file, msgspec.json.encode(effect) + b"\n")  # one write of one line: whole even under SIGKILL
        finally:
            os.close(file)

    note("began")
    try:
        yield
    except BaseException:
        note("failed")
        raise
    note("ended")


def load(path: Path) -> list[Effect]:
    """Read the file; no file is no effects."""
    if not path.exists():
        return []
    return [msgspec.json.decode(line, type=Effect) for line in path.read_bytes().splitlines()]

"""The work itself, the same for every library: units of some seconds, each marked in its task's file. Standard library only."""

from __future__ import annotations

import os
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

UNITS = 30
UNIT_S = 3.0


class Execution:
    """One going through a task, from its first line of code: a task that is begun again is another execution."""

    def __init__(self, task: str) -> None:
        self.task = task
        self.id = uuid.uuid4().hex[:12]
        self._file = Path(os.environ["BENCH_UNITS"], f"{task}.log")

    @contextmanager
    def unit(self, number: int) -> Iterator[None]:
        """Mark when the block begins, and when and how it ends; a kill leaves the beginning alone."""
        self._mark(number, "begin")
        try:
            yield
        except BaseException:
            self._mark(number, "cut")
            raise
        self._mark(number, "done")

    def _mark(self, number: int, what: str) -> None:
        # A worker and its children are one process group, so that the group tells which worker it was.
        line = f"{self.task} {number} {self.id} {os.getpgrp()} {what} {time.time():.3f}\n"
        file = os.open(self._file, os.O_WRONLY | os.O_APPEND | os.O_CREAT)
        try:
            os.write(file, line.encode())
        finally:
            os.close(file)

"""Whose turn it is to write: a fair queue of processes before SQLite's own lock, whose waiting is not."""

from __future__ import annotations

import contextlib
import fcntl
import os
import time
from typing import TYPE_CHECKING, Final

from agentq.errors import StoreUnavailable

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

_NAP_S: Final = 0.0002


class Gate:
    """Two file locks: who holds ``turn`` is next for ``gate``, so that a busy writer cannot overtake those who wait."""

    def __init__(self, folder: Path, patience_s: float) -> None:
        """``folder`` exists; a wait longer than ``patience_s`` seconds is `StoreUnavailable`."""
        self._folder = folder
        self._patience_s = patience_s
        self._turn = os.open(folder / "turn", os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, 0o600)
        self._gate = os.open(folder / "gate", os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, 0o600)

    @contextlib.contextmanager
    def passing(self) -> Iterator[None]:
        """Write inside."""
        self._take(self._turn)
        try:
            self._take(self._gate)
        finally:
            fcntl.flock(self._turn, fcntl.LOCK_UN)
        try:
            yield
        finally:
            fcntl.flock(self._gate, fcntl.LOCK_UN)

    def _take(self, fd: int) -> None:
        until = 0.0
        while True:
            try:
                fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                now = time.monotonic()
                until = until or now + self._patience_s
                if now >= until:
                    raise StoreUnavailable(
                        f"another process has been writing for {self._patience_s:g} s (lock in {self._folder}); "
                        "it may be stopped: continue or end it"
                    ) from None
                time.sleep(_NAP_S)
            else:
                return

    def close(self) -> None:
        """Give the files back."""
        os.close(self._turn)
        os.close(self._gate)

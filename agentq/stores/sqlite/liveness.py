"""Who is alive on this machine: each worker holds a file lock that the kernel drops when its process dies."""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import os
import subprocess
import sys
import time
import weakref
from pathlib import Path
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Iterable

STALE_S: Final = 86_400.0
"""Locks of processes that died so long ago are of no use to anybody."""

LOOK_EVERY_S: Final = 1.0
"""How often, at most, other workers' locks are tried."""


def boot_id() -> str:
    """What changes with every boot, when the steady clock starts anew; empty where the system does not tell."""
    with contextlib.suppress(OSError, subprocess.SubprocessError):
        if sys.platform == "darwin":
            ask = ["/usr/sbin/sysctl", "-n", "kern.bootsessionuuid"]
            return subprocess.run(ask, capture_output=True, text=True, timeout=5, check=True).stdout.strip()  # noqa: S603
        return Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
    return ""


_HOLDERS: weakref.WeakSet[Liveness] = weakref.WeakSet()


def _let_go_in_child() -> None:
    # A forked child shares the lock; it must not keep its dead parent looking alive.
    for holder in _HOLDERS:
        holder.close()


os.register_at_fork(after_in_child=_let_go_in_child)


class Liveness:
    """The locks that this store holds for its workers, and a look at those of others.

    Only the writer thread takes locks; anybody may ask who is `gone`.
    """

    def __init__(self, folder: Path) -> None:
        """``folder`` exists and is private to the file's owner."""
        self._folder = folder
        self._held: dict[str, int] = {}
        self._looked = float("-inf")
        _HOLDERS.add(self)

    def _path(self, worker_id: str) -> Path:
        # Hashed, because an id may be anything and the name of a file may not.
        return self._folder / f"{hashlib.blake2b(worker_id.encode(), digest_size=12).hexdigest()}.lock"

    def hold(self, worker_id: str) -> None:
        """Show that ``worker_id`` lives as long as this process keeps the store open."""
        if worker_id in self._held:
            return
        path = self._path(worker_id)
        for _ in range(10):  # a rival's look may hold the lock for an instant, or remove the file under us
            fd = os.open(path, os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, 0o600)
            if _lock(fd) and _is_at(fd, path):
                self._held[worker_id] = fd
                return
            os.close(fd)
            time.sleep(0.001)

    def drop(self, worker_id: str) -> None:
        """The worker left in order."""
        fd = self._held.pop(worker_id, None)
        if fd is not None:
            self._path(worker_id).unlink(missing_ok=True)
            os.close(fd)

    def due(self) -> bool:
        """Whether it is time to look again."""
        return time.monotonic() - self._looked >= LOOK_EVERY_S

    def dead(self, worker_ids: Iterable[str]) -> list[str]:
        """Those of ``worker_ids`` whose process is gone. A worker without a lock file is of another machine: unknown."""
        self._looked = time.monotonic()
        return [worker_id for worker_id in worker_ids if self.gone(worker_id)]

    def gone(self, worker_id: str) -> bool:
        """Whether the worker's process is known to be gone."""
        return worker_id not in self._held and _is_free(self._path(worker_id))

    def tidy(self) -> None:
        """Remove the files of workers that died long ago."""
        for path in self._folder.glob("*.lock"):
            with contextlib.suppress(OSError):
                if time.time() - path.stat().st_mtime > STALE_S and _is_free(path):
                    path.unlink()

    def bury(self, worker_ids: Iterable[str]) -> None:
        """Remove the files of workers whose runs were handed on."""
        for worker_id in worker_ids:
            self._path(worker_id).unlink(missing_ok=True)

    def close(self) -> None:
        """Let go. The files stay, so that others see at once that these workers are gone."""
        for fd in self._held.values():
            os.close(fd)
        self._held.clear()


def _is_free(path: Path) -> bool:
    try:
        fd = os.open(path, os.O_RDWR | os.O_CLOEXEC)
    except OSError:
        return False
    try:
        return _lock(fd)
    finally:
        os.close(fd)


def _lock(fd: int) -> bool:
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return False
    return True


def _is_at(fd: int, path: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(fd), path.stat())
    except OSError:
        return False

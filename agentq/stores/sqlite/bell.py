"""Wake-ups between the processes on one file: a datagram socket each, in a folder beside the file."""

from __future__ import annotations

import contextlib
import os
import secrets
import select
import socket
import sys
import threading
import time
from typing import TYPE_CHECKING, Final

from agentq.stores.ticks import NEWS, WORK

if TYPE_CHECKING:
    from pathlib import Path

    from agentq.stores.ticks import Ticks

_SETTLED_S: Final = 0.05
"""A folder that changed so recently may change again within the same tick of its timestamp: look again."""
_LONGEST_PATH: Final = 100
"""Bytes of a socket's path; the kernel takes 107."""


class Bell:
    """This process's socket and thread. Where sockets cannot be made, only this process's own commits ring."""

    def __init__(self, folder: Path, ticks: Ticks) -> None:
        """``folder`` exists; heard rings bump ``ticks``."""
        self._folder = folder
        self._ticks = ticks
        self._name = f"{secrets.token_hex(6)}.bell"
        self._dir = os.open(folder, os.O_RDONLY | os.O_CLOEXEC)
        self._others: list[str] = []
        self._listed = -1
        self._stop_r, self._stop_w = os.pipe()
        self._socket: socket.socket | None = None
        self._thread: threading.Thread | None = None
        made = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        made.settimeout(0)
        try:
            made.bind(self._path(self._name))
        except OSError:
            made.close()
        else:
            self._socket = made
            self._thread = threading.Thread(target=self._listen, name="agentq-bell", daemon=True)
            self._thread.start()

    def _path(self, name: str) -> str:
        if sys.platform == "linux":  # a socket's path is at most 107 bytes, this one always fits
            return f"/proc/self/fd/{self._dir}/{name}"
        path = str(self._folder / name)
        return path if len(path.encode()) <= _LONGEST_PATH else os.path.relpath(path)

    def ring(self, topics: bytes) -> None:
        """Tell the other processes; never blocks. ``topics`` holds ``w`` (work) and ``n`` (news)."""
        if self._socket is None:
            return
        for name in self._peers():
            try:
                self._socket.sendto(topics, self._path(name))
            except BlockingIOError:
                continue  # it has rings enough to read
            except ConnectionRefusedError:
                with contextlib.suppress(OSError):
                    os.unlink(name, dir_fd=self._dir)  # its process was killed
            except OSError:
                self._listed = -1

    def _peers(self) -> list[str]:
        changed = os.fstat(self._dir).st_mtime_ns
        if changed != self._listed:
            names = os.listdir(self._dir)  # noqa: PTH208 - by descriptor, however long the path
            self._others = [name for name in names if name.endswith(".bell") and name != self._name]
            settled = time.time_ns() - changed > _SETTLED_S * 1e9
            self._listed = changed if settled else -1
        return self._others

    def _listen(self) -> None:
        assert self._socket is not None  # noqa: S101 - the thread is started with it
        while True:
            readable, _, _ = select.select([self._socket.fileno(), self._stop_r], [], [])
            if self._stop_r in readable:
                return
            heard = set[int]()
            with contextlib.suppress(BlockingIOError):
                while True:
                    heard.update(self._socket.recv(16))
            if ord("w") in heard:
                self._ticks.bump(WORK)
            if ord("n") in heard:
                self._ticks.bump(NEWS)

    def close(self) -> None:
        """Hear no more."""
        os.close(self._stop_w)
        if self._thread is not None:
            self._thread.join()
        if self._socket is not None:
            self._socket.close()
            with contextlib.suppress(OSError):
                os.unlink(self._name, dir_fd=self._dir)
        os.close(self._stop_r)
        os.close(self._dir)

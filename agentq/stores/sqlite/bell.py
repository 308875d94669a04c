"""Wake-ups between the processes on one file: a datagram socket each, in a folder beside the file."""

from __future__ import annotations

import asyncio
import contextlib
import os
import secrets
import select
import socket
import sys
import threading
import time
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from pathlib import Path

WORK: Final = "work"
NEWS: Final = "news"

_SETTLED_S: Final = 0.05
"""A folder that changed so recently may change again within the same tick of its timestamp: look again."""
_LONGEST_PATH: Final = 100
"""Bytes of a socket's path; the kernel takes 107."""


class Ticks:
    """Counts per topic, and who waits for the next, in whichever event loop."""

    def __init__(self) -> None:
        """Start at 0."""
        self._lock = threading.Lock()
        self._counts = {WORK: 0, NEWS: 0}
        self._waiting: dict[str, dict[asyncio.Future[None], asyncio.AbstractEventLoop]] = {WORK: {}, NEWS: {}}

    def bump(self, topic: str) -> None:
        """One more; wakes everybody who waits for the topic."""
        with self._lock:
            self._counts[topic] += 1
            waiting, self._waiting[topic] = self._waiting[topic], {}
        for future, loop in waiting.items():
            with contextlib.suppress(RuntimeError):  # its loop was closed
                loop.call_soon_threadsafe(_done, future)

    async def watch(self, topic: str, seen: int, wait_s: float) -> int:
        """See `ReaderStore.watch`; real seconds, whatever the store's clock."""
        loop = asyncio.get_running_loop()
        with self._lock:
            if self._counts[topic] != seen or wait_s <= 0:
                return self._counts[topic]
            future: asyncio.Future[None] = loop.create_future()
            self._waiting[topic][future] = loop
        timer = loop.call_later(wait_s, _done, future)
        try:
            await future
        finally:
            timer.cancel()
            with self._lock:
                self._waiting[topic].pop(future, None)
        return self._counts[topic]


def _done(future: asyncio.Future[None]) -> None:
    if not future.done():
        future.set_result(None)


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

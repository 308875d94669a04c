"""From synchronous code to an event loop: one background thread per app and process, in which the app is open."""

from __future__ import annotations

import asyncio
import os
import threading
from collections.abc import Coroutine
from types import TracebackType
from typing import Any, Protocol, TypeVar

R = TypeVar("R")


class Opened(Protocol):
    """What a portal keeps open."""

    name: str

    async def __aenter__(self) -> Any:
        """Open."""
        ...

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close."""
        ...


class Portal:
    """A background thread with an event loop in which the app is open."""

    def __init__(self, app: Opened) -> None:
        """Start the thread and open the app; raises what opening raises."""
        self._pid = os.getpid()
        self._loop = asyncio.new_event_loop()
        self._app = app
        self._thread = threading.Thread(target=self._serve, name=f"agentq-{app.name}", daemon=True)
        self._thread.start()
        try:
            self.run(app.__aenter__())
        except BaseException:
            self._end()
            raise
        # An ordinary atexit callback comes after the executors are shut down, which closing a store may need.
        threading._register_atexit(self._close)  # type: ignore[attr-defined]  # noqa: SLF001

    def run(self, verb: Coroutine[Any, Any, R]) -> R:
        """Await a verb on the loop while the calling thread blocks."""
        return asyncio.run_coroutine_threadsafe(verb, self._loop).result()

    def _serve(self) -> None:
        asyncio.set_event_loop(self._loop)
        self._loop.run_forever()
        self._loop.close()

    def _close(self) -> None:
        if os.getpid() != self._pid:
            return  # a forked child ends: the thread is its parent's
        try:
            self.run(self._app.__aexit__(None, None, None))
            self.run(self._loop.shutdown_default_executor())
        finally:
            self._end()

    def _end(self) -> None:
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()

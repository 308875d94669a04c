"""The child's side of an isolated run: ``python -m agentq.worker.isolated``, its order on standard input."""

from __future__ import annotations

import asyncio
import ctypes
import importlib
import os
import runpy
import signal
import sys
import threading
import traceback
from contextlib import AsyncExitStack
from typing import TYPE_CHECKING, Any

import msgspec

from agentq.clock import SystemClock
from agentq.message import ClaimRef
from agentq.worker.execution import End
from agentq.worker.isolate import ENDS, EXIT_BASE, Order, Target, Word, options_of
from agentq.worker.ledger import Stop
from agentq.worker.verbs import LiveRun

if TYPE_CHECKING:
    from agentq.app import AgentQ

EXIT_FAILED = 70
EXIT_ORPHAN = 71
_PR_SET_PDEATHSIG = 1
MAIN = "__agentq_main__"
"""Name under which a main script is loaded, so that its ``if __name__ == "__main__"`` does not run."""


class _ParentLease:
    """Ownership as the parent last confirmed it."""

    def __init__(self, ref: ClaimRef, fence_s: float) -> None:
        self.ref = ref
        self._fence_s = fence_s
        self._clock = SystemClock()
        self._confirmed_at = self._clock.steady()

    def confirm(self, ago_s: float) -> None:
        self._confirmed_at = max(self._confirmed_at, self._clock.steady() - ago_s)

    def fenced(self) -> bool:
        return self._clock.steady() - self._confirmed_at >= self._fence_s


def main() -> None:
    """Read the order, run it, exit with what came of it."""
    _die_with_parent()
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the whole group; the parent says what to do
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    order = msgspec.json.decode(sys.stdin.buffer.readline(), type=Order)
    try:
        code = EXIT_BASE + ENDS.index(asyncio.run(_run(order)))
    except BaseException:  # noqa: BLE001 - the thread that hears the parent would make an ordinary exit abort
        traceback.print_exc()
        code = EXIT_FAILED
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


async def _run(order: Order) -> End:
    app = load(order.target)
    async with app.using(store=order.store) if app.store_url != order.store else app, AsyncExitStack() as stack:
        if app.lifespan is not None:
            await stack.enter_async_context(app.lifespan(app))
        lease = _ParentLease(order.claim.ref, order.fence_s)
        run = LiveRun(app.find(order.claim.run.task), order.claim, lease, app.store, SystemClock(), options_of(order))
        _listen(run, lease)
        return await run.work()


def load(target: Target) -> AgentQ:
    """Import the app."""
    sys.path[:] = target.path or sys.path
    if target.module is not None:
        module: Any = importlib.import_module(target.module)
        found = getattr(module, target.attribute)
    else:
        found = runpy.run_path(target.file or "", run_name=MAIN)[target.attribute]
    return found  # type: ignore[no-any-return]  # the parent found it there


def _listen(run: LiveRun, lease: _ParentLease) -> None:
    """Hear the parent in a thread of its own: its death is noticed while the event loop is blocked."""
    loop = asyncio.get_running_loop()

    def hear() -> None:
        for line in sys.stdin.buffer:
            word = msgspec.json.decode(line, type=Word)
            if word.confirmed_s is not None:
                lease.confirm(word.confirmed_s)
            else:
                loop.call_soon_threadsafe(_obey, run, word)
        os._exit(EXIT_ORPHAN)

    threading.Thread(target=hear, name="agentq-parent", daemon=True).start()


def _obey(run: LiveRun, word: Word) -> None:
    if word.stop is not None:
        run.stop(Stop(word.stop), word.reason)
    if word.hurry:
        run.hurry()
    if word.arrived:
        run.arrived()


def _die_with_parent() -> None:
    """Where the kernel can (Linux), be killed with the parent; elsewhere the pipe says so a moment later."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)


if __name__ == "__main__":
    main()

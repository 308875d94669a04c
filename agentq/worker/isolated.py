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
from agentq.errors import StoreUnavailable
from agentq.message import ClaimRef
from agentq.worker.ends import End
from agentq.worker.isolate import ENDS, EXIT_BASE, Order, Target, Word, options_of
from agentq.worker.ledger import Stop
from agentq.worker.store_clock import StoreClock
from agentq.worker.verbs import LiveRun

if TYPE_CHECKING:
    from agentq.app import AgentQ

EXIT_FAILED = 70
EXIT_ORPHAN = 71
_AGAIN_S = 0.5
"""Between two tries to open a store that is down."""
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
    lease = _ParentLease(order.claim.ref, order.fence_s)
    parent = _Parent(lease)
    parent.listen()
    async with AsyncExitStack() as stack:
        if not await _opened(stack, app, order, parent):
            return End.LOST
        if app.lifespan is not None:
            await stack.enter_async_context(app.lifespan(app))
        clock = StoreClock()
        await clock.compare(app.store)
        run = LiveRun(app.find(order.claim.run.task), order.claim, lease, app.store, clock, options_of(order))
        parent.attach(run)
        return await run.work()


async def _opened(stack: AsyncExitStack, app: AgentQ, order: Order, parent: _Parent) -> bool:
    """Open the app. A store that is down is no fault of the run: it is waited for while the run is ours and wanted."""
    while True:
        try:
            await stack.enter_async_context(app.using(store=order.store, broker=order.broker))
        except StoreUnavailable:
            if parent.over:
                return False
            await asyncio.sleep(_AGAIN_S)
        else:
            return True


def load(target: Target) -> AgentQ:
    """Import the app."""
    sys.path[:] = target.path or sys.path
    if target.module is not None:
        module: Any = importlib.import_module(target.module)
        found = getattr(module, target.attribute)
    else:
        found = runpy.run_path(target.file or "", run_name=MAIN)[target.attribute]
    return found  # type: ignore[no-any-return]  # the parent found it there


class _Parent:
    """What the parent says: heard in a thread of its own, so that its death is noticed while the event loop is blocked."""

    def __init__(self, lease: _ParentLease) -> None:
        self._lease = lease
        self._run: LiveRun | None = None
        self._early: list[Word] = []
        """Said before there was a run to say it to."""

    @property
    def over(self) -> bool:
        """Whether a run that has not begun need not begin any more."""
        return self._lease.fenced() or any(word.stop is not None or word.hurry for word in self._early)

    def attach(self, run: LiveRun) -> None:
        """Pass on to ``run`` what was said, and what will be."""
        self._run = run
        for word in self._early:
            self._obey(word)

    def listen(self) -> None:
        """Begin to hear."""
        loop = asyncio.get_running_loop()

        def hear() -> None:
            for line in sys.stdin.buffer:
                word = msgspec.json.decode(line, type=Word)
                if word.confirmed_s is not None:
                    self._lease.confirm(word.confirmed_s)
                else:
                    loop.call_soon_threadsafe(self._obey, word)
            os._exit(EXIT_ORPHAN)

        threading.Thread(target=hear, name="agentq-parent", daemon=True).start()

    def _obey(self, word: Word) -> None:
        run = self._run
        if run is None:
            self._early.append(word)
            return
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

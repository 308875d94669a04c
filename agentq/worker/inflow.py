"""What a worker takes from the broker: as much as its free slots can run and the store cannot give them."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from agentq import settings
from agentq.intake import Intake

if TYPE_CHECKING:
    from collections.abc import Sequence

    from agentq.app import AgentQ
    from agentq.clock import Clock

_CLOSED = -1
"""Room while nothing may be taken at all, not even ahead."""
_AGAIN_S = 0.5
_FAREWELL_S = 3.0
"""Of the time for draining: what broker and store need at the end, also where they do not answer."""


class Inflow:
    """The intake of one worker, or none where the app has no broker. All methods belong to the worker's event loop."""

    def __init__(
        self, app: AgentQ, queues: Sequence[str], clock: Clock, *, worker: str, drain_s: float, poll_s: float | None = None
    ) -> None:
        """Prepare; `start` begins.

        `finish` takes ``drain_s`` at most, and polls are so short that they end by themselves in that time; ``poll_s`` makes
        them shorter still.
        """
        self._patience_s = max(drain_s - _FAREWELL_S, 0.8 * drain_s)
        self._room = _CLOSED
        self._brought = 0
        """Runs since the worker last said how much room there is; it has not claimed them yet."""
        self._task: asyncio.Task[None] | None = None
        self._intake: Intake | None = None
        self._hurried = asyncio.Event()
        if app.broker is not None:
            self._intake = Intake(
                app.broker, app.store, app.name, queues, room=self._left, ahead=settings.load().broker.admit_ahead,
                worker=worker, clock=clock, brought=self._bring, poll_s=min(self._patience_s, poll_s or self._patience_s),
            )  # fmt: skip

    def start(self) -> None:
        """Begin to receive as soon as there is room."""
        if self._intake is not None:
            self._task = asyncio.create_task(self._intake.run())

    def want(self, slots: int) -> None:
        """So many slots are free and the store has nothing for them."""
        self._set(slots)

    def close(self) -> None:
        """Take nothing: the store does not answer, or the worker takes no more for now."""
        self._set(_CLOSED)

    async def finish(self) -> None:
        """End: a poll under way comes back first, and what it brings is handed back."""
        if self._task is None or self._intake is None:
            return
        self._intake.stop()
        hurried = asyncio.create_task(self._hurried.wait())
        await asyncio.wait({self._task, hurried}, timeout=self._patience_s, return_when=asyncio.FIRST_COMPLETED)
        hurried.cancel()
        while not self._task.done():  # the first cancellation ends the loop, the next one what its inbox still waits for
            self._task.cancel()
            await asyncio.wait({self._task}, timeout=_AGAIN_S)
        if not self._task.cancelled():
            self._task.result()

    def hurry(self) -> None:
        """Do not wait for the poll: what it brings stays hidden until the broker delivers it again."""
        self._hurried.set()

    def _left(self) -> int:
        return max(0, self._room - self._brought) if self._room > 0 else self._room

    def _bring(self, runs: int) -> None:
        self._brought += runs

    def _set(self, room: int) -> None:
        before = self._left()
        self._room, self._brought = room, 0
        if self._left() != before and self._intake is not None:
            self._intake.stir()

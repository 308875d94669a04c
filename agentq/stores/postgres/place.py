"""What a store keeps for one event loop: its connections, its writer, its work under way."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any, Final, TypeVar

from agentq.stores.postgres.connection import GUEST_SETTINGS
from agentq.stores.postgres.pool import Pool
from agentq.stores.postgres.writer import Writer

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Callable, Coroutine

    from agentq.clock import Clock
    from agentq.stores.postgres.address import Address
    from agentq.stores.postgres.desk import News
    from agentq.stores.postgres.rows import Lanes

T = TypeVar("T")

CLOSE_S: Final = 1.5
"""For what is under way when a place is closed. Nobody waits for it any more; a process that drains has seconds to end."""


class Place:
    """Connections belong to the loop that opened them, and the heartbeat thread has a loop of its own: so, one place each."""

    def __init__(
        self, address: Address, clock: Clock | None, lanes: Lanes, rung: Callable[[bool, News], None], left: Callable[[], None]
    ) -> None:
        """``left`` is called when this place has closed."""
        self.loop = asyncio.get_running_loop()
        self.pool = Pool(address, clock, address.pool)
        self.guests = Pool(address, clock, address.pool, GUEST_SETTINGS)
        """Connections that are lent to steps' bodies: they must not keep verbs waiting."""
        self.writer = Writer(address, clock, lanes, rung)
        self._left = left
        self._tasks: set[asyncio.Task[Any]] = set()
        self._end: AsyncGenerator[None, None] | None = None
        self._closed = False

    async def begin(self) -> None:
        """Have the loop close this place if it ends before the store does: a loop closes the generators that it has begun."""
        self._end = self._farewell()
        await anext(self._end)

    async def _farewell(self) -> AsyncGenerator[None, None]:
        try:
            yield
        finally:
            await self._shut()

    async def do(self, work: Coroutine[Any, Any, T]) -> T:
        """Do ``work`` to its end, even when whoever asked stops waiting: half a verb would cost a connection."""
        return await asyncio.shield(self.start(work))

    def start(self, work: Coroutine[Any, Any, T]) -> asyncio.Task[T]:
        """Begin ``work``; the place closes after it."""
        task = self.loop.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._ended)
        return task

    def _ended(self, task: asyncio.Task[Any]) -> None:
        self._tasks.discard(task)
        if not task.cancelled():
            task.exception()  # whoever asked may have gone

    async def close(self) -> None:
        """Finish what was handed in, then close."""
        if self._end is not None:
            await self._end.aclose()

    async def _shut(self) -> None:
        if self._closed:
            return
        self._closed = True
        try:
            async with asyncio.timeout(CLOSE_S):
                while self._tasks:
                    await asyncio.wait(list(self._tasks))
                await self.writer.finish()
        except TimeoutError:  # a server that does not answer now takes no farewell, either
            for task in self._tasks:
                task.cancel()
            self.writer.abandon()
            self.pool.cut()
            self.guests.cut()
        await asyncio.gather(self.writer.close(), self.pool.close(), self.guests.close())
        self._left()

"""Branches of a run, side by side: each a task of its own with a journal place of its own."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

from agentq.errors import StepFailed
from agentq.scope import Scope, enter_scope
from agentq.worker.host import Host
from agentq.worker.waits import Waits, own_task

Work = Callable[[Scope], Awaitable[Any]]


async def side_by_side(
    run: Host,
    waits: Waits,
    scope: Scope,
    work: Sequence[tuple[str, Work]],
    *,
    limit: int | None,
    foreign: bool,
    enough: Callable[[int, Any], bool] | None = None,
) -> list[Any]:
    """Run each work in the branch of that name and return the results in order.

    When one raises, the others are cancelled; of several errors the one recorded first is raised, so that a replay raises
    the same. ``enough(n, result)`` may say that the rest is not needed: it is cancelled, and its results are None.
    """
    join = _Join(run, waits, enough, len(work), foreign=foreign)
    tasks = join.tasks
    try:
        queue = list(enumerate(work))[::-1]
        while (queue or tasks) and not join.over:
            while queue and (limit is None or len(tasks) < limit):
                number, (name, each) = queue.pop()
                branch = Scope(run, name, frame=scope.frame)
                join.start(number, asyncio.get_running_loop().create_task(_branch(branch, each)))
            join.rest()
            done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
            for task in done:
                join.finished(task)
    finally:
        join.rise()
        join.ending = True
        await _end(list(tasks))
    if join.errors:
        raise min(join.errors, key=_order)
    return join.results


class _Join:
    """The line that waits for its branches, and what has become of them."""

    def __init__(
        self,
        run: Host,
        waits: Waits,
        enough: Callable[[int, Any], bool] | None,
        count: int,
        *,
        foreign: bool,
    ) -> None:
        self._run = run
        self._waits = waits
        self._line = own_task()
        self._foreign = foreign
        self._enough = enough
        self._resting = False
        self.tasks: dict[asyncio.Task[Any], int] = {}
        self.results: list[Any] = [None] * count
        self.errors: list[BaseException] = []
        self.over = False
        self.ending = False
        """Tasks that are cancelled from now on are cancelled by us."""

    def start(self, number: int, task: asyncio.Task[Any]) -> None:
        self._run.presence.awake += 1
        self.tasks[task] = number
        task.add_done_callback(self.finished)

    def finished(self, task: asyncio.Task[Any]) -> None:
        """Called as the task's callback, or by the line itself where that looks before the callback's turn."""
        number = self.tasks.pop(task, None)
        if number is None:
            return
        self.rise()  # the line has something to do now, and the run must not suspend before it has done it
        self._run.presence.awake -= 1
        error = asyncio.CancelledError("a branch was cancelled by its own code") if task.cancelled() else task.exception()
        if error is None:
            self.results[number] = task.result()
            self.over = self.over or (self._enough is not None and self._enough(number, self.results[number]))
        elif not (task.cancelled() and self.ending):
            self.errors.append(error)
            self.over = True

    def rest(self) -> None:
        """The line waits for its branches."""
        self._waits.joining.add(self._line)
        if not self._foreign and not self._resting:
            self._resting = True
            self._run.presence.awake -= 1
        self._waits.consider()

    def rise(self) -> None:
        """The line goes on."""
        self._waits.joining.discard(self._line)
        if self._resting:
            self._resting = False
            self._run.presence.awake += 1


async def _branch(scope: Scope, work: Work) -> Any:
    scope.owner = asyncio.current_task()
    enter_scope(scope)
    try:
        return await work(scope)
    except (SystemExit, KeyboardInterrupt) as error:  # they would end the event loop, and with it every run of the worker
        raise RuntimeError(f"a branch raised {error!r}") from error


async def _end(tasks: list[asyncio.Task[Any]]) -> None:
    """Cancel what still runs and wait until it has ended, however often we are cancelled ourselves."""
    cancelled: asyncio.CancelledError | None = None
    for task in tasks:
        task.cancel()
    while pending := [task for task in tasks if not task.done()]:
        try:
            await asyncio.wait(pending)
        except asyncio.CancelledError as error:
            cancelled = error
    for task in tasks:
        if not task.cancelled():
            task.exception()
    if cancelled is not None:
        raise cancelled


def _order(error: BaseException) -> int:
    """Errors of steps by their place in the journal, others before all: they come again at once when replayed."""
    return error.entry.seq if isinstance(error, StepFailed) and error.entry is not None else -1

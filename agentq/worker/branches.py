"""Branches of a run, side by side: each a task of its own with a journal place of its own."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import TYPE_CHECKING, Any

from agentq.errors import StepFailed
from agentq.scope import Scope, enter_scope

if TYPE_CHECKING:
    from agentq.worker.verbs import LiveRun

Work = Callable[[Scope], Awaitable[Any]]


async def side_by_side(
    run: LiveRun,
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
    results: list[Any] = [None] * len(work)
    errors: list[BaseException] = []
    tasks: dict[asyncio.Task[Any], int] = {}
    over = False

    def finished(task: asyncio.Task[Any]) -> None:
        """Called as the task's callback, or by the loop below where that looks before the callback's turn."""
        nonlocal over
        number = tasks.pop(task, None)
        if number is None:
            return
        run.presence.awake -= 1
        if not task.cancelled():
            error = task.exception()
            if error is not None:
                errors.append(error)
                over = True
            else:
                results[number] = task.result()
                over = over or (enough is not None and enough(number, results[number]))
        run.waits.consider()

    if not foreign:
        run.presence.awake -= 1
    try:
        queue = list(enumerate(work))[::-1]
        while (queue or tasks) and not over:
            while queue and (limit is None or len(tasks) < limit):
                number, (name, each) = queue.pop()
                run.presence.awake += 1
                branch = Scope(run, name, frame=scope.frame)
                task = asyncio.get_running_loop().create_task(_branch(branch, each))
                tasks[task] = number
                task.add_done_callback(finished)
            done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
            for task in done:
                finished(task)
    finally:
        await _end(list(tasks))
        if not foreign:
            run.presence.awake += 1
    if errors:
        raise min(errors, key=_order)
    return results


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

"""Places in the journal: by position for agentq's own lines, by arguments for those that it did not create."""

import asyncio
import threading
from typing import Any, cast

from agentq.scope import Scope, caller, current_scope, enter_scope, leave_scope


class Run:
    """Counts who was adopted."""

    def __init__(self) -> None:
        self.adopted = 0

    def adopt(self) -> None:
        self.adopted += 1


def scope(branch: str = "") -> tuple[Scope, Run]:
    run = Run()
    return Scope(cast("Any", run), branch, owner=caller()), run


def test_own_calls_are_counted_by_name() -> None:
    here, run = scope("/0.1")
    places = [here.place(name, digest, foreign=False) for name, digest in (("a", "1"), ("a", "2"), ("b", "1"), ("a", "1"))]
    assert places == [("/0.1", "a", 0), ("/0.1", "a", 1), ("/0.1", "b", 0), ("/0.1", "a", 2)]
    assert run.adopted == 0


def test_foreign_calls_are_counted_by_name_and_arguments_whatever_their_order() -> None:
    here, run = scope()
    there, _ = scope()
    calls = [("a", "1"), ("a", "2"), ("a", "1"), ("b", "1")]
    assert {here.place(*call, foreign=True) for call in calls} == {there.place(*call, foreign=True) for call in reversed(calls)}
    assert here.place("a", "1", foreign=True) == ("~1", "a", 2)
    assert here.place("a", "1", foreign=False) == ("", "a", 0), "own and foreign calls do not share a count"
    assert run.adopted == 5


async def test_the_owner_is_the_task_or_thread_that_the_scope_was_made_for() -> None:
    here, _ = scope()
    assert not here.foreign()
    seen = []

    async def other() -> None:
        seen.append(here.foreign())

    await asyncio.create_task(other())
    thread = threading.Thread(target=lambda: seen.append(here.foreign()))
    thread.start()
    thread.join()
    assert seen == [True, True]


async def test_a_scope_is_inherited_by_tasks_and_left_by_who_entered_it() -> None:
    here, _ = scope()
    assert current_scope() is None
    token = enter_scope(here)
    assert await asyncio.create_task(_current()) is here
    leave_scope(token)
    assert current_scope() is None


async def _current() -> Scope | None:
    return current_scope()

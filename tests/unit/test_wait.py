"""Waiting ends as soon as it may, and says in vain for what it waited."""

import asyncio

import pytest

from agentq.testing.wait import wait_until, wait_until_sync


async def test_returns_when_the_condition_turns_true():
    seen = iter([False, 0, None, "yes"])
    await wait_until("the fourth look", lambda: next(seen), every_s=0)
    assert not list(seen)


async def test_awaits_an_awaitable_condition():
    event = asyncio.Event()
    asyncio.get_running_loop().call_soon(event.set)

    async def is_set() -> bool:
        return event.is_set()

    await wait_until("the event is set", is_set)


async def test_names_what_it_waited_for():
    with pytest.raises(TimeoutError, match=r"waited 0\.01 s in vain until pigs fly"):
        await wait_until("pigs fly", lambda: False, timeout_s=0.01)


def test_names_what_it_waited_for_without_a_loop():
    with pytest.raises(TimeoutError, match=r"waited 0\.01 s in vain until pigs fly"):
        wait_until_sync("pigs fly", lambda: False, timeout_s=0.01)


def test_looks_once_even_without_time():
    wait_until_sync("at once", lambda: True, timeout_s=0)

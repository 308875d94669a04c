"""A worker whose machine has the wrong time: its timers go by the store's clock, and it says so."""

import time
from datetime import timedelta

import pytest

from agentq import AgentQ, Context
from agentq.errors import StoreUnavailable
from agentq.stores.memory import MemoryStore
from agentq.worker import store_clock
from agentq.worker.store_clock import StoreClock
from tests.helpers.lab import told, working
from tests.helpers.postgres import fresh_schema

HOUR = 3600.0


class Elsewhere:
    """This machine's time module, wrong."""

    def __init__(self, apart_s: float) -> None:
        self.apart_s = apart_s

    def time(self) -> float:
        return time.time() + self.apart_s

    def __getattr__(self, name: str) -> object:
        return getattr(time, name)


@pytest.mark.parametrize("apart_s", [HOUR, -HOUR])
async def test_a_sleep_lasts_as_long_as_it_says_on_a_machine_that_is_an_hour_off(
    postgres_url: str, monkeypatch: pytest.MonkeyPatch, apart_s: float
) -> None:
    monkeypatch.setattr(store_clock, "time", Elsewhere(apart_s))
    aq = AgentQ("t")

    @aq.task
    async def naps(ctx: Context) -> float:
        before = time.monotonic()
        await ctx.sleep(timedelta(seconds=1))
        return time.monotonic() - before

    async with fresh_schema(postgres_url) as url, aq.using(store=url), told() as events, working(aq):
        handle = await naps.enqueue()
        await handle.result(timeout=20)
        run = await handle.status()
        assert run.finished_at is not None
        assert run.started_at is not None
        assert run.finished_at - run.started_at >= timedelta(seconds=0.9)
        [fields] = [fields for event, fields in events if event == "worker.clock"]
        assert fields["apart_s"] == pytest.approx(-apart_s, abs=5)


class There(MemoryStore):
    apart_s = 0.0
    down = False

    async def now(self) -> float:
        if self.down:
            raise StoreUnavailable("down")
        return time.time() + self.apart_s


async def test_clocks_that_agree_are_left_alone_and_what_changes_is_said_once() -> None:
    clock, store = StoreClock(), There()
    async with told() as events:
        for apart_s in (1.0, HOUR, HOUR + 1, 2.0, 0.0):
            store.apart_s = apart_s
            await clock.compare(store)
        store.down = True
        await clock.compare(store)
    assert [fields["apart_s"] for event, fields in events if event == "worker.clock"] == [pytest.approx(HOUR, abs=1), 0.0]
    assert abs(clock.wall() - time.time()) < 1

"""An outage of the store is told once, whoever meets it; then now and again, and once when it is over."""

import pytest

from agentq.errors import StoreUnavailable
from agentq.telemetry import outage as outage_module
from agentq.telemetry.outage import REMIND_S, SOON_S, Outage, outage_of
from tests.helpers.lab import told

ERROR = StoreUnavailable("no answer")


class Clock:
    now = 1000.0

    def monotonic(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(outage_module, "time", clock)
    return clock


async def test_many_who_meet_it_tell_it_once_and_its_end_once(clock: Clock) -> None:
    outage = Outage("here")
    async with told() as events:
        for verb in ("claim", "write", "write", "admit"):
            outage.met(ERROR, verb=verb)
            clock.now += 1
        for _ in range(3):
            outage.over()
    assert events == [
        ("store.unavailable", {"verb": "claim", "store": "here", "error": "no answer"}),
        ("store.recovered", {"store": "here", "duration_s": 4.0}),
    ]


async def test_it_is_said_again_while_it_lasts(clock: Clock) -> None:
    outage = Outage("here")
    async with told() as events:
        for _ in range(int(2.5 * REMIND_S)):
            outage.met(ERROR)
            clock.now += 1
    assert len(events) == 3


async def test_a_late_answer_makes_no_second_outage_of_it(clock: Clock) -> None:
    outage = Outage("here")
    async with told() as events:
        outage.met(ERROR)
        outage.over()
        clock.now += SOON_S / 2
        outage.met(ERROR)
        outage.over()
        assert len(events) == 2
        clock.now += SOON_S
        outage.met(ERROR)
        assert len(events) == 3


def test_who_asks_the_same_store_shares_it() -> None:
    class Store:
        where = "here"

    one, other = Store(), Store()
    assert outage_of(one) is outage_of(one) is not outage_of(other)

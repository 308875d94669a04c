"""A signal that is not of the type that the run waits for does not end the wait, nor the run."""

from __future__ import annotations

from dataclasses import dataclass

from agentq import AgentQ, Context, Signal, testing
from agentq.message import EntryKind, Send
from agentq.stores.memory import MemoryStore
from agentq.testing.driver import Driver
from agentq.testing.runner import begin


@dataclass
class Verdict:
    ok: bool


verdict = Signal("verdict", Verdict)
aq = AgentQ("unfit")


@aq.task
async def ask(ctx: Context) -> bool:
    return (await ctx.wait_for(verdict)).ok


async def test_what_does_not_fit_is_recorded_and_the_wait_goes_on() -> None:
    clock = testing.SimulatedClock()
    async with MemoryStore(clock=clock) as store, aq.using(store=store):
        run_id = await begin(store, ask.bind(), None, clock)
        for number, payload in enumerate([b"true", b'{"ok":"maybe"}', b'{"ok":true}']):
            await store.command(Send(run_id=run_id, name="verdict", signal_id=str(number), payload=payload))
        await Driver(aq, store, clock).work()
        assert await aq.handle(run_id).result(timeout=0) is True
        journal = await store.journal(run_id)
        assert sorted(entry.kind for entry in journal) == [EntryKind.TRIED, EntryKind.TRIED, EntryKind.WAITED]
        assert [b"does not fit" in (entry.value or b"") for entry in journal].count(True) == 2


async def test_it_is_so_wherever_it_crashes() -> None:
    aq_signals = {verdict: [Verdict(ok=True)]}
    report = await testing.crash_everywhere(ask.bind(), signals=aq_signals)
    assert report.scenarios > 0

"""A store that misbehaves does so once, where it was told, and as it was told."""

from __future__ import annotations

import asyncio

import pytest

from agentq.errors import StoreUnavailable
from agentq.message import ClaimRequest, RunQuery, Verdict, Write
from agentq.stores.memory import MemoryStore
from agentq.testing.clock import SimulatedClock
from agentq.testing.conformance.bench import LEASE_S, Bench, entry
from agentq.testing.mortal import Fate, Fault, FaultKind, MortalStore


class Scene:
    """One claimed run behind a store whose operation 0 is healthy and whose operation 1 is not."""

    def __init__(self, *faults: Fault) -> None:
        self.clock = SimulatedClock()
        self.store = MemoryStore(clock=self.clock)
        self.bench = Bench(self.store, self.clock, self.store)
        self.deaths = 0
        self.looks: list[str] = []
        self.fate = Fate(faults, die=self.die, pause=self.pause, after=self.look)
        self.mortal = MortalStore(self.store, self.fate)

    def die(self) -> None:
        self.deaths += 1

    async def pause(self) -> None:
        self.clock.advance(LEASE_S + 1)
        taken = await self.bench.take("rescue")
        await self.bench.succeed(taken)

    async def look(self, verb: str) -> None:
        self.looks.append(verb)

    async def claimed(self) -> Write:
        """A write of the claim that operation 0 gives out."""
        await self.bench.submit("run-a")
        request = ClaimRequest(worker="w1", app="app", queues=("queue",), tasks=("task",), limit=1, lease_s=LEASE_S)
        [claim] = (await self.mortal.claim(request)).claims
        return Write(ref=claim.ref, entries=(entry(0),))

    async def recorded(self) -> int:
        return len(await self.store.journal("run-a"))


async def never_answers(call) -> None:
    asked = asyncio.ensure_future(call)
    for _ in range(5):
        await asyncio.sleep(0)
    assert not asked.done()
    asked.cancel()
    await asyncio.wait({asked})


async def test_without_faults_every_verb_passes():
    scene = Scene()
    write = await scene.claimed()
    assert await scene.mortal.write(write) is Verdict.COMMITTED
    assert (scene.fate.operations, scene.looks, scene.deaths) == (["claim", "write"], ["claim", "write"], 0)


async def test_reads_do_not_count():
    scene = Scene(Fault(1, FaultKind.REFUSED))
    write = await scene.claimed()
    assert len(await scene.mortal.runs(RunQuery())) == 1
    with pytest.raises(StoreUnavailable, match="did not arrive"):
        await scene.mortal.write(write)


@pytest.mark.parametrize(("kind", "applied"), [(FaultKind.DIE_BEFORE, 0), (FaultKind.DIE_AFTER, 1)])
async def test_the_dead_get_no_answer_now_or_later(kind, applied):
    scene = Scene(Fault(1, kind))
    write = await scene.claimed()
    await never_answers(scene.mortal.write(write))
    assert (scene.deaths, await scene.recorded()) == (1, applied)
    await never_answers(scene.mortal.write(write))
    assert (scene.deaths, scene.fate.operations) == (1, ["claim", "write"])


@pytest.mark.parametrize(("kind", "applied"), [(FaultKind.REFUSED, 0), (FaultKind.NO_REPLY, 1)])
async def test_an_unknown_outcome_is_resolved_by_sending_again(kind, applied):
    scene = Scene(Fault(1, kind))
    write = await scene.claimed()
    with pytest.raises(StoreUnavailable):
        await scene.mortal.write(write)
    assert await scene.recorded() == applied
    assert await scene.mortal.write(write) is Verdict.COMMITTED
    assert await scene.recorded() == 1


async def test_what_arrives_after_a_pause_past_the_lease_is_refused():
    scene = Scene(Fault(1, FaultKind.PAUSE))
    write = await scene.claimed()
    assert await scene.mortal.write(write) is Verdict.FENCED
    assert await scene.recorded() == 0


async def test_what_arrives_twice_is_applied_once():
    scene = Scene(Fault(1, FaultKind.TWICE))
    write = await scene.claimed()
    assert await scene.mortal.write(write) is Verdict.COMMITTED
    assert (await scene.recorded(), scene.looks) == (1, ["claim", "write", "write"])


async def test_a_claim_that_arrives_twice_answers_what_it_took_first():
    scene = Scene(Fault(0, FaultKind.TWICE))
    assert (await scene.claimed()).ref.epoch == 1

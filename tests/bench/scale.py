"""Whether claiming and listing stay cheap when the file holds a hundred thousand runs."""

from __future__ import annotations

import asyncio
import statistics
import time
from pathlib import Path

from agentq.message import Claim, ClaimRequest, Envelope, RunQuery, RunState, Succeeded, Worker, Write, new_run_id
from agentq.stores.base import Store
from tests.bench.contest import Measurement, Numbers, Target

FEW, MANY = 1_000, 100_000
ROUNDS = 100
ARGS = b'{"payload":"' + b"x" * 200 + b'"}'
ME = Worker(id="bench", app="bench", slots=100, queues=("default",), tasks=("noop",))


def envelope() -> Envelope:
    """One submission of a no-op."""
    return Envelope(
        id=new_run_id(), app="bench", task="noop", queue="default", args=ARGS, args_hash="0", submitted_at=time.time()
    )


async def claim(store: Store, limit: int) -> tuple[Claim, ...]:
    """Take up to ``limit`` runs."""
    request = ClaimRequest(worker=ME.id, app="bench", queues=("default",), tasks=("noop",), limit=limit, lease_s=600)
    return (await store.claim(request)).claims


async def settle(store: Store, claims: tuple[Claim, ...]) -> None:
    """Store a result for each."""
    await asyncio.gather(*(store.write(Write(ref=each.ref, settle=Succeeded(result=b'"ok"'))) for each in claims))


async def fill(store: Store, runs: int) -> None:
    """``runs`` runs, the older half of them succeeded, the others queued."""
    for begin in range(0, runs, 5000):
        await store.submit([envelope() for _ in range(min(5000, runs - begin))])
    done = 0
    while done < runs // 2:
        claims = await claim(store, min(500, runs // 2 - done))
        if not claims:
            raise RuntimeError(f"nothing to claim after {done} of {runs} runs")
        await settle(store, claims)
        done += len(claims)


async def claimed_ms(store: Store) -> float:
    """Milliseconds of a claim of 10; as many runs are settled and submitted afterwards, so that the file stays as it is."""
    begin = time.perf_counter()
    claims = await claim(store, 10)
    took = time.perf_counter() - begin
    if len(claims) != 10:
        raise RuntimeError("a claim came back short")
    await settle(store, claims)
    await store.submit([envelope() for _ in claims])
    return 1000 * took


async def listed_ms(store: Store, query: RunQuery) -> float:
    """Milliseconds of a list of 50."""
    begin = time.perf_counter()
    found = await store.runs(query)
    took = time.perf_counter() - begin
    if len(found) != 50:
        raise RuntimeError("a list came back short")
    return 1000 * took


async def compare(folder: Path) -> Numbers:
    """Ask the small and the large file in turn, so that what else the machine does hits both."""
    from agentq.stores import open_store

    queries = RunQuery(), RunQuery(states=(RunState.SUCCEEDED,)), RunQuery(queue="default")
    claims: dict[int, list[float]] = {FEW: [], MANY: []}
    lists: dict[int, list[float]] = {FEW: [], MANY: []}
    async with open_store(f"sqlite:///{folder}/few.db") as few, open_store(f"sqlite:///{folder}/many.db") as many:
        stores = {FEW: few, MANY: many}
        for runs, store in stores.items():
            await store.beat(ME, [], 600)
            await fill(store, runs)
        for number in range(ROUNDS):
            for runs, store in stores.items():
                claims[runs].append(await claimed_ms(store))
                lists[runs].append(await listed_ms(store, queries[number % len(queries)]))
    few_claim, many_claim = statistics.median(claims[FEW]), statistics.median(claims[MANY])
    few_list, many_list = statistics.median(lists[FEW]), statistics.median(lists[MANY])
    return {
        "claim_times": many_claim / few_claim,
        "list_times": many_list / few_list,
        "claim_few_ms": few_claim,
        "claim_many_ms": many_claim,
        "list_few_ms": few_list,
        "list_many_ms": many_list,
    }


def agentq(folder: Path) -> Numbers:
    """The same questions to a small and to a large file."""
    return asyncio.run(compare(folder))


MEASUREMENT = Measurement(
    name="scale",
    shape=f"a claim of 10 and a list of 50 (newest; succeeded; one queue) with {MANY:,} runs in the file against {FEW:,}",
    contenders={"agentq": agentq},
    targets=(
        Target(number="claim_times", label="claim at 100,000 runs against 1,000", bound=2, unit="times"),
        Target(number="list_times", label="list at 100,000 runs against 1,000", bound=2, unit="times"),
    ),
)

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


async def cost(folder: Path, runs: int) -> tuple[float, float]:
    """Median milliseconds of a claim of 10, and of listing the newest 50, the newest 50 that succeeded and one queue's."""
    from agentq.stores import open_store

    claiming, listing = [], []
    async with open_store(f"sqlite:///{folder}/{runs}.db") as store:
        await store.beat(ME, [], 600)
        await fill(store, runs)
        for _ in range(ROUNDS // 4 if runs == FEW else ROUNDS):
            begin = time.perf_counter()
            claims = await claim(store, 10)
            claiming.append(1000 * (time.perf_counter() - begin))
            if len(claims) != 10:
                raise RuntimeError("a claim came back short")
            await settle(store, claims)
        queries = RunQuery(), RunQuery(states=(RunState.SUCCEEDED,)), RunQuery(queue="default")
        for number in range(ROUNDS):
            begin = time.perf_counter()
            found = await store.runs(queries[number % 3])
            listing.append(1000 * (time.perf_counter() - begin))
            if len(found) != 50:
                raise RuntimeError("a list came back short")
    return statistics.median(claiming), statistics.median(listing)


def agentq(folder: Path) -> Numbers:
    """The same questions to a small and to a large file."""
    few_claim, few_list = asyncio.run(cost(folder, FEW))
    many_claim, many_list = asyncio.run(cost(folder, MANY))
    return {
        "claim_times": many_claim / few_claim,
        "list_times": many_list / few_list,
        "claim_few_ms": few_claim,
        "claim_many_ms": many_claim,
        "list_few_ms": few_list,
        "list_many_ms": many_list,
    }


MEASUREMENT = Measurement(
    name="scale",
    shape=f"a claim of 10 and a list of 50 (newest; succeeded; one queue) with {MANY:,} runs in the file against {FEW:,}",
    contenders={"agentq": agentq},
    targets=(
        Target(number="claim_times", label="claim at 100,000 runs against 1,000", bound=2, unit="times"),
        Target(number="list_times", label="list at 100,000 runs against 1,000", bound=2, unit="times"),
    ),
)

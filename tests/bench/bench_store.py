"""What the SQLite store alone does, beside the raw file: `python tests/bench/bench_store.py [name …]`."""

from __future__ import annotations

import asyncio
import contextlib
import os
import sqlite3
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from agentq.message import (
    ClaimRequest,
    Entry,
    EntryKind,
    Envelope,
    RunQuery,
    RunState,
    Succeeded,
    Write,
    new_run_id,
)
from agentq.stores.sqlite import SQLiteStore

VALUE = b'"' + b"x" * 200 + b'"'


def envelope(**more) -> Envelope:
    values = {
        "id": new_run_id(), "app": "bench", "task": "t", "queue": "q", "args": b'{"n":1}', "args_hash": "0" * 16,
        "submitted_at": time.time(),
    }  # fmt: skip
    return Envelope(**values | more)


def request(limit: int, **more) -> ClaimRequest:
    return ClaimRequest(worker="w", app="bench", queues=("q",), tasks=("t",), limit=limit, lease_s=300, **more)


def step(claim, seq: int) -> Write:
    now = time.time()
    entry = Entry(
        seq=seq, kind=EntryKind.DONE, step="ask", occurrence=seq, epoch=claim.ref.epoch, args_hash="f" * 16, value=VALUE,
        started_at=now, ended_at=now, tokens=100, cost_nanos=10,
    )  # fmt: skip
    return Write(ref=claim.ref, entries=(entry,))


def percentiles(times: list[float]) -> str:
    times.sort()
    p99 = times[min(len(times) - 1, int(len(times) * 0.99))]
    return f"p50 {statistics.median(times) * 1e3:.3f} ms, p99 {p99 * 1e3:.3f} ms"


@contextlib.asynccontextmanager
async def opened():
    with tempfile.TemporaryDirectory() as folder:
        async with SQLiteStore(Path(folder) / "bench.db") as store:
            yield store


async def raw() -> None:
    with tempfile.TemporaryDirectory() as folder:
        db = sqlite3.connect(Path(folder) / "raw.db", isolation_level=None)
        db.execute("pragma journal_mode=wal")
        db.execute("pragma synchronous=full")
        db.execute("create table j (k integer primary key, v blob)")
        times = []
        for k in range(2000):
            began = time.perf_counter()
            db.execute("insert into j values (?, ?)", (k, VALUE))
            times.append(time.perf_counter() - began)
        began = time.perf_counter()
        db.execute("begin")
        db.executemany("insert into j values (?, ?)", [(k, VALUE) for k in range(10_000, 110_000)])
        db.execute("commit")
        rows_s = 100_000 / (time.perf_counter() - began)
        print(f"{'raw: one row a commit; 100,000 rows a commit':48} {percentiles(times)}; {rows_s:,.0f} rows/s")


async def steps(runs: int, each: int, *, work_us: float = 0.0) -> None:
    async with opened() as store:
        await store.submit([envelope() for _ in range(runs)])
        claims = (await store.claim(request(runs))).claims
        times: list[float] = []

        async def one(claim) -> None:
            for seq in range(each):
                began = time.perf_counter()
                await store.write(step(claim, seq))
                times.append(time.perf_counter() - began)
                if work_us:
                    until = time.perf_counter() + work_us * 1e-6
                    while time.perf_counter() < until:
                        pass

        await asyncio.gather(*(one(claim) for claim in claims[:1]))
        times.clear()
        began = time.perf_counter()
        await asyncio.gather(*(one_from(one, claim) for claim in claims[1:] or [await again(store)]))
        took = time.perf_counter() - began
        label = f"steps, {runs} run(s), {work_us:g} us of Python each"
        print(f"{label:48} {len(times) / took:,.0f}/s, {percentiles(times)}")


async def one_from(one, claim) -> None:
    await one(claim)


async def again(store):
    await store.submit([envelope()])
    return (await store.claim(request(1))).claims[0]


async def noops(total: int = 20_000) -> None:
    async with opened() as store:
        made = [envelope() for _ in range(total)]
        began = time.perf_counter()
        await store.submit(made)
        took = time.perf_counter() - began
        print(f"{'submit, in chunks of 5,000':48} {total / took:,.0f} runs/s")
        began = time.perf_counter()
        done = 0
        spent = 0.0
        while claims := (await store.claim(request(50))).claims:
            spent -= time.perf_counter()
            await asyncio.gather(*(store.write(Write(ref=c.ref, settle=Succeeded(result=b"1"), running_s=0.1)) for c in claims))
            spent += time.perf_counter()
            done += len(claims)
        took = time.perf_counter() - began
        each = f"claim {(took - spent) / done * 1e6:.0f} us, settle {spent / done * 1e6:.0f} us"
        print(f"{'claim 50 + settle 50':48} {done / took:,.0f} runs/s ({each})")


async def resume() -> None:
    async with opened() as store:
        await store.submit([envelope()])
        claim = (await store.claim(request(1))).claims[0]
        await asyncio.gather(*(store.write(step(claim, seq)) for seq in range(1000)))
        await store.leave("w")
        began = time.perf_counter()
        claim = (await store.claim(request(1))).claims[0]
        print(f"{'claim of a run with 1,000 entries':48} {(time.perf_counter() - began) * 1e3:.1f} ms ({len(claim.journal)})")


async def scale() -> None:
    async with opened() as store:
        for have in (1_000, 100_000):
            async with contextlib.AsyncExitStack():
                now = len(await store.runs(RunQuery(limit=1_000_000)))
                while now < have:
                    batch = min(5000, have - now)
                    await store.submit([envelope() for _ in range(batch)])
                    for _ in range(batch // 500):
                        claims = (await store.claim(request(500))).claims
                        await asyncio.gather(*(store.write(Write(ref=c.ref, settle=Succeeded(result=b"1"))) for c in claims))
                    now += batch
            await store.submit([envelope() for _ in range(200)])
            figures = {}
            for name, call in (
                ("claim 1", lambda: store.claim(request(1))),
                (
                    "idle claim",
                    lambda: store.claim(ClaimRequest(worker="w", app="x", queues=("q",), tasks=("t",), limit=1, lease_s=9)),
                ),
                ("list 50", lambda: store.runs(RunQuery())),
                ("list 50 succeeded of a queue", lambda: store.runs(RunQuery(queue="q", states=(RunState.SUCCEEDED,)))),
                ("list 50 failed", lambda: store.runs(RunQuery(states=(RunState.FAILED,)))),
                ("census", store.census),
            ):
                times = []
                for _ in range(100):
                    began = time.perf_counter()
                    await call()
                    times.append(time.perf_counter() - began)
                figures[name] = f"{name} {statistics.median(times) * 1e3:.2f} ms"
            print(f"{f'with {have:,} runs':48} {', '.join(figures.values())}")


async def backlog() -> None:
    async with opened() as store:
        await store.submit([envelope(task="unknown") for _ in range(100_000)])
        await store.submit([envelope(due_at=time.time() + 3600) for _ in range(100_000)])
        await store.submit([envelope() for _ in range(200)])
        times = []
        for _ in range(200):
            began = time.perf_counter()
            await store.claim(request(1))
            times.append(time.perf_counter() - began)
        began = time.perf_counter()
        await store.census()
        census_ms = (time.perf_counter() - began) * 1e3
        print(f"{'claim behind 100,000 unknown and 100,000 delayed':48} {percentiles(times)}; census {census_ms:.1f} ms")


def start(*arguments: str) -> subprocess.Popen[str]:
    return subprocess.Popen([sys.executable, __file__, *arguments], stdout=subprocess.PIPE, text=True)


async def echo(path: str) -> None:
    """The other process: answers work with a write, by watching."""
    async with SQLiteStore(path) as store:
        seen = await store.watch("work", 0, 0)
        print("ready", flush=True)
        while True:
            seen = await store.watch("work", seen, 5)
            heard = time.time()
            claims = (await store.claim(request(1))).claims
            for claim in claims:
                print(heard, time.time(), flush=True)
                await store.write(Write(ref=claim.ref, settle=Succeeded(result=b"1")))


async def wake() -> None:
    async with opened() as store:
        process = start("--echo", store.where)
        process.stdout.readline()
        await asyncio.sleep(2)
        cpu = cpu_s(process.pid)
        await asyncio.sleep(5)
        idle = (cpu_s(process.pid) - cpu) / 5
        heard, claimed, submitted = [], [], []
        for _ in range(200):
            await asyncio.sleep(0.02)
            began = time.time()
            await store.submit([envelope()])
            submitted.append(time.time() - began)
            answer = (await asyncio.to_thread(process.stdout.readline)).split()
            heard.append(float(answer[0]) - began)
            claimed.append(float(answer[1]) - began)
        process.kill()
        process.wait()
        print(f"{'submit one':48} {percentiles(submitted)}")
        print(f"{'submit here to watch() returning elsewhere':48} {percentiles(heard)}; idle {idle:.2%} of a core")
        print(f"{'submit here to claimed elsewhere':48} {percentiles(claimed)}")


def cpu_s(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


async def contender(path: str, seconds: str) -> None:
    async with SQLiteStore(path) as store:
        await store.submit([envelope() for _ in range(10)])
        claims = (await store.claim(request(10))).claims
        until = time.time() + float(seconds)
        times: list[float] = []

        async def one(claim) -> None:
            seq = 0
            while time.time() < until:
                began = time.perf_counter()
                await store.write(step(claim, seq))
                times.append(time.perf_counter() - began)
                seq += 1

        await asyncio.gather(*(one(claim) for claim in claims))
        print(f"{len(times) / float(seconds):,.0f}/s, {percentiles(times)}, worst {times[-1] * 1e3:.0f} ms")


async def contention() -> None:
    async with opened() as store:
        processes = [start("--contender", store.where, "3") for _ in range(3)]
        for process in processes:
            print(f"{'one of 3 processes, 10 runs each':48} {(await asyncio.to_thread(process.communicate))[0].strip()}")


PARTS = {
    "raw": raw,
    "single": lambda: steps(1, 3000),
    "fifty": lambda: steps(51, 800),
    "busy": lambda: steps(51, 500, work_us=25),
    "noops": noops,
    "resume": resume,
    "scale": scale,
    "backlog": backlog,
    "wake": wake,
    "contention": contention,
}

if __name__ == "__main__":
    match sys.argv[1:]:
        case ["--echo", path]:
            asyncio.run(echo(path))
        case ["--contender", path, seconds]:
            asyncio.run(contender(path, seconds))
        case names:
            for name in names or PARTS:
                asyncio.run(PARTS[name]())

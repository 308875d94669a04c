"""What the PostgreSQL store alone does, beside the raw server in the same run: `python tests/bench/bench_postgres.py [name …]`.

The server is AGENTQ_TEST_POSTGRES, or one of its own with fsync on, over a Unix socket.
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import importlib
import os
import statistics
import subprocess
import sys
import tempfile
import time
import warnings
from pathlib import Path

import asyncpg

from agentq.message import ClaimRequest, Entry, EntryKind, Envelope, Succeeded, Write, new_run_id
from agentq.stores.postgres import PostgresStore

VALUE = b'"' + b"x" * 200 + b'"'
SCHEMA = "bench"
LABEL = 52

# The least that keeps the promise: each row fenced against its run, in one statement, with the verdict returned.
RAW_TABLES = """
drop table if exists raw_run, raw_journal;
create table raw_run (id text primary key, epoch int not null, token bigint not null);
create table raw_journal (run text, seq int, value bytea, primary key (run, seq));
insert into raw_run select 'run-' || n, 1, 1 from generate_series(1, 200) n
"""
RAW_STEP = """
with held as (select r.id, u.seq, u.value from unnest($1::text[], $2::int[], $3::bytea[]) as u (id, seq, value)
  join raw_run r on r.id = u.id and r.epoch = 1 and r.token = 1 order by r.id for no key update of r)
insert into raw_journal select id, seq, value from held returning run
"""


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


def success(claim) -> Write:
    return Write(ref=claim.ref, settle=Succeeded(result=b"1"), running_s=0.1)


def percentiles(times: list[float]) -> str:
    times.sort()
    p99 = times[min(len(times) - 1, int(len(times) * 0.99))]
    return f"p50 {statistics.median(times) * 1e3:.3f} ms, p99 {p99 * 1e3:.3f} ms"


def show(label: str, figures: str) -> None:
    print(f"{label:{LABEL}} {figures}", flush=True)


@contextlib.asynccontextmanager
async def opened(url: str):
    connection = await asyncpg.connect(url)
    await connection.execute(f"drop schema if exists {SCHEMA} cascade")
    await connection.close()
    async with PostgresStore(f"{url}{'&' if '?' in url else '?'}schema={SCHEMA}") as store:
        yield store


async def raw(url: str) -> None:
    """The ceiling: bare commits, then the least fenced group commit for 50 runs at once."""
    connection = await asyncpg.connect(url, server_settings={"jit": "off"})
    await connection.execute(RAW_TABLES)
    times = []
    for seq in range(2000):
        began = time.perf_counter()
        await connection.fetch(RAW_STEP, ["run-1"], [seq], [VALUE])
        times.append(time.perf_counter() - began)
    show("raw: one run, one fenced row a commit", percentiles(times))
    runs = [f"run-{n}" for n in range(2, 52)]
    times = []
    began_all = time.perf_counter()
    for seq in range(400):
        began = time.perf_counter()
        await connection.fetch(RAW_STEP, runs, [seq] * 50, [VALUE] * 50)
        times.append(time.perf_counter() - began)
    rows_s = 400 * 50 / (time.perf_counter() - began_all)
    show("raw: fifty runs, fifty fenced rows a commit", f"{rows_s:,.0f} rows/s, {percentiles(times)}")
    await connection.close()


async def steps(url: str, runs: int, each: int, *, work_us: float = 0.0) -> None:
    async with opened(url) as store:
        await store.submit([envelope() for _ in range(runs + 1)])
        claims = (await store.claim(request(runs + 1))).claims
        times: list[float] = []

        async def one(claim) -> None:
            for seq in range(each):
                began = time.perf_counter()
                await store.write(step(claim, seq))
                times.append(time.perf_counter() - began)
                until = time.perf_counter() + work_us * 1e-6
                while work_us and time.perf_counter() < until:
                    pass

        await one(claims[0])  # warms up
        times.clear()
        began = time.perf_counter()
        await asyncio.gather(*map(one, claims[1:]))
        took = time.perf_counter() - began
        show(f"steps, {runs} run(s), {work_us:g} us of Python each", f"{len(times) / took:,.0f}/s, {percentiles(times)}")


async def noops(url: str, total: int = 20_000, slots: int = 50) -> None:
    async with opened(url) as store:
        made = [envelope() for _ in range(total)]
        began = time.perf_counter()
        await store.submit(made)
        show("submit, in chunks of 5,000", f"{total / (time.perf_counter() - began):,.0f} runs/s")
        began = time.perf_counter()
        done, spent = 0, 0.0
        while claims := (await store.claim(request(slots))).claims:
            spent -= time.perf_counter()
            await asyncio.gather(*(store.write(success(claim)) for claim in claims))
            spent += time.perf_counter()
            done += len(claims)
        took = time.perf_counter() - began
        each = f"claim {(took - spent) / done * 1e6:.0f} us, settle {spent / done * 1e6:.0f} us"
        show(f"claim {slots} + settle {slots}", f"{done / took:,.0f} runs/s ({each})")


async def backlog(url: str) -> None:
    """Claims and counts stay fast behind what nobody here knows and what is not due."""
    async with opened(url) as store:
        await store.submit([envelope(task="unknown") for _ in range(50_000)])
        await store.submit([envelope(due_at=time.time() + 3600) for _ in range(50_000)])
        await store.submit([envelope() for _ in range(300)])
        times = []
        for _ in range(200):
            began = time.perf_counter()
            assert len((await store.claim(request(1))).claims) == 1
            times.append(time.perf_counter() - began)
        show("claim one behind 50,000 unknown and 50,000 delayed", percentiles(times))
        times = []
        for _ in range(10):
            began = time.perf_counter()
            await store.census()
            times.append(time.perf_counter() - began)
        show("census of 100,000", percentiles(times))


async def resume(url: str) -> None:
    async with opened(url) as store:
        await store.submit([envelope()])
        [claim] = (await store.claim(request(1))).claims
        entries = [step(claim, seq).entries[0] for seq in range(1000)]
        await store.write(Write(ref=claim.ref, entries=tuple(entries)))
        await store.leave("w")
        began = time.perf_counter()
        [claim] = (await store.claim(request(1))).claims
        show("claim of a run with 1,000 entries", f"{(time.perf_counter() - began) * 1e3:.1f} ms ({len(claim.journal)})")


async def echo(url: str) -> None:
    """The other process: claims what is submitted, by watching, and says when."""
    async with PostgresStore(url) as store:
        seen = await store.watch("work", -1, 0)
        print("ready", flush=True)
        while True:
            seen = await store.watch("work", seen, 5)
            for claim in (await store.claim(request(1))).claims:
                print(time.time(), flush=True)
                await store.write(success(claim))


def start(*arguments: str) -> subprocess.Popen[str]:
    return subprocess.Popen([sys.executable, __file__, *arguments], stdout=subprocess.PIPE, text=True)


async def wake(url: str) -> None:
    async with opened(url) as store:
        own = f"{url}{'&' if '?' in url else '?'}schema={SCHEMA}"
        process = start("--echo", own)
        try:
            process.stdout.readline()
            await asyncio.sleep(1)
            before = cpu_s(process.pid)
            await asyncio.sleep(3)
            idle = (cpu_s(process.pid) - before) / 3
            submitted, claimed = [], []
            for _ in range(200):
                await asyncio.sleep(0.01)
                began = time.time()
                await store.submit([envelope()])
                submitted.append(time.time() - began)
                claimed.append(float(await asyncio.to_thread(process.stdout.readline)) - began)
        finally:
            process.kill()
            process.wait()
            process.stdout.close()
        show("submit one", percentiles(submitted))
        show("submit here to claimed in another process", f"{percentiles(claimed)}; idle {idle:.2%} of a core")


def cpu_s(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


WORKER = {
    "one": ("worker: one run", "steps", (1,)),
    "many": ("worker: fifty runs", "steps", (50,)),
    "drain": ("worker: no-op runs with results, 100 slots", "drain", (Path(),)),
    "start": ("worker in another process: enqueue to first line", "start_latency", (Path(tempfile.gettempdir()),)),
}


async def worker(url: str) -> None:
    """End to end, with the tasks, the worker and the shapes that the embedded store is measured with."""
    for part in WORKER:
        async with opened(url) as store:
            own = f"{url}{'&' if '?' in url else '?'}schema={store.where.rpartition('=')[2]}"
        root = Path(__file__).parents[2]
        env = os.environ | {"AGENTQ_STORE": own, "PYTHONPATH": str(root)}
        await asyncio.to_thread(subprocess.run, [sys.executable, __file__, "--worker", part], env=env, cwd=root, check=True)


def measure(part: str) -> None:
    """In a process of its own, whose environment names the store."""
    label, module, arguments = WORKER[part]
    numbers = importlib.import_module(f"tests.bench.{module}").agentq(*arguments)
    show(label, ", ".join(f"{name} {value:,.2f}" for name, value in numbers.items()))


PARTS = {
    "raw": raw,
    "single": lambda url: steps(url, 1, 3000),
    "fifty": lambda url: steps(url, 50, 800),
    "busy": lambda url: steps(url, 50, 400, work_us=25),
    "noops": noops,
    "backlog": backlog,
    "resume": resume,
    "wake": wake,
    "worker": worker,
}


@contextlib.contextmanager
def server():
    if given := os.environ.get("AGENTQ_TEST_POSTGRES"):
        yield given
        return
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        import pgserver
    with tempfile.TemporaryDirectory(prefix="agentq-pg-") as folder:
        Path(folder).chmod(0o755)
        started = pgserver.get_server(Path(folder) / "data", cleanup_mode="stop")
        try:
            yield f"postgresql://postgres@/postgres?host={folder}/data"
        finally:
            started.cleanup()


if __name__ == "__main__":
    match sys.argv[1:]:
        case ["--echo", url]:
            asyncio.run(echo(url))
        case ["--worker", part]:
            measure(part)
        case names:
            with server() as url:
                for name in names or PARTS:
                    asyncio.run(PARTS[name](url))
                    gc.collect()

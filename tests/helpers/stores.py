"""A store on disk with runs in every state, written by hand through the store's own verbs."""

import asyncio
import time
from types import SimpleNamespace

import msgspec

from agentq.message import (
    Chunk,
    ClaimRequest,
    Entry,
    EntryKind,
    Envelope,
    Failed,
    Failure,
    Succeeded,
    Suspended,
    Wait,
    WaitKind,
    Worker,
    Write,
    new_run_id,
)
from agentq.stores import open_store

TRACE = 'Traceback\n  File "hello.py", line 30, in agent'
encode = msgspec.json.encode


def envelope(task, queue="default", args=None, **more):
    raw = encode(args or {})
    given = {"id": new_run_id(), "app": "hello", "submitted_at": time.time(), **more}
    return Envelope(task=task, queue=queue, args=raw, args_hash="x", **given)


def entry(claim, seq, step, *, kind=EntryKind.DONE, start=0.0, took=1.0, value="ok", **more):
    raw = encode(value)
    at = time.time() - 100 + start
    return Entry(seq=seq, kind=kind, step=step, epoch=claim.ref.epoch, started_at=at, ended_at=at + took, value=raw, **more)


def failure(kind, message):
    return Failure(type=kind, message=message)


def fill(path):
    """Make a store at ``path``: one run each that is running, waiting, succeeded, failed, queued and delayed."""
    made = asyncio.run(_fill(path))
    for lock in path.with_name(f"{path.name}-live").glob("*.lock"):
        lock.unlink()  # a worker without one is of another machine; with it, it would be known to be gone
    return made


async def _fill(path):
    made = SimpleNamespace(path=path, worker="3f2a9c1d77aa")
    async with open_store(str(path)) as store:
        names = {
            "running": envelope("agent", args={"goal": "read\x1b[2J the docs"}, key="g1"),
            "failed": envelope("agent", args={"goal": "fails"}),
            "waiting": envelope("report", "reports", args={"topic": "k8s"}, tenant="acme", priority=5, tags={"team": "infra"}),
            "succeeded": envelope("report", "reports", args={"topic": "sqs"}),
            "queued": envelope("summarise", "reports"),
            "delayed": envelope("agent", due_at=time.time() + 300),
        }
        for name, one in names.items():
            await store.submit([one])
            setattr(made, name, one.id)
        worker = Worker(
            id=made.worker, app="hello", host="box", pid=1, pod="worker-7c9", slots=8, busy=1, queues=("default", "reports"),
            tasks=("agent", "report", "summarise"), started_at=time.time() - 300, seen_at=time.time(),
        )  # fmt: skip
        await store.beat(worker, [], 30)
        claims = {}
        for queue, task, limit in (("default", "agent", 2), ("reports", "report", 2)):
            request = ClaimRequest(worker=worker.id, app="hello", queues=(queue,), tasks=(task,), limit=limit, lease_s=30)
            claims |= {claim.run.id: claim for claim in (await store.claim(request)).claims}
        await _work(store, made, claims)
    return made


async def _work(store, made, claims):
    one = claims[made.running]
    refused = failure("httpx.ConnectError", "connection refused")
    entries = (
        entry(one, 0, "ask", took=2.4),
        entry(one, 1, "read", branch="/0.0", start=2.4, took=0.02),
        entry(one, 2, "read", branch="/0.1", start=2.4, took=0.2, kind=EntryKind.TRIED, value=refused),
        entry(one, 3, "read", branch="/0.1", start=4, took=0.8, attempt=2, value="the page"),
        entry(one, 4, "ctx.sleep", start=5, took=60, kind=EntryKind.WAITED),
        entry(one, 5, "ask", start=70, took=3.3, occurrence=1),
    )
    chunk = Chunk(topic="token", payload=encode("hello"), epoch=1, n=0, at=time.time())
    await store.write(Write(ref=one.ref, entries=entries, progress=(0.6, "drafting"), chunks=(chunk,)))
    one = claims[made.failed]
    last = entry(one, 1, "publish", kind=EntryKind.FAILED, attempt=3, value=failure("ValueError", "no such page"))
    why = Failure(
        type="ValueError", message="no such page", step="publish", traceback='Traceback\n  File "hello.py", line 30, in agent'
    )
    await store.write(Write(ref=one.ref, entries=(entry(one, 0, "ask"), last), settle=Failed(failure=why), running_s=4.5))
    one = claims[made.waiting]
    ask = Wait(branch="", step="ctx.wait_for", occurrence=0, kind=WaitKind.SIGNAL, ref="approved", ask="Publish the report?")
    await store.write(Write(ref=one.ref, entries=(entry(one, 0, "search"),), waits=(ask,), settle=Suspended()))
    one = claims[made.succeeded]
    await store.write(Write(ref=one.ref, entries=(entry(one, 0, "search"),), settle=Succeeded(result=encode({"pages": 3}))))

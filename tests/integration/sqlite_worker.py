"""A process with a SQLite store of its own, told what to do by its arguments; prints what happened, a line each."""

import asyncio
import json
import os
import sys
import time

from agentq.message import ClaimRequest, Entry, EntryKind, Succeeded, Verdict, Worker, Write
from agentq.stores.sqlite import SQLiteStore

NAME = f"worker-{os.getpid()}"
REQUEST = ClaimRequest(worker=NAME, app="app", queues=("queue",), tasks=("task",), limit=8, lease_s=3600)


def say(*words: object) -> None:
    print(*words, flush=True)


async def hold(store: SQLiteStore) -> None:
    """Claim everything and sit on it."""
    claims = (await store.claim(REQUEST)).claims
    await store.beat(Worker(id=NAME, app="app"), [claim.ref for claim in claims], 3600)
    say("holds", *(claim.run.id for claim in claims))
    await asyncio.Event().wait()


async def fork(store: SQLiteStore) -> None:
    """Claim everything, and leave a child behind that outlives this process."""
    await store.claim(REQUEST)
    if os.fork() == 0:
        say("child", os.getpid())
        time.sleep(3600)  # noqa: ASYNC251 - the child has no loop of its own
    await asyncio.Event().wait()


async def write(store: SQLiteStore) -> None:
    """Append to one run as fast as it goes; say what was acknowledged."""
    claim = (await store.claim(REQUEST)).claims[0]
    for seq in range(1_000_000):
        entry = Entry(seq=seq, kind=EntryKind.DONE, step="step", occurrence=seq, value=b"1")
        assert await store.write(Write(ref=claim.ref, entries=(entry,))) is Verdict.COMMITTED
        say(seq)


async def drain(store: SQLiteStore) -> None:
    """Run whatever there is, one step each, until all is done."""
    say("ready")
    seen = 0
    while True:
        claims = (await store.claim(REQUEST)).claims
        await asyncio.gather(*(one(store, claim) for claim in claims))
        if not claims:
            seen = await store.watch("work", seen, 0.2)


async def one(store, claim) -> None:
    seq = len(claim.journal)
    entry = Entry(seq=seq, kind=EntryKind.APPENDED, step="try", occurrence=seq, value=json.dumps(NAME).encode())
    if await store.write(Write(ref=claim.ref, entries=(entry,))) is not Verdict.COMMITTED:
        return
    verdict = await store.write(Write(ref=claim.ref, settle=Succeeded(result=json.dumps(NAME).encode())))
    if verdict is Verdict.COMMITTED:
        say("done", claim.run.id)


async def watch(store: SQLiteStore) -> None:
    """Say each ring of work."""
    seen = await store.watch("work", 0, 0)
    say("ready")
    while True:
        tick = await store.watch("work", seen, 3600)
        if tick != seen:
            say("rung")
        seen = tick


async def main() -> None:
    async with SQLiteStore(sys.argv[2]) as store:
        say("open")
        await {"hold": hold, "fork": fork, "write": write, "drain": drain, "watch": watch, "open": asyncio.sleep}[sys.argv[1]](
            0 if sys.argv[1] == "open" else store
        )


if __name__ == "__main__":
    asyncio.run(main())

"""A process with a PostgreSQL store of its own, told what to do by its arguments; prints what happened, a line each."""

import asyncio
import json
import os
import sys

from agentq.message import ClaimRequest, Entry, EntryKind, Succeeded, Verdict, Write
from agentq.stores.postgres import PostgresStore

NAME = f"worker-{os.getpid()}"
REQUEST = ClaimRequest(worker=NAME, app="app", queues=("queue",), tasks=("task",), limit=8, lease_s=3600)


def say(*words: object) -> None:
    print(*words, flush=True)


async def hold(store: PostgresStore) -> None:
    """Claim everything and sit on it."""
    claims = (await store.claim(REQUEST)).claims
    say("holds", *(claim.run.id for claim in claims))
    await asyncio.Event().wait()


async def drain(store: PostgresStore) -> None:
    """Run whatever there is, one step each, until the process is ended."""
    seen = await store.watch("work", -1, 0)
    say("ready")
    while True:
        claims = (await store.claim(REQUEST)).claims
        await asyncio.gather(*(one(store, claim) for claim in claims))
        if not claims:
            seen = await store.watch("work", seen, 60)


async def one(store: PostgresStore, claim) -> None:
    seq = len(claim.journal)
    entry = Entry(seq=seq, kind=EntryKind.APPENDED, step="try", occurrence=seq, value=json.dumps(NAME).encode())
    assert await store.write(Write(ref=claim.ref, entries=(entry,))) is Verdict.COMMITTED
    assert await store.write(Write(ref=claim.ref, settle=Succeeded(result=b"1"))) is Verdict.COMMITTED
    say("done", claim.run.id)


async def make(store: PostgresStore) -> None:
    """Open the store, which migrates it, and leave."""
    say("made", len((await store.census()).queues))


async def main(what: str, url: str) -> None:
    async with PostgresStore(url) as store:
        await {"hold": hold, "drain": drain, "make": make}[what](store)


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))

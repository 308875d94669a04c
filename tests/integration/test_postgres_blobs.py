"""Large values: kept once by content, however many refer to them, and gone with the last."""

from __future__ import annotations

import asyncio

import pytest

from agentq.errors import NotFound
from agentq.message import Fork, RunQuery, Succeeded, Verdict, Write
from agentq.stores.postgres import PostgresStore
from tests.helpers.postgres import connected, fresh_schema
from tests.helpers.runs import entry, envelope, request

HUGE = b'"' + b"x" * 20_000_000 + b'"'
LARGE = b'"' + b"y" * 50_000 + b'"'


@pytest.fixture
async def url(postgres_url):
    async with fresh_schema(postgres_url) as own:
        yield own


@pytest.fixture
async def store(url):
    async with PostgresStore(url) as opened:
        yield opened


async def test_twenty_megabytes_come_back_whole_in_every_place(store):
    await store.submit([envelope("run-a", args=HUGE)])
    [claim] = (await store.claim(request())).claims
    assert claim.run.args == HUGE
    write = Write(ref=claim.ref, entries=(entry(0, value=HUGE), entry(1)), settle=Succeeded(result=HUGE))
    assert await store.write(write) is Verdict.COMMITTED
    assert await store.write(write) is Verdict.COMMITTED
    [kept, _] = await store.journal("run-a")
    assert await store.blob(kept.blob) == HUGE
    assert (await store.runs(RunQuery()))[0].result == HUGE


async def test_what_many_refer_to_is_kept_once_and_goes_with_the_last(postgres_url, url, store):
    await store.submit([envelope(f"run-{n}", args=LARGE) for n in range(10)])
    claims = (await store.claim(request())).claims
    await asyncio.gather(
        *(
            store.write(Write(ref=claim.ref, entries=(entry(0, value=LARGE),), settle=Succeeded(result=LARGE)))
            for claim in claims
        )
    )
    await store.command(Fork(run_id="run-0", new_id="fork", upto=1))
    [kept] = await store.journal("run-0")
    async with connected(postgres_url) as connection:
        assert await connection.fetchval(f"select count(*) from {url.rpartition('schema=')[2]}.blob") == 1  # noqa: S608
    assert await store.sweep(retention_s=-60) == 10
    assert (await store.runs(RunQuery()))[0].args == await store.blob(kept.blob) == LARGE
    [claim] = (await store.claim(request())).claims
    assert await store.write(Write(ref=claim.ref, settle=Succeeded(result=b"1"))) is Verdict.COMMITTED
    assert await store.sweep(retention_s=-60) == 1
    with pytest.raises(NotFound):
        await store.blob(kept.blob)


async def test_a_sweep_never_takes_what_is_just_being_referred_to(store):
    for n in range(30):
        await store.submit([envelope(f"old-{n}", args=LARGE)])
        [claim] = (await store.claim(request())).claims
        await store.write(Write(ref=claim.ref, settle=Succeeded(result=b"1")))
        sweep, submission = store.sweep(retention_s=-60), store.submit([envelope(f"new-{n}", args=LARGE)])
        await asyncio.gather(*((sweep, submission) if n % 2 else (submission, sweep)))
        [claim] = (await store.claim(request())).claims
        assert claim.run.args == LARGE
        await store.write(Write(ref=claim.ref, settle=Succeeded(result=b"1")))
        while await store.sweep(retention_s=-60):
            pass

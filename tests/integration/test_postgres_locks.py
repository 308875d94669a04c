"""Transactions of others: deadlocks, rows that they hold, and submissions inside them."""

from __future__ import annotations

import asyncio

import pytest

from agentq.message import RunQuery, RunState, Succeeded, Verdict, Wait, WaitKind, Worker, Write
from agentq.stores.postgres import PostgresStore, claims
from agentq.testing.wait import wait_until
from tests.helpers.postgres import connected, fresh_schema, waits_for
from tests.helpers.runs import LEASE_S, entry, envelope, request

FOR_EVER_S = 60.0


@pytest.fixture
async def url(postgres_url):
    async with fresh_schema(postgres_url) as own:
        yield own


@pytest.fixture
async def store(url):
    async with PostgresStore(url) as opened:
        yield opened


@pytest.fixture
async def user(postgres_url, url):
    """A connection of the user's own, that finds the tables."""
    async with connected(postgres_url) as connection:
        await connection.execute(f"set search_path = {url.rpartition('schema=')[2]}")
        yield connection


async def test_a_deadlock_costs_time_and_nothing_else(store, user):
    await store.submit([envelope("run-a"), envelope("run-b")])
    claims = (await store.claim(request())).claims
    await user.execute("set deadlock_timeout = '60s'; begin; select 1 from run where id = 'run-b' for update")
    waiting = Wait(branch="", step="s", occurrence=0, kind=WaitKind.SIGNAL, ref="go")
    writes = asyncio.gather(
        *(store.write(Write(ref=claim.ref, waits=(waiting,), settle=Succeeded(result=b"1"))) for claim in claims)
    )
    await wait_until("the batch waits for run-b", lambda: waits_for(user))
    await user.execute("select 1 from run where id = 'run-a' for update; commit")  # the batch gives way
    assert await writes == [Verdict.COMMITTED] * 2


async def test_a_heartbeat_passes_by_rows_that_are_held(store, user):
    await store.submit([envelope("run-a"), envelope("run-b")])
    held, free = (claim.ref for claim in (await store.claim(request(lease_s=1.0))).claims)
    await user.execute("begin")
    await user.fetch("select 1 from run where id = $1 for update", held.run_id)
    assert (await store.beat(Worker(id="w"), [held, free], LEASE_S)).lost == ()
    leases = {run.id: run.lease_s for run in await store.runs(RunQuery())}
    assert leases[held.run_id] < 1.0 < leases[free.run_id]
    await user.execute("rollback")
    assert (await store.beat(Worker(id="w"), [held, free], LEASE_S)).lost == ()
    leases = {run.id: run.lease_s for run in await store.runs(RunQuery())}
    assert leases[held.run_id] > 1.0


async def test_a_claim_passes_by_rows_that_are_held(store, user):
    await store.submit([envelope("run-a"), envelope("run-b")])
    await user.execute("begin; select 1 from run where id = 'run-a' for update")
    answer = await store.claim(request())
    assert [claim.run.id for claim in answer.claims] == ["run-b"]
    assert answer.next_due_s is not None, "it must be asked again soon: something was there"
    await user.execute("rollback")
    assert [claim.run.id for claim in (await store.claim(request())).claims] == ["run-a"]


async def test_a_dead_workers_run_that_is_held_is_asked_for_again_soon(store, user):
    await store.submit([envelope("run-a")])
    await store.claim(request("dead"))
    await store.leave("dead")
    await user.execute("begin; select 1 from run where id = 'run-a' for update")
    answer = await store.claim(request())
    assert answer.claims == ()
    assert answer.next_due_s is not None
    await user.execute("rollback")
    [claim] = (await store.claim(request())).claims
    assert claim.taken_over


async def test_a_write_that_waited_for_a_lock_sees_what_happened_meanwhile(store, user):
    await store.submit([envelope("run-a")])
    [claim] = (await store.claim(request())).claims
    await user.execute("begin; update run set epoch = 2, token = 1 where id = 'run-a'")
    write = asyncio.ensure_future(store.write(Write(ref=claim.ref, entries=(entry(0),))))
    await wait_until("the write waits for the row", lambda: waits_for(user))
    await user.execute("commit")
    assert await write is Verdict.FENCED
    assert await store.journal("run-a") == []


async def test_a_success_that_waited_for_a_lock_wakes_whoever_began_to_wait_meanwhile(store, user):
    await store.submit([envelope("run-a"), envelope("run-b")])
    parent, child = sorted((await store.claim(request())).claims, key=lambda claim: claim.run.id)
    # What a suspending parent does, held open in the middle.
    await user.execute("""
        begin;
        select 1 from run where id in ('run-a', 'run-b') for no key update;
        insert into wait (run, branch, step, occurrence, kind, ref, attempt)
          select n, '', 'call', 0, 'child', 'run-b', 1 from run where id = 'run-a';
        update run set watched = true where id = 'run-b';
        update run set state = 2, token = null, owner = null, lease_until = null where id = 'run-a'
    """)
    success = asyncio.ensure_future(store.write(Write(ref=child.ref, settle=Succeeded(result=b"1"))))
    await wait_until("the success waits for the row", lambda: waits_for(user))
    await user.execute("commit")
    assert await success is Verdict.COMMITTED
    assert [claim.run.id for claim in (await store.claim(request())).claims] == ["run-a"]
    assert parent.run.id == "run-a"


async def test_a_submission_inside_a_transaction_is_there_when_it_commits(store, user):
    seen = await store.watch("work", -1, 0)
    async with user.transaction():
        await user.execute("create table if not exists orders (id int)")
        await user.execute("insert into orders values (1)")
        answers = await store.submit_on(user, [envelope("run-a", args=b"1" * 100_000), envelope("run-b")])
        assert [answer.created for answer in answers] == [True, True]
        assert await store.runs(RunQuery()) == []
    assert await store.watch("work", seen, FOR_EVER_S) > seen
    assert {claim.run.args for claim in (await store.claim(request())).claims} == {b"1" * 100_000, b"{}"}


async def test_a_submission_inside_a_transaction_goes_with_it(store, user):
    transaction = user.transaction()
    await transaction.start()
    await store.submit_on(user, [envelope("run-a", task="new")])
    await transaction.rollback()
    assert await store.runs(RunQuery()) == []
    assert (await store.submit([envelope("run-a", task="new")]))[0].created


async def test_a_submission_inside_a_transaction_finds_what_exists(store, user):
    await store.submit([envelope("run-a", args=b"old", args_hash="o")])
    async with user.transaction():
        [again, fresh] = await store.submit_on(user, [envelope("run-a"), envelope("run-b")])
    assert (again.created, again.args, again.args_hash, fresh.created) == (False, b"old", "o", True)
    assert await store.submit_on(user, []) == []


async def test_a_claim_whose_caller_has_gone_is_handed_back(store, user):
    await store.submit([envelope("run-a")])
    await user.execute("begin; lock table worker in access exclusive mode")
    asked = asyncio.ensure_future(store.claim(request()))
    await wait_until("the claim is under way", lambda: waits_for(user))
    asked.cancel()
    with pytest.raises(asyncio.CancelledError):
        await asked
    await user.execute("rollback")

    async def handed_back() -> bool:
        [run] = await store.runs(RunQuery())
        return run.epoch == 1 and run.state is RunState.QUEUED

    await wait_until("the run is queued again", handed_back)


async def test_what_comes_past_its_deadline_between_looking_and_taking_is_not_started(store, monkeypatch):
    looked = claims.look

    async def then_it_comes(db):
        seen = await looked(db)
        await store.submit([envelope("run-a", deadline=1.0), envelope("run-b")])
        return seen

    monkeypatch.setattr(claims, "look", then_it_comes)
    assert [claim.run.id for claim in (await store.claim(request())).claims] == ["run-b"]
    monkeypatch.undo()
    assert (await store.claim(request())).claims == ()
    (run,) = await store.runs(RunQuery(ids=("run-a",)))
    assert run.state is RunState.FAILED

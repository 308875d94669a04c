"""Ordering keys and early commands on two connections at once: no wake-up is lost, no command either, nobody overtakes."""

# ruff: noqa: S608 - the names of schemas are made by the test

from __future__ import annotations

import asyncio
import random
from collections import defaultdict

import asyncpg
import pytest

from agentq.errors import StoreUnavailable
from agentq.message import Cancel, Failed, Failure, Pause, Reply, Requeue, RunQuery, RunState, Send, Succeeded, Verdict, Write
from agentq.stores.postgres import PostgresStore
from agentq.stores.postgres.connection import SETTINGS
from agentq.stores.postgres.schema import MIGRATIONS
from agentq.testing.wait import wait_until
from tests.helpers.postgres import connected, fresh_schema, waits_for
from tests.helpers.runs import entry, envelope, request

FAILURE = Failure(type="E", message="")


@pytest.fixture
async def url(postgres_url):
    async with fresh_schema(postgres_url) as own:
        yield own


@pytest.fixture
async def store(url):
    async with PostgresStore(url) as opened:
        yield opened


@pytest.fixture
async def other(url, store):
    async with PostgresStore(url) as opened:
        yield opened


@pytest.fixture
async def user(postgres_url, url):
    """A connection of the user's own, that finds the tables."""
    async with connected(postgres_url) as connection:
        await connection.execute(f"set search_path = {url.rpartition('schema=')[2]}")
        yield connection


async def names(store: PostgresStore, worker: str = "w") -> list[str]:
    return [claim.run.id for claim in (await store.claim(request(worker))).claims]


async def succeed(store: PostgresStore, claim) -> None:
    assert await store.write(Write(ref=claim.ref, settle=Succeeded(result=b"1"))) is Verdict.COMMITTED


async def test_submitters_and_finishers_of_few_keys_lose_nobody_and_keep_the_order(store, other):
    chance = random.Random(7)
    keys, each, batches = ("a", "b", "c"), 4, 30
    total = len(keys) * each * batches
    active: dict[str, str] = {}
    begun: dict[str, list[str]] = defaultdict(list)
    done = 0

    async def submitters(through: PostgresStore, mine: int) -> None:
        for batch in range(mine, batches, 2):
            order = list(keys * each)
            chance.shuffle(order)
            await through.submit([envelope(f"{key}-{batch}-{n}", ordering_key=key) for n, key in enumerate(order)])

    async def worker(through: PostgresStore, name: str) -> None:
        nonlocal done
        while done < total:
            for claim in (await through.claim(request(name, limit=chance.randint(1, 3)))).claims:
                key = claim.run.ordering_key
                assert key not in active, f"{claim.run.id} and {active[key]} hold {key} at once"
                active[key] = claim.run.id
                begun[key].append(claim.run.id)
                settle = chance.choice([Succeeded(result=b"1"), Failed(failure=FAILURE)])
                entries = (entry(0),) if chance.random() < 0.5 else ()
                del active[key]
                assert await through.write(Write(ref=claim.ref, entries=entries, settle=settle)) is Verdict.COMMITTED
                done += 1

    async with asyncio.timeout(60):
        await asyncio.gather(
            submitters(store, 0), submitters(other, 1),
            *(worker(through, f"w{n}") for n, through in enumerate((store, other, store, other))),
        )  # fmt: skip
    submitted = [run.id for run in reversed(await store.runs(RunQuery(limit=total)))]
    for key in keys:
        assert begun[key] == [name for name in submitted if name.startswith(key)]


async def test_a_submission_that_saw_the_old_front_is_not_forgotten(store, user):
    await store.submit([envelope("run-a", ordering_key="k")])
    [first] = (await store.claim(request())).claims
    async with user.transaction():
        await store.submit_on(user, [envelope("run-b", ordering_key="k")])
        await succeed(store, first)
        answer = await store.claim(request())
        assert answer.claims == ()
        assert answer.next_due_s is not None, "it must be asked again soon: somebody holds the line"
    assert await names(store) == ["run-b"]


async def test_who_is_behind_waits_for_a_submission_that_came_before_it(store, user):
    transaction = user.transaction()
    await transaction.start()
    await store.submit_on(user, [envelope("run-a", ordering_key="k")])
    later = asyncio.ensure_future(store.submit([envelope("run-b", ordering_key="k")]))
    await wait_until("the second submission waits for the first", lambda: waits_for(user))
    await store.submit([envelope("run-c", ordering_key="other"), envelope("run-d")])
    assert set(await names(store)) == {"run-c", "run-d"}
    await transaction.commit()
    assert (await later)[0].created
    assert await names(store) == ["run-a"]


async def test_a_line_whose_next_is_cancelled_meanwhile_goes_on_with_the_one_after(store, other, user):
    await store.submit([envelope(f"run-{n}", ordering_key="k") for n in "abc"])
    [first] = (await store.claim(request())).claims
    await succeed(store, first)
    await user.execute("begin; update run set state = 6, finished_at = 1, behind = false where id = 'run-b'")
    asked = asyncio.ensure_future(names(store))
    await wait_until("the hand-over waits for the row", lambda: waits_for(user))
    await user.execute("commit")
    assert await asked == ["run-c"]


async def test_the_census_counts_who_is_next_before_any_claim(store):
    await store.submit([envelope(f"run-{n}", ordering_key="k") for n in range(3)])
    [first] = (await store.claim(request())).claims
    await succeed(store, first)
    [stats] = (await store.census()).queues
    assert (stats.runnable, stats.ordered) == (1, 1)


async def test_ten_thousand_behind_cost_a_claim_nothing(store, user):
    await store.submit([envelope(f"run-{n:05d}", ordering_key="k") for n in range(5000)])
    await store.submit([envelope(f"run-{n:05d}", ordering_key="k") for n in range(5000, 10_000)])
    await user.execute("analyze run")
    assert await user.fetchval("select count(*) from run where ready") == 1
    for n in range(5):
        [claim] = (await store.claim(request())).claims
        assert claim.run.id == f"run-{n:05d}"
        await succeed(store, claim)
    assert await user.fetchval("select count(*) from vacant") == 1


async def test_retries_and_finishers_agree_on_the_front(store, other):
    """Two runs of a key fail; both are retried while a third is finished: one is handed out after the other."""
    for round_ in range(10):
        ids = [f"{round_}-{n}" for n in "abc"]
        await store.submit([envelope(run_id, ordering_key="k") for run_id in ids])
        for _ in range(2):
            [claim] = (await store.claim(request())).claims
            await store.write(Write(ref=claim.ref, settle=Failed(failure=FAILURE)))
        [third] = (await store.claim(request())).claims
        await asyncio.gather(
            store.command(Requeue(run_id=ids[0])), other.command(Requeue(run_id=ids[1])), succeed(store, third),
        )  # fmt: skip
        seen = []
        for _ in range(2):
            [claim] = (await other.claim(request())).claims
            seen.append(claim.run.id)
            await succeed(other, claim)
        assert set(seen) == set(ids[:2])
        assert await names(store) == []


@pytest.mark.parametrize("command", [Cancel, Pause])
async def test_an_early_command_that_meets_the_submission_acts_on_the_run(store, user, command):
    async with user.transaction():
        await store.submit_on(user, [envelope("run-a")])
        asked = asyncio.ensure_future(store.command(command(run_id="run-a", early=True)))
        await wait_until("the command waits for the submission", lambda: waits_for(user))
    assert await asked is Reply.DONE
    [run] = await store.runs(RunQuery())
    assert (run.state is RunState.CANCELLED, run.paused) == (command is Cancel, command is Pause)
    assert await user.fetchval("select count(*) from early") == 0


async def test_a_submission_that_meets_an_early_command_heeds_it(store, other, user):
    await user.execute("begin; lock table early in access exclusive mode")
    asked = asyncio.ensure_future(store.command(Send(run_id="run-a", name="go", signal_id="1", payload=b"1", early=True)))
    await wait_until("the command is under way", lambda: waits_for(user))
    submitted = asyncio.ensure_future(other.submit([envelope("run-a")]))
    blocked = "select count(*) from pg_locks where not granted"
    await wait_until("the submission waits for the command", lambda: user.fetchval(f"select ({blocked}) >= 2"))
    await user.execute("commit")
    assert await asked is Reply.DONE
    assert (await submitted)[0].created
    assert await user.fetchval("select count(*) from signal") == 1
    assert await names(store) == ["run-a"]


async def test_early_commands_and_submissions_in_any_order_lose_nothing(store, other):
    async def meet(n: int) -> None:
        name = f"run-{n}"
        calls = [
            lambda: store.submit([envelope(name)]),
            lambda: other.command(Cancel(run_id=name, early=True)),
            lambda: store.command(Cancel(run_id=name, early=True)),
        ]
        random.Random(n).shuffle(calls)
        await asyncio.gather(*(call() for call in calls))

    await asyncio.gather(*(meet(n) for n in range(40)))
    runs = await store.runs(RunQuery(limit=100))
    assert len(runs) == 40
    assert {run.state for run in runs} == {RunState.CANCELLED}


async def older(user: asyncpg.Connection, url: str) -> None:
    """A schema as the first version left it."""
    name = url.rpartition("schema=")[2]
    first = MIGRATIONS[0].replace("~.", f'"{name}".')
    await user.execute(f"create schema {name}; create table {name}.meta (key text primary key, value text not null)")
    await user.execute(first)
    await user.execute(f"insert into {name}.meta values ('version', '1'), ('oldest', '1')")
    await user.execute(f"set search_path = {name}")


async def test_a_schema_of_the_first_version_comes_along_with_its_runs(postgres_url, url):
    async with connected(postgres_url) as user:
        await older(user, url)
        await user.execute("insert into lane (app, queue, task) values ('app', 'queue', 'task')")
        await user.execute(
            "insert into run (id, lane, state, ready, rank, since, submitted_at, args_hash, args)"
            " values ('old', 1, 0, true, 1, 1, 1, 'h', '{}')"
        )
        async with PostgresStore(url) as store:
            await store.submit([envelope("run-a", ordering_key="k"), envelope("run-b", ordering_key="k")])
            assert await names(store) == ["old", "run-a"]


async def test_a_worker_of_the_first_version_beside_us_neither_breaks_a_line_nor_stops_it(store, user):
    await store.submit([envelope(f"run-{n}", ordering_key="k") for n in "abc"])
    # What the first version writes when it resumes a paused run, and when it ends one.
    await user.execute("update run set paused = false, ready = true where id = 'run-b'")
    [first] = (await store.claim(request())).claims
    assert first.run.id == "run-a"
    await user.execute("update run set state = 4, finished_at = 1, token = null, lease_until = null where id = 'run-a'")
    assert await names(store) == ["run-b"]


async def test_a_line_held_by_a_user_keeps_no_other_line_waiting(store, user):
    await store.submit([envelope("run-a", ordering_key="k"), envelope("run-b", ordering_key="k")])
    await store.submit([envelope("run-c", ordering_key="l"), envelope("run-d", ordering_key="l")])
    claims = (await store.claim(request())).claims
    async with user.transaction():
        await store.submit_on(user, [envelope("run-x", ordering_key="k")])
        for claim in claims:
            await succeed(store, claim)
        assert await names(store) == ["run-d"]
    assert await names(store) == ["run-b"]


async def test_a_child_whose_line_a_user_holds_keeps_no_other_write_waiting_for_long(url, user, monkeypatch):
    monkeypatch.setitem(SETTINGS, "lock_timeout", "100ms")
    async with PostgresStore(url) as store:
        await store.submit([envelope("run-a"), envelope("run-b")])
        one, two = (await store.claim(request())).claims
        async with user.transaction():
            await store.submit_on(user, [envelope("run-x", ordering_key="k")])
            held, free = await asyncio.gather(
                store.write(Write(ref=one.ref, children=(envelope("run-c", ordering_key="k"),))),
                store.write(Write(ref=two.ref, settle=Failed(failure=FAILURE))),
                return_exceptions=True,
            )
        assert free is Verdict.COMMITTED
        assert isinstance(held, StoreUnavailable)
        again = Write(ref=one.ref, children=(envelope("run-c", ordering_key="k"),))
        assert await store.write(again) is Verdict.COMMITTED
        assert await names(store) == ["run-x"]

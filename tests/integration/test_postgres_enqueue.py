"""Submissions inside transactions of the user's own, with either driver."""

from __future__ import annotations

import asyncio

import asyncpg
import psycopg
import pytest

from agentq.errors import InvalidArgument
from agentq.message import RunQuery, Succeeded, Write
from agentq.stores.postgres import PostgresStore
from agentq.stores.postgres.address import address
from agentq.stores.transactional import Transactional
from tests.helpers.postgres import connected, fresh_schema
from tests.helpers.runs import envelope, request

FOR_EVER_S = 60.0


@pytest.fixture
async def url(postgres_url):
    async with fresh_schema(postgres_url) as own:
        yield own


@pytest.fixture
async def store(url):
    async with PostgresStore(url) as opened:
        yield opened


class Asyncpg:
    """Each driver's way to begin, commit and roll back."""

    async def open(self, dsn):
        self.connection = await asyncpg.connect(dsn)
        self.transaction = self.connection.transaction()
        await self.transaction.start()

    async def commit(self):
        await self.transaction.commit()

    async def rollback(self):
        await self.transaction.rollback()

    async def close(self):
        await self.connection.close()


class Psycopg:
    async def open(self, dsn):
        self.connection = await psycopg.AsyncConnection.connect(dsn, row_factory=psycopg.rows.dict_row)

    async def commit(self):
        await self.connection.commit()

    async def rollback(self):
        await self.connection.rollback()

    async def close(self):
        await self.connection.close()


class Blocking:
    async def open(self, dsn):
        self.connection = psycopg.Connection.connect(dsn)

    async def commit(self):
        self.connection.commit()

    async def rollback(self):
        self.connection.rollback()

    async def close(self):
        self.connection.close()


@pytest.fixture(params=[Asyncpg, Psycopg, Blocking])
async def user(request, postgres_url):
    opened = request.param()
    await opened.open(address(postgres_url).dsn)
    yield opened
    await opened.close()


def filled(run_id: str, **more):
    return envelope(run_id, priority=3, tags={"a": "b"}, tenant="acme", deadline=9e9, timeout_s=5.0, max_attempts=2, **more)


async def test_what_is_submitted_is_there_when_the_user_commits(store, user):
    assert isinstance(store, Transactional)
    await store.submit([envelope("run-b", args=b"old", args_hash="o")])
    seen = await store.watch("work", -1, 0)
    given = [filled("run-a", args=b"1" * 100_000), envelope("run-b"), envelope("run-c", ordering_key="k", key="c")]
    answers = await store.submit_on(user.connection, given)
    assert [answer.created for answer in answers] == [True, False, True]
    assert answers[1].args == b"old"
    assert [run.id for run in await store.runs(RunQuery())] == ["run-b"]
    await user.commit()
    assert await store.watch("work", seen, FOR_EVER_S) > seen
    runs = {claim.run.id: claim.run for claim in (await store.claim(request())).claims}
    assert runs.keys() == {"run-a", "run-b", "run-c"}
    assert (runs["run-a"].args, runs["run-a"].tags, runs["run-a"].timeout_s) == (b"1" * 100_000, {"a": "b"}, 5.0)


async def test_what_is_submitted_goes_when_the_user_rolls_back(store, user):
    await store.submit_on(user.connection, [envelope("run-a", ordering_key="k"), envelope("run-b", task="new")])
    await user.rollback()
    assert await store.runs(RunQuery()) == []
    assert (await store.submit([envelope("run-a", ordering_key="k")]))[0].created
    assert [claim.run.id for claim in (await store.claim(request())).claims] == ["run-a"]


async def test_a_refused_submission_leaves_the_users_transaction_as_it_was(store, user, postgres_url):
    async with fresh_schema(postgres_url) as second, PostgresStore(second) as other:
        name = other._names.schema
        async with connected(postgres_url) as admin:
            await admin.execute(f"update {name}.meta set value = 'elsewhere' where key = 'identity'")  # noqa: S608
        with pytest.raises(InvalidArgument, match="another database"):
            await other.submit_on(user.connection, [envelope("run-a")])
    await store.submit_on(user.connection, [envelope("run-a")])
    await user.commit()
    assert len(await store.runs(RunQuery())) == 1


async def test_a_connection_that_is_not_in_a_transaction_is_refused(store, postgres_url):
    dsn = address(postgres_url).dsn
    async with connected(postgres_url) as plain, await psycopg.AsyncConnection.connect(dsn, autocommit=True) as auto:
        for connection in (plain, auto):
            with pytest.raises(InvalidArgument, match="begin a transaction"):
                await store.submit_on(connection, [envelope("run-a")])
    with psycopg.Connection.connect(dsn) as failed:
        with pytest.raises(psycopg.Error):
            failed.execute("select nonsense")
        with pytest.raises(InvalidArgument, match="failed before"):
            await store.submit_on(failed, [envelope("run-a")])
    with pytest.raises(InvalidArgument, match="asyncpg"):
        await store.submit_on(object(), [envelope("run-a")])


async def test_a_stricter_isolation_loses_no_wake_up(store, postgres_url):
    await store.submit([envelope("run-a", ordering_key="k")])
    [first] = (await store.claim(request())).claims
    async with connected(postgres_url) as connection, connection.transaction(isolation="repeatable_read"):
        await connection.fetchval("select 1")  # from now on it sees nothing new
        await store.write(Write(ref=first.ref, settle=Succeeded(result=b"1")))
        assert (await store.claim(request())).claims == ()
        await store.submit_on(connection, [envelope("run-b", ordering_key="k")])
    assert [claim.run.id for claim in (await store.claim(request())).claims] == ["run-b"]


async def test_a_connection_of_a_pool_will_do(store, postgres_url):
    async with asyncpg.create_pool(address(postgres_url).dsn, min_size=1, max_size=1) as pool, pool.acquire() as lent:
        async with lent.transaction():
            await store.submit_on(lent, [envelope("run-a")])
        assert len(await store.runs(RunQuery())) == 1
        await asyncio.sleep(0)

"""Enqueueing inside a transaction of the user's own."""

import asyncio

import psycopg
import pytest

from agentq import AgentQ, AgentQError, Context, KeyConflict, Retry, current
from agentq.errors import InvalidArgument, NotFound
from agentq.message import RunQuery
from agentq.settings import WorkerSettings
from agentq.testing.broker import MemoryBroker
from agentq.worker import Worker
from tests.helpers.postgres import connected, fresh_schema

aq = AgentQ("t")


@aq.task(retry=Retry(max_attempts=1))
async def double(ctx: Context, n: int) -> int:
    return 2 * n


async def test_a_run_is_there_when_the_transaction_commits_and_never_when_it_does_not(postgres_url: str):
    async with fresh_schema(postgres_url) as url, aq.using(store=url), connected(url) as connection:
        async with connection.transaction():
            kept = await double.options(key="k").enqueue_on(connection, 3)
            with pytest.raises(NotFound):
                await kept.status()
        assert (await kept.status()).task == "double"
        undone = connection.transaction()
        await undone.start()
        lost = await double.enqueue_on(connection, 4)
        await undone.rollback()
        with pytest.raises(NotFound):
            await lost.status()
        async with connection.transaction():
            with pytest.raises(KeyConflict):
                await double.options(key="k").enqueue_on(connection, 5)


async def test_it_goes_past_the_broker(postgres_url: str):
    broker = MemoryBroker()
    async with fresh_schema(postgres_url) as url, aq.using(store=url, broker=broker), connected(url) as connection:
        async with connection.transaction():
            handles = await aq.enqueue_many([double.bind(1), double.bind(2)], on=connection)
        assert len(await aq.store.runs(RunQuery())) == len(handles) == 2
        assert [each.ready for each in await broker.backlog(["default"])] == [0]


async def test_connections_of_psycopg_do_as_well(postgres_url: str):
    async with fresh_schema(postgres_url) as url, aq.using(store=url):
        with psycopg.connect(postgres_url) as connection:
            handle = await double.enqueue_on(connection, 3)
        assert (await handle.status()).id == handle.id
        async with await psycopg.AsyncConnection.connect(postgres_url) as other:
            lost = await double.enqueue_on(other, 4)
            await other.rollback()
        with pytest.raises(NotFound):
            await lost.status()


async def test_another_store_and_a_connection_without_a_transaction_are_refused(postgres_url: str):
    async with aq.using(store="memory:"):
        with pytest.raises(InvalidArgument, match="shares no transactions"):
            await double.enqueue_on(object(), 1)
    async with fresh_schema(postgres_url) as url, aq.using(store=url), connected(url) as connection:
        with pytest.raises(InvalidArgument, match="begin a transaction"):
            await double.enqueue_on(connection, 1)
        with pytest.raises(InvalidArgument, match="asyncpg"):
            await double.enqueue_on("dsn", 1)
        assert await aq.store.runs(RunQuery()) == []


async def test_in_a_transactional_step_it_happens_once_and_in_a_task_it_is_refused(postgres_url: str):
    app = AgentQ("u")
    tries = []

    @app.task
    async def after(ctx: Context, n: int) -> int:
        return n

    @app.step(effect="transactional", retry=Retry(max_attempts=2, initial=Retry().initial / 100))
    async def book(n: int) -> str:
        handle = await after.enqueue_on(current().connection, n)
        tries.append(handle.id)
        if len(tries) == 1:
            raise OSError("after it was enqueued")
        return handle.id

    @app.task(retry=Retry(max_attempts=1))
    async def order(ctx: Context) -> str:
        with pytest.raises(AgentQError, match="in a step"):
            await after.enqueue_on(object(), 1)
        return await book(1)

    async with fresh_schema(postgres_url) as url, app.using(store=url):
        handle = await order.enqueue()
        worker = Worker(app, WorkerSettings(concurrency=2))
        running = asyncio.create_task(worker.run())
        booked = await handle.result(timeout=20)
        worker.drain()
        await running
        assert len(tries) == 2
        assert {run.id for run in await app.store.runs(RunQuery(task="after"))} == {booked}

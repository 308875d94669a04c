"""Schemas of other versions and other programs, urls, and servers that refuse."""

# ruff: noqa: S608 - the names of schemas are made by the test

from __future__ import annotations

import asyncio
import contextlib
import sys

import pytest
from click.testing import CliRunner

from agentq import AgentQ
from agentq.cli.main import cli
from agentq.cli.standby import Standby
from agentq.errors import InvalidArgument, NotOpen, StoreError, StoreIncompatible, StoreUnavailable
from agentq.settings import WorkerSettings
from agentq.stores import open_store
from agentq.stores.postgres import PostgresStore
from agentq.stores.postgres.schema import MIGRATIONS
from tests.helpers.postgres import connected, fresh_schema
from tests.helpers.runs import envelope

NEWER = len(MIGRATIONS) + 1


@pytest.fixture
async def url(postgres_url):
    async with fresh_schema(postgres_url) as own:
        yield own


def schema(url: str) -> str:
    return url.rpartition("schema=")[2]


async def newer(postgres_url: str, url: str, *, oldest: int) -> None:
    """What a newer agentq leaves: a column more, and who still fits."""
    async with PostgresStore(url):
        pass
    async with connected(postgres_url) as connection:
        name = schema(url)
        await connection.execute(f"alter table {name}.run add column colour text not null default 'none'")
        await connection.execute(f"update {name}.meta set value = '{NEWER}' where key = 'version'")
        await connection.execute(f"update {name}.meta set value = '{oldest}' where key = 'oldest'")


async def test_a_schema_that_a_newer_version_only_added_to_still_fits(postgres_url, url):
    await newer(postgres_url, url, oldest=1)
    async with PostgresStore(url) as store:
        assert (await store.submit([envelope("run-a")]))[0].created
    async with connected(postgres_url) as connection:
        assert await connection.fetchval(f"select value from {schema(url)}.meta where key = 'version'") == str(NEWER)


async def test_a_schema_that_needs_a_newer_version_is_refused(postgres_url, url):
    await newer(postgres_url, url, oldest=NEWER)
    with pytest.raises(StoreIncompatible, match="Upgrade agentq"):
        async with PostgresStore(url):
            pass


async def test_a_running_store_goes_on_while_another_version_migrates(postgres_url, url):
    async with PostgresStore(url) as store:
        await store.submit([envelope("run-a")])
        await newer(postgres_url, url, oldest=1)
        assert (await store.submit([envelope("run-b")]))[0].created


async def test_a_schema_of_another_program_is_left_alone(postgres_url, url):
    async with connected(postgres_url) as connection:
        await connection.execute(f"create schema {schema(url)}; create table {schema(url)}.run (mine int)")
    with pytest.raises(StoreError, match="another program"):
        async with PostgresStore(url):
            pass


@pytest.mark.parametrize(
    "words", [["queues"], ["runs", "list"], ["workers", "list"], ["dead", "list"], ["dead", "show", "last"], ["top", "--once"]]
)
async def test_a_command_that_only_looks_makes_no_tables(postgres_url, url, words):
    result = await asyncio.to_thread(CliRunner().invoke, cli, [*words, "--store", url])
    assert result.exit_code == 66, result.output
    assert f"there is no agentq schema {schema(url)} at postgresql://" in result.output
    assert "`agentq enqueue` creates it" in result.output
    async with connected(postgres_url) as connection:
        assert not await connection.fetchval("select 1 from pg_namespace where nspname = $1", schema(url))


async def test_doctor_says_that_there_are_no_tables_and_makes_none(postgres_url, url):
    result = await asyncio.to_thread(CliRunner().invoke, cli, ["doctor", "--store", url])
    assert result.exit_code == 0, result.output
    assert f"there is no agentq schema {schema(url)} at postgresql://" in result.output
    assert "all is well" not in result.output
    async with connected(postgres_url) as connection:
        assert not await connection.fetchval("select 1 from pg_namespace where nspname = $1", schema(url))


async def test_two_schemas_of_one_database_know_nothing_of_each_other(postgres_url, url):
    async with fresh_schema(postgres_url) as second, PostgresStore(url) as one, PostgresStore(second) as two:
        await one.submit([envelope("run-a")])
        assert (await two.submit([envelope("run-a")]))[0].created


async def test_the_default_transaction_isolation_of_the_database_does_not_matter(postgres_url, url):
    async with connected(postgres_url) as connection:
        await connection.execute("alter database postgres set default_transaction_isolation = 'serializable'")
        try:
            async with PostgresStore(url) as store:
                assert (await store.submit([envelope("run-a")]))[0].created
        finally:
            await connection.execute("alter database postgres reset default_transaction_isolation")


async def test_a_server_that_is_not_there_is_unavailable_and_its_password_a_secret():
    store = PostgresStore("postgresql://me:s3cret@127.0.0.1:9/db?password=s3cret")
    assert store.where == "postgresql://127.0.0.1:9/db"
    with pytest.raises(StoreUnavailable, match=r"127\.0\.0\.1:9/db") as refused:
        async with store:
            pass
    assert "s3cret" not in str(refused.value)


@pytest.mark.parametrize(
    ("url", "remedy"),
    [
        ("postgresql://u:p@127.0.0.1:9/db", "nothing listens there: is the server up, and are host and port right?"),
        ("postgresql://u:p@nosuchhost.invalid/db", "the host's name is not found"),
        ("postgresql://u@/db?host=/nonexistent", "no server has its socket there"),
    ],
)
async def test_what_cannot_be_reached_is_told_with_what_to_check(url, remedy):
    with pytest.raises(StoreUnavailable) as refused:
        async with open_store(url):
            pass
    assert remedy in str(refused.value)
    assert "try again" not in str(refused.value)


@pytest.mark.parametrize(
    ("answer", "mode", "remedy"),
    [
        (b"N", "require", "no TLS is spoken there"),
        (b"", "prefer", "is that port PostgreSQL's"),
        (b"HTTP", "disable", "it hung up"),
    ],
)
async def test_a_port_of_something_else_is_told(answer, mode, remedy):
    async def talk(reader, writer):
        await reader.read(8)
        writer.write(answer)
        writer.close()

    async with await asyncio.start_server(talk, "127.0.0.1", 0) as server:
        port = server.sockets[0].getsockname()[1]
        with pytest.raises(StoreUnavailable, match=remedy):
            async with open_store(f"postgresql://u:p@127.0.0.1:{port}/db?sslmode={mode}"):
                pass


async def test_doctor_adds_nothing_to_an_error_that_says_what_to_do():
    result = await asyncio.to_thread(CliRunner().invoke, cli, ["doctor", "--store", "postgresql://u:p@127.0.0.1:9/db"])
    assert "nothing listens there" in result.output
    assert "may this user write it" not in result.output


@pytest.fixture
async def powerless(postgres_url, url):
    """The url of a user that may look at everything and write one table."""
    name = f"looker_{schema(url)}"
    async with PostgresStore(url), connected(postgres_url) as connection:
        await connection.execute(f"create role {name} login; grant usage on schema {schema(url)} to {name}")
        await connection.execute(f"grant select on all tables in schema {schema(url)} to {name}")
        await connection.execute(f"grant select, insert, update, delete on {schema(url)}.run to {name}")
        yield url.replace("//postgres@", f"//{name}@")
        await connection.execute(f"drop owned by {name}; drop role {name}")


async def test_a_worker_that_may_not_write_is_refused_with_what_to_grant(postgres_url, url, powerless):
    waiting = Standby(AgentQ("a"), WorkerSettings(), where="postgresql://db")
    async with contextlib.AsyncExitStack() as stack:
        with pytest.raises(StoreError, match=r"may not write blob, .* more; .*grant select, insert, update, delete") as refused:
            await waiting.open(stack, lambda: AgentQ("a", store=powerless))
    assert "_seq" not in str(refused.value)
    async with PostgresStore(powerless) as store:
        assert await store.lacking()
        assert (await store.census()).queues == ()
    async with PostgresStore(url) as store:
        assert await store.lacking() == ""
    result = await asyncio.to_thread(CliRunner().invoke, cli, ["doctor", "--store", powerless])
    assert result.exit_code == 1
    assert "grant select, insert, update, delete" in result.output.replace("\n", " ")


async def test_a_database_that_is_not_there_is_named_with_the_remedy(postgres_url):
    with pytest.raises(StoreError, match=r"nowhere.*create the database"):
        async with PostgresStore(postgres_url.replace("/postgres?", "/nowhere?")):
            pass


@pytest.mark.parametrize("part", ["schema=Robert'; drop", "schema=" + "x" * 41, "notify=maybe", "pool=0", "pool=x"])
def test_parameters_that_do_not_fit_are_named(part):
    with pytest.raises(InvalidArgument, match=part.partition("=")[0]):
        open_store(f"postgresql://host/db?{part}")


@pytest.mark.parametrize(("part", "meant"), [("shema=foo", "schema"), ("pol=3", "pool"), ("pasword=s3cret", "password")])
def test_a_parameter_with_a_typing_error_is_named_and_its_value_is_not(part, meant):
    with pytest.raises(InvalidArgument, match=f"{part.partition('=')[0]}=.* did you mean {meant}") as refused:
        open_store(f"postgresql://host/db?{part}")
    assert part.partition("=")[2] not in str(refused.value)


async def test_a_parameter_that_nobody_knows_is_told_with_those_that_are(url):
    with pytest.raises(StoreError, match=r"colour.*a parameter of the url is schema, notify, pool, host") as refused:
        async with PostgresStore(f"{url}&colour=red"):
            pass
    assert not isinstance(refused.value, StoreUnavailable)


async def test_parameters_of_libpq_and_settings_of_the_server_pass(url):
    words = "connect_timeout=5&keepalives=1&channel_binding=prefer&application_name=x&work_mem=8MB&options=-c%20geqo%3Doff"
    async with PostgresStore(f"{url}&{words}") as store:
        assert (await store.census()).queues == ()


def test_what_the_driver_cannot_require_is_refused():
    with pytest.raises(InvalidArgument, match="channel_binding"):
        open_store("postgresql://host/db?channel_binding=require")


async def test_a_store_is_used_inside_its_block(url):
    store = PostgresStore(url)
    with pytest.raises(NotOpen):
        await store.submit([envelope("run-a")])
    async with store:
        with pytest.raises(NotOpen, match="open already"):
            await store.__aenter__()
    with pytest.raises(NotOpen):
        await store.census()


def test_without_the_driver_the_error_says_what_to_install(monkeypatch):
    for name in [name for name in sys.modules if name.startswith("agentq.stores.postgres")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "asyncpg", None)
    with pytest.raises(InvalidArgument, match=r"pip install 'agentq\[postgres\]'"):
        open_store("postgresql://host/db")

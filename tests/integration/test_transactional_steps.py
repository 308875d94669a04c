"""Steps whose body and whose journal entry are one transaction of a real PostgreSQL."""

# ruff: noqa: S608 - the names of schemas are made by the test

from __future__ import annotations

import asyncio
import contextlib

import asyncpg
import pytest

from agentq import AgentQ, Context, Retry, current
from agentq.errors import AgentQError, DeclarationError, StepFailed
from agentq.message import EntryKind, RunQuery, RunState, Verdict, Write
from agentq.stores import open_store
from agentq.stores.postgres import shared
from agentq.testing.wait import wait_until
from agentq.worker.ends import End
from agentq.worker.transactional import LOSSES, ROLLED_BACK
from tests.helpers.lab import Gate, lab, stores_by
from tests.helpers.postgres import connected, fresh_schema
from tests.helpers.runs import entry, envelope, request

QUICK = Retry(max_attempts=3)


class Shop:
    """An app with a table of its own, and a connection that looks at it from outside."""

    def __init__(self, connection: asyncpg.Connection, name: str) -> None:
        self.connection = connection
        self.table = f"{name}.orders"

    async def orders(self) -> list[int]:
        return [row[0] for row in await self.connection.fetch(f"select id from {self.table} order by id")]

    async def insert(self, order: int) -> int:
        """What a body does; answers the server process that did it."""
        await current().connection.execute(f"insert into {self.table} values ($1)", order)
        return await current().connection.fetchval("select pg_backend_pid()")

    async def kill(self, pid: int) -> None:
        await self.connection.fetchval("select pg_terminate_backend($1)", pid)
        gone = "select count(*) = 0 from pg_stat_activity where pid = $1"
        await wait_until("the server process is gone", lambda: self.connection.fetchval(gone, pid), every_s=0.001)


@pytest.fixture
async def shop(postgres_url):
    async with fresh_schema(postgres_url) as url, connected(postgres_url) as connection:
        name = url.rpartition("schema=")[2]
        async with open_store(url):
            pass
        await connection.execute(f"create table {name}.orders (id int primary key deferrable initially deferred)")

        @contextlib.asynccontextmanager
        async def opener(clock):
            async with open_store(url, clock=clock) as store:
                yield store

        with stores_by(opener):
            yield Shop(connection, name)


async def test_what_the_body_wrote_and_its_result_are_there_together(shop):
    aq = AgentQ("shop")

    @aq.step(effect="transactional")
    async def buy(order: int) -> str:
        await shop.insert(order)
        assert await shop.orders() == []
        current().spend(tokens=3)
        return f"order {order}"

    @aq.task
    async def work(ctx: Context) -> str:
        return await buy(7)

    async with lab(aq) as here:
        run = await here.finish(work.bind())
        assert (run.state, run.result, run.tokens) == (RunState.SUCCEEDED, b'"order 7"', 3)
        assert await here.shape(run.id) == [("done", "buy")]
    assert await shop.orders() == [7]


async def test_a_body_that_spoils_its_connection_spoils_no_other_steps(shop):
    aq = AgentQ("shop")

    @aq.step(effect="transactional")
    async def buy(order: int) -> None:
        await shop.insert(order)
        if order in {1, 2}:
            await current().connection.execute("deallocate all")  # the driver does not know that its statements are gone
        if order == 2:
            raise ValueError("sold out")

    @aq.task(retry=Retry(max_attempts=1))
    async def work(ctx: Context, order: int) -> None:
        await buy(order)

    async with lab(aq) as here:
        assert (await here.finish(work.bind(0))).state is RunState.SUCCEEDED
        assert (await here.finish(work.bind(1))).state is RunState.FAILED
        assert (await here.finish(work.bind(2))).state is RunState.FAILED
        assert (await here.finish(work.bind(3))).state is RunState.SUCCEEDED
    assert await shop.orders() == [0, 3]


async def test_a_body_that_bends_the_types_of_its_connection_fails_alone(shop):
    aq = AgentQ("shop")

    @aq.step(effect="transactional")
    async def buy(order: int) -> None:
        await shop.insert(order)
        if order == 1:
            bend = {"schema": "pg_catalog", "encoder": str, "decoder": lambda _: "bent"}
            await current().connection.set_type_codec("int4", **bend)
            await current().connection.set_type_codec("int2", **bend)

    @aq.task(retry=Retry(max_attempts=1))
    async def work(ctx: Context, order: int) -> None:
        await buy(order)

    async with lab(aq) as here:
        async with asyncio.timeout(20):
            assert (await here.finish(work.bind(1))).state is RunState.FAILED
            assert (await here.finish(work.bind(2))).state is RunState.SUCCEEDED
    assert await shop.orders() == [2]


async def test_a_body_that_fails_leaves_nothing_but_its_failure(shop):
    aq = AgentQ("shop")
    tries = []

    @aq.step(effect="transactional", retry=QUICK)
    async def buy(order: int) -> None:
        tries.append(order)
        await shop.insert(order + len(tries))
        if len(tries) < 3:
            raise ValueError("sold out")

    @aq.task
    async def work(ctx: Context) -> None:
        await buy(10)

    async with lab(aq) as here:
        run = await here.finish(work.bind())
        assert run.state is RunState.SUCCEEDED
        assert await here.shape(run.id) == [("tried", "buy"), ("tried", "buy"), ("done", "buy")]
    assert await shop.orders() == [13]


async def test_what_the_server_refuses_at_the_commit_is_the_bodys_failure(shop):
    aq = AgentQ("shop")
    caught = []

    @aq.step(effect="transactional")
    async def buy(order: int) -> None:
        await shop.insert(order)

    @aq.task
    async def work(ctx: Context) -> str:
        await buy(1)
        try:
            await buy(1)
        except StepFailed as error:
            caught.append(error.type)
        await buy(2)
        return "done"

    async with lab(aq) as here:
        run = await here.finish(work.bind())
        assert run.state is RunState.SUCCEEDED
        assert await here.shape(run.id) == [("done", "buy"), ("tried", ROLLED_BACK), ("failed", "buy"), ("done", "buy")]
    assert await shop.orders() == [1, 2]
    assert "UniqueViolation" in caught[0]


async def test_a_body_that_swallows_a_failed_statement_is_told_so(shop):
    aq = AgentQ("shop")

    @aq.step(effect="transactional")
    async def buy(order: int) -> None:
        await shop.insert(order)
        with contextlib.suppress(asyncpg.PostgresError):
            await current().connection.execute("select nonsense")

    @aq.task
    async def work(ctx: Context) -> None:
        await buy(1)

    async with lab(aq) as here:
        run = await here.finish(work.bind())
    assert run.state is RunState.FAILED
    assert "transaction()" in run.failure.message
    assert await shop.orders() == []


async def test_a_connection_that_is_cut_before_the_commit_repeats_the_body(shop):
    aq = AgentQ("shop")
    pids = []

    @aq.step(effect="transactional")
    async def buy(order: int) -> None:
        pids.append(await shop.insert(order))
        if len(pids) < 3:
            await shop.kill(pids[-1])

    @aq.task
    async def work(ctx: Context) -> None:
        await buy(1)

    async with lab(aq) as here:
        run = await here.finish(work.bind())
        assert run.state is RunState.SUCCEEDED
        assert await here.names(run.id) == ["buy"]
    assert await shop.orders() == [1]
    assert len(pids) == 3


async def test_a_body_that_always_loses_its_transaction_fails(shop):
    aq = AgentQ("shop")

    @aq.step(effect="transactional")
    async def buy(order: int) -> None:
        await shop.kill(await shop.insert(order))

    @aq.task(retry=Retry(max_attempts=1))
    async def work(ctx: Context) -> None:
        await buy(1)

    async with lab(aq) as here:
        run = await here.finish(work.bind())
        assert len(await here.names(run.id, EntryKind.TRIED)) == LOSSES
    assert run.state is RunState.FAILED
    assert await shop.orders() == []


@pytest.mark.parametrize("when", ["before", "after"])
async def test_a_commit_without_an_answer_is_resolved(shop, monkeypatch, when):
    aq = AgentQ("shop")
    bodies = []
    end = shared.SharedTransaction._end

    async def cut(self, batch):
        """The connection breaks around the one commit that this test spoils."""
        if len(bodies) > 1:
            return await end(self, batch)
        pid = await self.connection.fetchval("select pg_backend_pid()")
        if when == "after":
            assert await end(self, batch) is Verdict.COMMITTED
        await shop.kill(pid)
        bodies.append("cut")
        if when == "after":
            raise shared.fault(ConnectionResetError("cut"), "here")
        return await end(self, batch)

    monkeypatch.setattr(shared.SharedTransaction, "_end", cut)

    @aq.step(effect="transactional")
    async def buy(order: int) -> None:
        bodies.append("body")
        await shop.insert(order)

    @aq.task
    async def work(ctx: Context) -> None:
        await buy(1)

    async with lab(aq) as here:
        run = await here.finish(work.bind())
        assert run.state is RunState.SUCCEEDED
        assert await here.names(run.id) == ["buy"]
    assert bodies == (["body", "cut"] if when == "after" else ["body", "cut", "body"])
    assert await shop.orders() == [1]


async def test_a_run_that_was_lost_commits_nothing(shop):
    aq = AgentQ("shop")
    first = []

    @aq.step(effect="transactional")
    async def buy(order: int) -> None:
        await shop.insert(order)
        if not first:
            first.append(order)
            here.clock.advance(31)  # another worker takes the run, and this one does not hear of it
            runs, _ = await here.claim(worker="other")
            assert [await other.work() for other in runs] == [End.SUCCEEDED]

    @aq.task
    async def work(ctx: Context) -> None:
        await buy(1)

    async with lab(aq) as here:
        run_id = await here.submit(work.bind())
        assert await here.once() is End.LOST
        assert await here.names(run_id) == ["buy"]
    assert await shop.orders() == [1]


async def test_branches_share_the_ledger(shop):
    aq = AgentQ("shop")

    @aq.step(effect="transactional")
    async def buy(order: int) -> int:
        await shop.insert(order)
        return order

    @aq.step
    async def look(order: int) -> int:
        return order

    @aq.task
    async def work(ctx: Context) -> list[int]:
        return await ctx.gather(*(buy(n) if n % 2 else look(n) for n in range(20)), limit=6)

    async with lab(aq) as here:
        run = await here.finish(work.bind())
        assert run.result == b"[0,1,2,3,4,5,6,7,8,9,10,11,12,13,14,15,16,17,18,19]"
        assert len(await here.names(run.id)) == 20
    assert await shop.orders() == list(range(1, 20, 2))


async def test_a_branch_whose_transaction_is_lost_leaves_no_gap(shop):
    aq = AgentQ("shop")
    killed = []

    @aq.step(effect="transactional", retry=QUICK)
    async def buy(order: int) -> int:
        pid = await shop.insert(order)
        if order not in killed:
            killed.append(order)
            await shop.kill(pid)
        return order

    @aq.step
    async def look(order: int) -> int:
        return order

    @aq.task
    async def work(ctx: Context) -> list[int]:
        return await ctx.gather(*(buy(n) if n % 2 else look(n) for n in range(8)))

    async with lab(aq) as here:
        run = await here.finish(work.bind())
        assert run.state is RunState.SUCCEEDED
        journal = await here.journal(run.id)
        assert [entry.seq for entry in journal] == list(range(len(journal)))
    assert await shop.orders() == [1, 3, 5, 7]


async def test_a_step_that_is_given_up_is_rolled_back_or_committed_whole(shop):
    aq = AgentQ("shop")
    entered = asyncio.Event()

    @aq.step(effect="transactional")
    async def buy(order: int) -> None:
        await shop.insert(order)
        entered.set()
        if order == 1:
            await asyncio.Event().wait()

    @aq.task
    async def work(ctx: Context) -> str:
        buying = asyncio.ensure_future(buy(1))
        await entered.wait()
        buying.cancel()
        await asyncio.wait([buying])
        await buy(2)
        return "done"

    async with lab(aq) as here:
        run = await here.finish(work.bind())
        assert run.state is RunState.SUCCEEDED
    assert await shop.orders() == [2]


async def test_steps_that_are_given_up_during_a_commit_leave_the_journal_whole(shop, monkeypatch):
    """One is committing, another waits for its turn, when their caller gives both up."""
    aq = AgentQ("shop")
    gate, end = Gate(), shared.SharedTransaction._end

    async def slowly(self, batch):
        await gate.wait()
        return await end(self, batch)

    monkeypatch.setattr(shared.SharedTransaction, "_end", slowly)

    @aq.step(effect="transactional")
    async def buy(order: int) -> None:
        await shop.insert(order)
        bought.append(order)

    @aq.task
    async def work(ctx: Context) -> str:
        buying = [asyncio.ensure_future(buy(n)) for n in range(2)]
        await gate.reached()
        await wait_until("both bodies have ended", lambda: len(bought) == 2)
        for _ in range(20):
            await asyncio.sleep(0)
        for each in buying:
            each.cancel()
        gate.open()
        await asyncio.wait(buying)
        await buy(7)
        return "done"

    bought: list[int] = []
    async with lab(aq) as here:
        run = await here.finish(work.bind())
        assert run.state is RunState.SUCCEEDED
        journal = await here.journal(run.id)
        assert [entry.seq for entry in journal] == list(range(len(journal)))
        assert sorted(entry.kind for entry in journal) == ["done", "done", "tried"]
    assert await shop.orders() in ([0, 7], [1, 7])


async def test_other_stores_say_what_to_do():
    aq = AgentQ("shop")

    @aq.step(effect="transactional")
    async def buy() -> None: ...

    @aq.task
    async def work(ctx: Context) -> None:
        await buy()

    async with lab(aq) as here:
        run = await here.finish(work.bind())
        assert run.state is RunState.FAILED
        for part in ("buy", here.store.where, "postgresql://", "idempotency_key"):
            assert part in run.failure.message

        async def fake() -> None: ...

        here.vary(fakes={"buy": fake})
        assert (await here.finish(work.bind())).state is RunState.SUCCEEDED, "a fake needs no transaction"


async def test_the_connection_is_there_in_such_a_step_alone(shop):
    aq = AgentQ("shop")

    @aq.step
    async def plain() -> str:
        with pytest.raises(AgentQError, match="transactional"):
            _ = current().connection
        return "none"

    @aq.task
    async def work(ctx: Context) -> str:
        return await plain()

    async with lab(aq) as here:
        assert (await here.finish(work.bind())).result == b'"none"'


def test_a_synchronous_function_cannot_be_such_a_step():
    aq = AgentQ("shop")
    with pytest.raises(DeclarationError, match="async def"):

        @aq.step(effect="transactional")
        def buy() -> None: ...


async def test_a_stale_claim_cannot_commit(shop, postgres_url):
    url = f"{postgres_url}&schema={shop.table.partition('.')[0]}"
    async with open_store(url) as store:
        await store.submit([envelope("run-a")])
        [claim] = (await store.claim(request(lease_s=0.0))).claims
        await store.claim(request("other"))
        async with store.transaction(claim.ref) as transaction:
            await transaction.connection.execute(f"insert into {shop.table} values (1)")
            assert await transaction.commit(Write(ref=claim.ref, entries=(entry(0),))) is Verdict.FENCED
        assert await store.journal("run-a") == []
        assert len(await store.runs(RunQuery())) == 1
    assert await shop.orders() == []

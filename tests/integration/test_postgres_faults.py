"""A connection that breaks at any statement, before it arrives or after it is done, changes nothing of what comes out."""

from __future__ import annotations

import contextlib

import asyncpg
import msgspec
import pytest

from agentq.errors import StoreUnavailable
from agentq.message import (
    Admission,
    Cancel,
    DeadLetter,
    DropLetters,
    Entry,
    EntryKind,
    Failed,
    Failure,
    Position,
    Released,
    Reply,
    Requeue,
    Retried,
    RunQuery,
    RunState,
    Send,
    Succeeded,
    Suspended,
    Verdict,
    Wait,
    WaitKind,
    Worker,
    Write,
)
from agentq.stores.postgres import PostgresStore
from agentq.testing.wait import wait_until
from tests.helpers.postgres import connected, fresh_schema
from tests.helpers.runs import entry, envelope, request

REQUEST = request()
VERBS = ("execute", "fetch", "fetchrow", "fetchval")


async def kill(killer: asyncpg.Connection, pid: int) -> None:
    """End a server process; returns when it is gone."""
    await killer.fetchval("select pg_terminate_backend($1)", pid)
    gone = "select count(*) = 0 from pg_stat_activity where pid = $1"
    await wait_until("the server process is gone", lambda: killer.fetchval(gone, pid), every_s=0.001)


class Trouble:
    """Happens at one statement, counted over all connections of the store under test; another connection is left alone."""

    def __init__(self, at: int, how: str, killer: asyncpg.Connection) -> None:
        self.at, self.how, self.killer = at, how, killer
        self.count = 0
        self.happened = False

    def wrap(self, call):
        async def wrapped(connection, *args, **more):
            if connection is self.killer or self.happened:
                return await call(connection, *args, **more)
            self.count += 1
            if self.count != self.at:
                return await call(connection, *args, **more)
            self.happened = True
            if self.how == "loses to another":
                raise asyncpg.DeadlockDetectedError("another transaction came first")
            if self.how == "is killed before":
                await self.kill(connection)
            await call(connection, *args, **more)
            await self.kill(connection)
            raise asyncpg.ConnectionDoesNotExistError("connection was closed in the middle of operation")

        return wrapped

    async def kill(self, connection: asyncpg.Connection) -> None:
        await kill(self.killer, connection.get_server_pid())


@contextlib.contextmanager
def trouble(monkeypatch: pytest.MonkeyPatch, at: int, how: str, killer: asyncpg.Connection):
    brewing = Trouble(at, how, killer)
    with monkeypatch.context() as patch:
        for verb in VERBS:
            patch.setattr(asyncpg.Connection, verb, brewing.wrap(getattr(asyncpg.Connection, verb)))
        yield brewing


async def insist(call):
    """Send the same again until it is answered, as callers do."""
    for _ in range(5):
        try:
            return await call()
        except StoreUnavailable:
            continue
    return await call()


async def commit(store: PostgresStore, claim, *entries: Entry, **parts) -> None:
    write = Write(ref=claim.ref, entries=entries, **parts)
    assert await insist(lambda: store.write(write)) is Verdict.COMMITTED


async def live(store: PostgresStore) -> None:
    """Two runs, a child, a signal, a retry: most of what a store can be asked."""

    async def claim(*names: str):
        got = await insist(lambda: store.claim(REQUEST))
        assert sorted(each.run.id for each in got.claims) == sorted(names)
        return sorted(got.claims, key=lambda each: each.run.id)

    await insist(lambda: store.submit([envelope("a"), envelope("b", args=b"[" + b"1," * 40_000 + b"1]")]))
    a, b = await claim("a", "b")
    assert (await insist(lambda: store.beat(Worker(id="w"), [a.ref, b.ref], 60))).lost == ()
    await commit(store, a, entry(0), entry(1))
    waits = (
        Wait(branch="", step="call", occurrence=0, kind=WaitKind.CHILD, ref="c"),
        Wait(branch="0", step="wait", occurrence=0, kind=WaitKind.SIGNAL, ref="go"),
    )
    await commit(store, a, entry(2), waits=waits, children=(envelope("c"),), settle=Suspended(), running_s=1.0)
    await commit(
        store, b, entry(0, value=b'"' + b"y" * 50_000 + b'"'), settle=Retried(failure=Failure(type="E", message=""), delay_s=0)
    )
    b, c = await claim("b", "c")
    await commit(store, b, settle=Succeeded(result=b"1"), running_s=1.0)
    await commit(store, c, entry(0), settle=Succeeded(result=b"2"), running_s=1.0)
    await insist(lambda: store.command(Send(run_id="a", name="go", signal_id="1", payload=b"7")))
    (a,) = await claim("a")
    assert len(a.journal) == 3
    arrived = await insist(lambda: store.inbox(["a"]))
    assert {each.payload for each in arrived} == {b"2", b"7"}
    closing = [entry(3 + n, kind=EntryKind.WAITED, step=w.step, branch=w.branch, occurrence=0) for n, w in enumerate(waits)]
    await commit(store, a, *closing, signals=tuple(each.signal for each in arrived if each.signal))
    await commit(store, a, settle=Released())
    (a,) = await claim("a")
    await commit(store, a, entry(5), settle=Succeeded(result=b"3"), running_s=1.0)
    assert await claim() == []
    await in_line(store, claim)


async def in_line(store: PostgresStore, claim) -> None:
    """Runs of one ordering key that arrive through a broker; one was cancelled before it came."""
    assert await insist(lambda: store.command(Cancel(run_id="e", early=True))) in {Reply.DONE, Reply.UNCHANGED}
    arriving = Admission(
        envelopes=tuple(envelope(run_id, ordering_key="k") for run_id in "defg"),
        letters=(DeadLetter(id="letter", queue="queue", body=b"?", reason="body: no JSON"),),
        positions=(Position(source="topic", partition=0, offset=4),),
    )
    await insist(lambda: store.admit(arriving))
    (d,) = await claim("d")
    await commit(store, d, settle=Succeeded(result=b"4"))
    (f,) = await claim("f")
    await commit(store, f, settle=Failed(failure=Failure(type="E", message="")))
    await insist(lambda: store.command(Requeue(run_id="f")))
    (f,) = await claim("f")
    await commit(store, f, settle=Succeeded(result=b"5"))
    (g,) = await claim("g")
    await commit(store, g, settle=Succeeded(result=b"6"))
    assert await claim() == []
    assert await insist(lambda: store.positions("topic")) == {0: 4}
    assert await insist(lambda: store.command(DropLetters(ids=("letter",)))) in {Reply.DONE, Reply.UNCHANGED}


async def outcome(store: PostgresStore) -> list[object]:
    """What must come out the same, without what time and chance decide."""
    runs = sorted(await store.runs(RunQuery()), key=lambda run: run.id)
    blank = {"submitted_at": 0.0, "started_at": 0.0, "finished_at": 0.0}
    return [(msgspec.structs.replace(run, **blank), await store.journal(run.id), await store.waits(run.id)) for run in runs]


@pytest.mark.parametrize("how", ["loses to another", "is killed before", "is killed after"])
async def test_trouble_at_any_statement_changes_nothing(how, postgres_url, monkeypatch):
    at = 0
    async with connected(postgres_url) as killer, fresh_schema(postgres_url) as url, PostgresStore(url) as store:
        await live(store)
        expected = await outcome(store)
        assert {run.id: run.state for run, *_ in expected if run.state is not RunState.SUCCEEDED} == {"e": RunState.CANCELLED}
        brewing = None
        while brewing is None or brewing.happened:
            at += 1
            assert await store.sweep(retention_s=-60) == len(expected)
            assert await store.sweep(retention_s=-60) == 0
            await killer.execute(f"truncate {url.rpartition('schema=')[2]}.tombstone")  # the same ids are to come again
            with trouble(monkeypatch, at, how, killer) as brewing:
                await live(store)
            assert await outcome(store) == expected, f"trouble at statement {at}"
    assert at > 40

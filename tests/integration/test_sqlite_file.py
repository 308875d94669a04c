"""The file itself: what is made, migrated, refused, and what the errors of the disk become."""

from __future__ import annotations

import asyncio
import sqlite3
from pathlib import Path

import pytest

from agentq.errors import InvalidArgument, NotFound, NotOpen, StoreError, StoreIncompatible, StoreUnavailable
from agentq.message import Fork, Released, RunQuery, RunState, Succeeded, Worker, Write
from agentq.stores import open_store
from agentq.stores.sqlite import (
    SQLiteStore,
    census,
    claims,
    connection,
    desk,
    ordering,
    producer,
    schema,
    sweep,
    tombstones,
    writes,
)
from agentq.stores.sqlite import store as store_module
from agentq.stores.sqlite.connection import fault
from agentq.testing.clock import SimulatedClock
from agentq.testing.conformance.bench import Bench, entry
from agentq.testing.wait import wait_until

BIG = b'"' + b"x" * 100_000 + b'"'


@pytest.fixture
def clock():
    return SimulatedClock()


@pytest.fixture
def path(tmp_path):
    return tmp_path / "agentq.db"


@pytest.fixture
async def bench(path, clock):
    async with SQLiteStore(path, clock=clock) as store:
        yield Bench(store, clock, store)


def rows(path: Path, query: str) -> list[tuple[object, ...]]:
    db = sqlite3.connect(path)
    try:
        return db.execute(query).fetchall()
    finally:
        db.close()


def change(path: Path, statement: str) -> None:
    db = sqlite3.connect(path)
    with db:
        db.execute(statement)
    db.close()


@pytest.mark.parametrize(
    ("url", "where"),
    [
        ("sqlite:///{}/a.db", "{}/a.db"),
        ("sqlite:{}/a.db", "{}/a.db"),
        ("{}/a.db", "{}/a.db"),
        ("sqlite:///{}/with%20space.db", "{}/with space.db"),
    ],
)
def test_urls(tmp_path, url, where):
    assert open_store(url.format(tmp_path)).where == where.format(tmp_path.resolve())


def test_a_relative_url(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert open_store("sqlite:./x.db").where == open_store("x.db").where == str(tmp_path.resolve() / "x.db")


@pytest.mark.parametrize("url", ["", "sqlite:", "sqlite://host/x.db", "redis://x", "redis://u:secret@h/db", "/"])
def test_urls_that_name_no_store(url):
    with pytest.raises(InvalidArgument, match=r"^store: ") as caught:
        open_store(url)
    assert "secret" not in str(caught.value)


async def test_a_folder_that_is_not_there_is_named_and_no_file_of_ours(tmp_path):
    with pytest.raises(StoreUnavailable) as refused:
        async with SQLiteStore(tmp_path / "no" / "a.db"):
            pass
    assert str(refused.value).endswith(f"No such file or directory: '{tmp_path / 'no'}'; make the folder first")


async def test_a_symbolic_link_names_the_same_store(bench, path, tmp_path, clock):
    (tmp_path / "link.db").symlink_to(path)
    await bench.submit("run-a")
    async with SQLiteStore(tmp_path / "link.db", clock=clock) as other:
        assert other.where == bench.store.where
        assert [run.id for run in await other.runs(RunQuery())] == ["run-a"]


async def test_runs_outlive_the_store_that_wrote_them(path, clock):
    async with SQLiteStore(path, clock=clock) as store:
        bench = Bench(store, clock, store)
        await bench.commit(await bench.begin(), entry(0), settle=Succeeded(result=b"2"))
    async with SQLiteStore(path, clock=clock) as store:
        bench = Bench(store, clock, store)
        assert (await bench.run()).result == b"2"
        assert await store.journal("run-a") == [entry(0)]


async def test_an_older_file_is_migrated_and_keeps_its_rows(path, clock, monkeypatch):
    async with SQLiteStore(path, clock=clock) as store:
        await Bench(store, clock, store).submit("run-a")
    monkeypatch.setattr(schema, "MIGRATIONS", (*schema.MIGRATIONS, "alter table run add column shard text;\n"))
    async with SQLiteStore(path, clock=clock) as store:
        assert [run.id for run in await store.runs(RunQuery())] == ["run-a"]
    assert rows(path, "select shard from run") == [(None,)]
    assert rows(path, "pragma user_version") == [(len(schema.MIGRATIONS),)]


async def test_a_file_of_the_first_version_goes_on_with_its_runs(path, clock, monkeypatch):
    with monkeypatch.context() as patched:
        patched.setattr(schema, "MIGRATIONS", schema.MIGRATIONS[:1])
        db = sqlite3.connect(path, isolation_level=None)
        schema.migrate(db, str(path))
        db.execute("insert into lane (id, app, queue, task) values (1, 'app', 'queue', 'task')")
        db.execute(
            "insert into run (id, lane, state, ready, rank, since, submitted_at, args_hash, args)"
            " values ('run-old', 1, 0, 1, 0, 0, 0, 'h', '{}')"
        )
        db.close()
    async with SQLiteStore(path, clock=clock) as store:
        bench = Bench(store, clock, store)
        await bench.submit("run-a", "run-b", ordering_key="k")
        assert [claim.run.id for claim in await bench.claim()] == ["run-old", "run-a"]
        assert (await bench.run("run-old")).ordering_key is None


async def test_a_migration_that_fails_leaves_the_file_as_it_was(path, clock, monkeypatch):
    async with SQLiteStore(path, clock=clock):
        pass
    with monkeypatch.context() as patched:
        broken = "alter table run add column shard text;\nalter table nothing add column x;\n"
        patched.setattr(schema, "MIGRATIONS", (*schema.MIGRATIONS, broken))
        with pytest.raises(StoreError):
            await SQLiteStore(path, clock=clock).__aenter__()
    async with SQLiteStore(path, clock=clock) as store:
        await Bench(store, clock, store).submit("run-a")
    assert "shard" not in str(rows(path, "select sql from sqlite_schema where name = 'run'"))


async def test_a_file_of_a_newer_agentq_is_refused(path, clock):
    async with SQLiteStore(path, clock=clock):
        pass
    change(path, "pragma user_version = 99")
    with pytest.raises(StoreIncompatible, match=r"schema 99.*upgrade agentq"):
        await SQLiteStore(path, clock=clock).__aenter__()


async def test_another_program_s_database_is_left_alone(path, clock):
    change(path, "create table theirs (x)")
    with pytest.raises(StoreError, match="another program's database"):
        await SQLiteStore(path, clock=clock).__aenter__()
    assert rows(path, "select name from sqlite_schema") == [("theirs",)]


async def test_what_is_no_database_is_refused(path, clock):
    path.write_bytes(b"hello " * 1000)
    with pytest.raises(StoreError, match=r"not a database.*another file"):
        await SQLiteStore(path, clock=clock).__aenter__()
    assert path.read_bytes() == b"hello " * 1000


async def test_a_missing_folder_is_named(tmp_path, clock):
    with pytest.raises(StoreUnavailable, match=r"nowhere/x\.db.*make the folder"):
        await SQLiteStore(tmp_path / "nowhere" / "x.db", clock=clock).__aenter__()


async def test_a_full_disk_refuses_one_write_and_the_store_goes_on(bench):
    await bench.submit("run-a")
    claim = await bench.take()
    db = bench.store._writer.desk.db
    (pages,) = db.execute("pragma page_count").fetchone()
    db.execute(f"pragma max_page_count = {pages}")
    with pytest.raises(StoreUnavailable, match=r"agentq\.db: .*full; .*free some space"):
        await bench.write(claim, entry(0, value=BIG * 10))
    db.execute("pragma max_page_count = 1000000")
    await bench.commit(claim, entry(0, value=BIG * 10))
    assert len(await bench.store.journal("run-a")) == 1


async def test_a_lock_of_another_program_is_waited_for_then_named(path, clock, monkeypatch):
    monkeypatch.setattr(connection, "BUSY_S", 0.05)
    async with SQLiteStore(path, clock=clock) as store:
        bench = Bench(store, clock, store)
        holder = sqlite3.connect(path, isolation_level=None)
        holder.execute("begin immediate")
        with pytest.raises(StoreUnavailable, match=r"locked.*another process"):
            await bench.submit("run-a")
        holder.close()
        await bench.submit("run-a")


async def test_a_process_that_stands_in_the_gate_is_named(path, clock, monkeypatch):
    async with SQLiteStore(path, clock=clock) as standing:
        monkeypatch.setattr(store_module, "BUSY_S", 0.05)
        async with SQLiteStore(path, clock=clock) as store:
            with standing._writer._gate.passing(), pytest.raises(StoreUnavailable, match="another process has been writing"):
                await Bench(store, clock, store).submit("run-a")
            await Bench(store, clock, store).submit("run-a")


@pytest.mark.parametrize(
    ("error", "kind", "said"),
    [
        (sqlite3.OperationalError("attempt to write a readonly database"), StoreUnavailable, "permissions"),
        (sqlite3.OperationalError("disk I/O error"), StoreUnavailable, "volume"),
        (sqlite3.OperationalError("something new"), StoreUnavailable, "agentq doctor"),
        (PermissionError(13, "Permission denied"), StoreUnavailable, "permissions"),
        (sqlite3.DatabaseError("database disk image is malformed"), StoreError, "restore"),
        (sqlite3.IntegrityError("UNIQUE constraint failed"), StoreError, "IntegrityError"),
        (StoreIncompatible("as it is"), StoreIncompatible, "as it is"),
    ],
)
def test_errors_name_the_file_and_the_remedy(error, kind, said):
    found = fault(error, "/data/agentq.db")
    assert type(found) is kind
    assert said in str(found)
    assert kind is StoreIncompatible or "/data/agentq.db" in str(found)


async def test_a_store_that_is_not_open_says_so(path, clock):
    store = SQLiteStore(path, clock=clock)
    with pytest.raises(NotOpen, match="async with"):
        await store.runs(RunQuery())
    async with store:
        with pytest.raises(NotOpen, match="open already"):
            await store.__aenter__()
    with pytest.raises(NotOpen):
        await store.census()


async def test_a_reboot_expires_leases_and_forgets_workers(path, clock):
    async with SQLiteStore(path, clock=clock, boot="first") as store:
        bench = Bench(store, clock, store)
        claim = await bench.begin()
        await bench.beat("w1", claim, lease_s=1e6)
    later = SimulatedClock(wall=clock.wall() + 60, steady=1.0)  # the steady clock began anew
    async with SQLiteStore(path, clock=later, boot="second") as store:
        bench = Bench(store, later, store)
        assert (await store.census()).workers == ()
        assert (await bench.take("w2")).run.takeovers == 1


async def test_the_same_boot_keeps_leases(path, clock):
    async with SQLiteStore(path, clock=clock, boot="first") as store:
        await Bench(store, clock, store).begin()
        async with SQLiteStore(path, clock=clock, boot="first") as other:
            assert await Bench(other, clock, other).claim("w2") == []


async def test_large_values_lie_in_blobs_until_nothing_refers_to_them(bench, path, clock):
    await bench.submit("run-a", args=BIG)
    claim = await bench.take()
    assert claim.run.args == BIG
    await bench.commit(claim, entry(0, value=BIG), entry(1, value=BIG[:-1] + b'y"'), settle=Succeeded(result=BIG))
    assert (await bench.run()).result == BIG
    assert rows(path, "select count(*) from blob") == [(2,)]
    await bench.store.command(Fork(run_id="run-a", new_id="run-b", upto=1))
    clock.advance(100)
    assert await bench.store.sweep(retention_s=50) == 1
    assert rows(path, "select count(*) from blob") == [(1,)]
    fork = await bench.take()
    assert fork.run.args == BIG
    assert await bench.store.blob(fork.journal[0].blob) == BIG
    await bench.succeed(fork)
    clock.advance(100)
    assert await bench.store.sweep(retention_s=50) == 1
    assert {table: rows(path, f"select count(*) from {table}")[0][0] for table in TABLES} == dict.fromkeys(TABLES, 0)  # noqa: S608
    with pytest.raises(NotFound):
        await bench.store.blob(fork.journal[0].blob)


TABLES = ("run", "journal", "wait", "signal", "snapshot", "stream", "blob", "blob_ref")


async def test_one_bad_write_of_a_batch_fails_alone(bench):
    await bench.submit(*(f"run-{n}" for n in range(20)))
    claims = await bench.claim()
    await asyncio.gather(*(bench.commit(claim, entry(0)) for claim in claims))
    answers = await asyncio.gather(
        *(bench.write(claim, entry(1, occurrence=0 if n == 7 else 1)) for n, claim in enumerate(claims)),
        return_exceptions=True,
    )
    assert isinstance(answers.pop(7), StoreError)
    assert set(answers) == {"committed"}


async def test_a_defect_in_one_verb_reaches_its_caller_only(bench):
    def defect(_):
        raise ZeroDivisionError

    async def submit():
        return await bench.submit("run-a")

    failed, answer = await asyncio.gather(bench.store._writer.do(defect), submit(), return_exceptions=True)
    assert isinstance(failed, ZeroDivisionError)
    assert answer[0].created
    with pytest.raises(ZeroDivisionError):
        await bench.store._reader.do(defect)
    assert (await bench.run()).state is RunState.QUEUED


async def test_verbs_work_from_any_event_loop(bench):
    claim = await bench.begin()
    beat = await asyncio.to_thread(lambda: asyncio.run(bench.beat("w1", claim)))
    assert beat.lost == ()


async def test_a_caller_that_gives_up_hurts_nobody(bench):
    await bench.submit("run-a")
    claim = await bench.take()
    task = asyncio.create_task(bench.write(claim, entry(0)))
    await asyncio.sleep(0)
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    await bench.commit(claim, entry(0))
    assert len(await bench.store.journal("run-a")) == 1


async def test_a_claim_that_nobody_waits_for_any_more_is_handed_back(bench):
    await bench.begin()
    await bench.submit("run-b")
    bench.clock.advance(31)
    for turns in range(12):
        task = asyncio.create_task(bench.claim("w2"))
        for _ in range(turns):
            await asyncio.sleep(0)
        task.cancel()
        answer = (await asyncio.gather(task, return_exceptions=True))[0]
        for claim in [] if isinstance(answer, asyncio.CancelledError) else answer:
            await bench.commit(claim, settle=Released())
        await wait_until("both runs are free again", lambda: _both_free(bench))
    assert {run.deaths for run in await bench.store.runs(RunQuery())} == {0}


async def _both_free(bench):
    return all(run.lease_s is None or run.lease_s < 0 for run in await bench.store.runs(RunQuery()))


async def test_closing_finishes_what_was_handed_in(path, clock):
    async with SQLiteStore(path, clock=clock) as store:
        bench = Bench(store, clock, store)
        await bench.submit("run-a")
        claim = await bench.take()
        handed = [store._writer.write(Write(ref=claim.ref, entries=(entry(seq),))) for seq in range(50)]
    assert {await each for each in handed} == {"committed"}
    async with SQLiteStore(path, clock=clock) as store:
        assert len(await store.journal("run-a")) == 50


async def test_the_last_step_of_a_burst_is_news_too(bench, path, clock):
    await bench.submit("run-a")
    claim = await bench.take()
    async with SQLiteStore(path, clock=clock) as reader:
        seen = 0
        for seq in range(20):
            await bench.commit(claim, entry(seq))
        while len(await reader.journal("run-a")) < 20:
            seen = await reader.watch("news", seen, 10)
        # Rings are spaced out while steps come fast, but the one that is due for the last step still comes.
        tick = await reader.watch("news", seen, 0)
        await bench.commit(claim, entry(20))
        assert await reader.watch("news", tick, 10) != tick


ROOMS = {
    "claims": claims, "writes": writes, "producer": producer, "sweep": sweep, "census": census, "desk": desk,
    "ordering": ordering, "tombstones": tombstones,
}  # fmt: skip
HOT = {
    "claims._DUE": 2,
    "claims._READY": 3,
    "claims._READY_BELOW": 4,
    "claims._LATE": 1,
    "claims._TAKE": 8,
    "writes._APPEND": 16,
    "writes._SUCCEED": 7,
    "desk._SUBTREE": 1,
    "ordering._LINE_UP": 1,
    "ordering._HOLDER": 3,
    "ordering._NEXT": 3,
    "tombstones._BURY": 2,
    "tombstones._FALLEN": 2,
    "sweep._OLD": 2,
    "census._HELD": 1,
    "census._LIVE": 1,
    "census._BEHIND": 1,
    "census._READY": 1,
    "census._DUE": 1,
    "census._EXPIRED": 2,
}


@pytest.mark.parametrize(("name", "values"), HOT.items())
async def test_no_hot_query_walks_a_table(bench, name, values):
    room, query = name.split(".")
    statement = getattr(ROOMS[room], query)
    plan = [row[3] for row in bench.store._writer.desk.db.execute("explain query plan " + statement, (1,) * values)]
    assert plan
    walked = [step for step in plan if step.startswith("SCAN") and not step.startswith("SCAN tree")]
    assert walked in ([], ["SCAN CONSTANT ROW"]), plan


async def test_a_file_that_is_replaced_under_a_worker_is_noticed(tmp_path):
    path = tmp_path / "a.db"
    async with open_store(f"sqlite:///{path}") as store:
        await store.beat(Worker(id="w1"), [], 30.0)
        path.rename(tmp_path / "away.db")
        with pytest.raises(StoreUnavailable, match="deleted or replaced"):
            await store.beat(Worker(id="w1"), [], 30.0)
        (tmp_path / "away.db").rename(path)
        await store.beat(Worker(id="w1"), [], 30.0)

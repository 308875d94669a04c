"""What becomes of messages between a broker and the store: admitted before acknowledged, handed back, kept as dead letters."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable
from typing import Any

import msgspec
import pytest

from agentq import AgentQ, Context, KeyConflict
from agentq.brokers.base import Outgoing
from agentq.clock import SystemClock
from agentq.errors import InvalidArgument, NotOpen, NotSent, StoreError, StoreUnavailable
from agentq.intake import Intake
from agentq.message import Admission, LetterQuery, RunQuery, RunState
from agentq.settings import WorkerSettings
from agentq.stores.memory import MemoryStore
from agentq.testing.broker import MemoryBroker
from agentq.testing.wait import wait_until
from agentq.worker import Worker
from tests.helpers.lab import told

QUICK = {"wait_s": 0.02}


class Ledger(MemoryStore):
    """A store in memory whose admissions a test can watch, refuse and delay."""

    def __init__(self) -> None:
        super().__init__()
        self.admissions: list[Admission] = []
        self.refuse: Callable[[Admission], Exception | None] = lambda _: None
        self.beats = 0

    async def beat(self, *given: Any) -> Any:
        self.beats += 1
        return await super().beat(*given)

    async def admit(self, admission: Admission) -> list:
        if error := self.refuse(admission):
            raise error
        self.admissions.append(admission)
        return await super().admit(admission)


@contextlib.asynccontextmanager
async def taking(
    broker: MemoryBroker, store: MemoryStore, *, room: int = 100, ahead: int = 100, queues: tuple[str, ...] = ("q",)
) -> AsyncIterator[Intake]:
    intake = Intake(broker, store, "app", queues, room=lambda: room, ahead=ahead, clock=SystemClock())
    running = asyncio.create_task(intake.run())
    try:
        yield intake
    finally:
        intake.stop()
        await running


def message(run_id: str, **fields: Any) -> Outgoing:
    given = {"app": "app", "task": "t", "args": {}, "id": run_id, **fields}
    return Outgoing(id=run_id, queue="q", body=msgspec.json.encode(given))


async def rows(store: MemoryStore) -> list[str]:
    return sorted(run.id for run in await store.runs(RunQuery(limit=10_000)))


async def has_rows(store: MemoryStore, count: int) -> None:
    async def there() -> bool:
        return len(await rows(store)) >= count

    await wait_until(f"{count} rows are there", there)


async def is_empty(broker: MemoryBroker) -> None:
    async def gone() -> bool:
        (backlog,) = await broker.backlog(["q"])
        return backlog.ready == 0 and backlog.taken == 0

    await wait_until("the broker has nothing left", gone)


@pytest.fixture(params=[0, 2], ids=["queue", "log"])
def broker(request: pytest.FixtureRequest) -> MemoryBroker:
    return MemoryBroker(partitions=request.param, **QUICK)


async def test_what_was_sent_becomes_rows_and_is_acknowledged(broker):
    store = Ledger()
    await broker.send([message(f"run-{n}") for n in range(50)])
    async with taking(broker, store):
        await has_rows(store, 50)
        await is_empty(broker)
    assert len(store.admissions) < 50, "each was admitted alone"


async def test_nothing_is_acknowledged_that_the_store_has_not_admitted(broker):
    store = Ledger()
    store.refuse = lambda _: StoreUnavailable("down")
    await broker.send([message("run-1")])
    refused = asyncio.Event()

    def refuse(_: Admission) -> Exception:
        refused.set()
        return StoreUnavailable("down")

    store.refuse = refuse
    async with taking(broker, store):
        await refused.wait()
        (backlog,) = await broker.backlog(["q"])
        assert backlog.ready + backlog.taken == 1
        store.refuse = lambda _: None
        await has_rows(store, 1)
        await is_empty(broker)


async def test_while_the_store_refuses_nothing_more_is_received():
    broker, store = MemoryBroker(**QUICK), Ledger()
    tried = []

    def refuse(admission: Admission) -> Exception:
        tried.append(len(admission.envelopes))
        return StoreUnavailable("down")

    store.refuse = refuse
    await broker.send([message("run-1")])
    async with taking(broker, store):
        await wait_until("the poll that was under way is over", lambda: len(tried) >= 2)
        await broker.send([message(f"run-{n}") for n in range(2, 12)])
        await wait_until("it was tried again", lambda: len(tried) >= 3)
        (backlog,) = await broker.backlog(["q"])
        assert backlog.ready == 10
        store.refuse = lambda _: None
        await has_rows(store, 11)


async def test_what_was_received_and_not_admitted_is_handed_back_when_the_intake_stops():
    broker, store = MemoryBroker(**QUICK), Ledger()
    store.refuse = lambda _: StoreUnavailable("down")
    await broker.send([message("run-1"), message("run-2")])
    async with taking(broker, store):

        async def taken() -> bool:
            (backlog,) = await broker.backlog(["q"])
            return backlog.taken == 2

        await wait_until("both were received", taken)
    (backlog,) = await broker.backlog(["q"])
    assert (backlog.ready, backlog.taken) == (2, 0)


async def test_a_message_that_comes_twice_is_one_row(broker):
    store = Ledger()
    broker.trouble.twice = 3
    await broker.send([message(f"run-{n}") for n in range(3)])
    async with taking(broker, store):
        await has_rows(store, 3)
        await is_empty(broker)
    assert await rows(store) == ["run-0", "run-1", "run-2"]
    assert await store.letters(LetterQuery()) == []


async def test_a_lost_acknowledgement_is_a_duplicate_and_no_second_run():
    broker, store = MemoryBroker(visibility_s=0.1, **QUICK), Ledger()
    broker.trouble.lost_acknowledgements = 1
    await broker.send([message("run-1")])
    async with taking(broker, store):
        await has_rows(store, 1)
        await is_empty(broker)
    assert await rows(store) == ["run-1"]


@pytest.mark.parametrize(
    ("body", "words"),
    [
        (b"", "JSON"),
        (b"\xff\xfe", ""),
        (b"[]", "object"),
        (b'{"args": {}}', "task"),
        (b'{"task": "t", "app": "other"}', "other"),
        (b'{"v": 99, "task": "t"}', "99"),
        (b'{"task": "t", "args": [1]}', "args"),
        (b'{"task": "t", "ordering_key": "k"}', "keeps no order"),
        (b'{"task": "t", "parcel": {"sha256": "' + b"0" * 64 + b'", "bytes": 3, "place": "store"}}', "gone"),
        (b'{"task": "t", "parcel": {"sha256": "' + b"0" * 64 + b'", "bytes": 3, "place": "s3://mine/x"}}', "parcel"),
        (b"[" * 100_000, ""),
    ],
)
async def test_what_cannot_become_a_run_is_kept_with_the_reason_and_acknowledged(body: bytes, words: str):
    broker, store = MemoryBroker(**QUICK), Ledger()
    await broker.send([Outgoing(id="x", queue="q", body=body), message("run-1")])
    async with taking(broker, store):
        await has_rows(store, 1)
        await is_empty(broker)
    (letter,) = await store.letters(LetterQuery())
    assert letter.body == body
    assert words in letter.reason
    assert (letter.queue, bool(letter.origin)) == ("q", True)


async def test_one_message_that_the_store_refuses_costs_its_neighbours_nothing(broker):
    store = Ledger()
    store.refuse = lambda a: StoreError("not this") if any(e.id == "run-7" for e in a.envelopes) else None
    await broker.send([message(f"run-{n}") for n in range(20)])
    async with taking(broker, store):
        await has_rows(store, 19)
        await is_empty(broker)
    (letter,) = await store.letters(LetterQuery())
    assert "not this" in letter.reason
    assert "run-7" not in await rows(store)


async def test_a_key_that_comes_with_other_arguments_is_a_dead_letter_that_shows_both():
    broker, store = MemoryBroker(**QUICK), Ledger()
    aq = AgentQ("app", store=store, broker=broker)

    @aq.task(queue="q")
    async def task(ctx: Context, n: int) -> int:
        return n

    async with aq, taking(broker, store):
        await task.options(key="k").enqueue(1)
        await has_rows(store, 1)
        await task.options(key="k").enqueue(1)
        await task.options(key="k").enqueue(2)

        async def told() -> bool:
            return bool(await store.letters(LetterQuery()))

        await wait_until("the letter is there", told)
        (letter,) = await store.letters(LetterQuery())
        assert "'k'" in letter.reason
        assert '{"n":1}' in letter.reason
        assert '{"n":2}' in letter.reason
    async with aq.using(broker=None):
        with pytest.raises(KeyConflict):
            await task.options(key="k").enqueue(2)


async def test_the_same_key_from_another_language_with_the_arguments_written_otherwise_is_the_same_run():
    broker, store = MemoryBroker(**QUICK), Ledger()
    aq = AgentQ("app", store=store, broker=broker)

    @aq.task(queue="q")
    async def task(ctx: Context, a: int, b: str = "x") -> int:
        return a

    async with aq, taking(broker, store):
        handle = await task.options(key="k").enqueue(1, b="y")
        await has_rows(store, 1)
        foreign = b'{ "task": "task", "key": "k", "args": { "b": "y", "a": 1 } }'
        await broker.send([Outgoing(id="?", queue="q", body=foreign)])
        await is_empty(broker)
    assert await rows(store) == [handle.id]
    assert await store.letters(LetterQuery()) == []


async def test_a_log_is_read_ahead_up_to_its_window_and_no_further():
    broker, store = MemoryBroker(partitions=1, **QUICK), Ledger()
    await broker.send([message(f"run-{n:03}") for n in range(300)])
    async with taking(broker, store, room=0, ahead=100):
        await has_rows(store, 100)
        (backlog,) = await broker.backlog(["q"])
        assert backlog.ready >= 150
    assert len(await rows(store)) <= 150


async def test_a_queue_is_not_read_where_there_is_no_room():
    broker, store = MemoryBroker(**QUICK), Ledger()
    await broker.send([message("run-1")])
    async with taking(broker, store, room=0) as intake:
        for _ in range(20):
            intake.stir()
            await asyncio.sleep(0)
        (backlog,) = await broker.backlog(["q"])
        assert (backlog.ready, backlog.taken) == (1, 0)


async def test_a_broker_that_is_down_is_tried_until_it_answers(broker):
    store = Ledger()
    broker.trouble.down = True
    async with taking(broker, store):
        await asyncio.sleep(0)
        broker.trouble.down = False
        await broker.send([message("run-1")])
        await has_rows(store, 1)


async def test_large_arguments_travel_apart_and_arrive_whole(broker):
    small = MemoryBroker(max_bytes=2000, partitions=2, **QUICK)
    store = Ledger()
    aq = AgentQ("app", store=store, broker=small)

    @aq.task(queue="q")
    async def task(ctx: Context, text: str) -> int:
        return len(text)

    async with aq:
        handle = await task.enqueue("x" * 50_000)
        worker = Worker(aq, WorkerSettings(concurrency=2))
        running = asyncio.create_task(worker.run())
        assert await handle.result(timeout=10) == 50_000
        worker.drain()
        await running


async def test_what_was_not_sent_is_named_and_the_rest_is_in():
    broker, store = MemoryBroker(**QUICK), Ledger()
    aq = AgentQ("app", store=store, broker=broker)

    @aq.task(queue="q")
    async def task(ctx: Context, n: int) -> int:
        return n

    broker.trouble.refuse = lambda sent: OSError("no") if b'"n":3' in sent.body else None
    async with aq:
        with pytest.raises(NotSent, match=r"1 of 5 runs \(places 3\)") as missing:
            await aq.enqueue_many([task.bind(n) for n in range(5)])
        assert list(missing.value.unsent) == [3]
        (backlog,) = await broker.backlog(["q"])
        assert backlog.ready == 4


async def test_of_many_those_after_one_that_cannot_be_written_are_named():
    broker, store = MemoryBroker(**QUICK), Ledger()
    aq = AgentQ("app", store=store, broker=broker)

    @aq.task(queue="q")
    async def task(ctx: Context, n: int) -> int:
        return n

    calls = [task.bind(n) for n in range(1200)]
    calls[700] = task.options(ordering_key="k").bind(700)
    async with aq:
        with pytest.raises(NotSent, match=r"700 of 1200 runs.*keeps no order") as missing:
            await aq.enqueue_many(calls)
        assert min(missing.value.unsent) == 500
        (backlog,) = await broker.backlog(["q"])
        assert backlog.ready == 500


async def test_an_ordering_key_is_refused_where_the_broker_keeps_no_order():
    aq = AgentQ("app", store=Ledger(), broker=MemoryBroker(**QUICK))

    @aq.task(queue="q")
    async def task(ctx: Context) -> None: ...

    async with aq:
        with pytest.raises(InvalidArgument, match="keeps no order"):
            await task.options(ordering_key="k").enqueue()


async def test_verbs_reach_a_run_that_is_still_in_the_broker():
    broker, store = MemoryBroker(**QUICK), Ledger()
    aq = AgentQ("app", store=store, broker=broker)
    ran = []

    @aq.task(queue="q")
    async def task(ctx: Context, n: int) -> int:
        ran.append(n)
        return n

    async with aq:
        handle, other = await aq.enqueue_many([task.bind(1), task.bind(2)])
        assert (await handle.status()).state is RunState.SUBMITTED
        assert await handle.cancel()
        worker = Worker(aq, WorkerSettings(concurrency=2))
        running = asyncio.create_task(worker.run())
        assert await other.result(timeout=10) == 2
        await wait_until("the cancelled one arrived", lambda: _is(handle, RunState.CANCELLED))
        worker.drain()
        await running
    assert ran == [2]


async def _is(handle: Any, state: RunState) -> bool:
    return (await handle.status()).state is state


async def test_a_child_may_not_take_a_key_that_a_run_above_it_holds():
    aq = AgentQ("app")

    @aq.task(queue="q")
    async def leaf(ctx: Context) -> None: ...

    @aq.task(queue="q")
    async def middle(ctx: Context) -> None:
        await ctx.call(leaf.options(ordering_key="k"))

    @aq.task(queue="q")
    async def top(ctx: Context) -> str:
        try:
            await ctx.call(middle)
        except Exception as error:  # noqa: BLE001 - whatever a child's failure is
            return str(error)
        return "it took the key"

    async with aq.using(store="memory:"):
        handle = await top.options(ordering_key="k").enqueue()
        worker = Worker(aq, WorkerSettings(concurrency=4))
        running = asyncio.create_task(worker.run())
        told = await handle.result(timeout=20)
        worker.drain()
        await running
    assert "ordering_key" in told
    assert handle.id in told


async def test_a_letter_about_a_key_is_kept_before_the_log_moves_on():
    broker, store = MemoryBroker(partitions=1, **QUICK), Ledger()
    body = {"app": "app", "task": "t", "key": "k"}
    sent = [Outgoing(id="x", queue="q", body=msgspec.json.encode({**body, "args": {"n": n}})) for n in (1, 2)]
    await broker.send(sent)
    lost = []

    def crash(admission: Admission) -> Exception | None:
        if admission.letters:
            lost.append(admission)
            return StoreUnavailable("the worker dies here")
        return None

    store.refuse = crash
    async with taking(broker, store):
        await wait_until("the letter was tried", lambda: lost)
    store.refuse = lambda _: None
    async with taking(broker, store):
        await is_empty(broker)
    (letter,) = await store.letters(LetterQuery())
    assert "key: 'k'" in letter.reason


async def test_large_arguments_are_admitted_in_portions_that_the_store_can_bear(monkeypatch):
    monkeypatch.setattr("agentq.intake.admitting.PORTION_BYTES", 100_000)
    broker, store = MemoryBroker(partitions=1, max_bytes=50_000, **QUICK), Ledger()
    aq = AgentQ("app", queue="q")

    @aq.task
    async def t(ctx: Context, text: str) -> None: ...

    async with aq.using(store=store, broker=broker):
        calls = [t.bind("x" * size) for size in (60_000, 30_000, 10, 30_000, 60_000, 10, 60_000)]  # half of them as parcels
        handles = await aq.enqueue_many(calls)
    async with taking(broker, store):
        await has_rows(store, len(calls))
        await is_empty(broker)
    sizes = [sum(len(envelope.args) for envelope in admission.envelopes) for admission in store.admissions]
    assert len(sizes) > 1
    assert max(sizes) < 100_000 + 61_000
    assert await rows(store) == sorted(handle.id for handle in handles)
    assert max(at.offset for admission in store.admissions for at in admission.positions) == len(calls)


async def test_what_intake_does_not_know_costs_time_and_not_the_intake(broker):
    store = Ledger()
    failures = iter([TypeError("nobody thought of this"), KeyError("nor of this")])
    store.refuse = lambda _: next(failures, None)
    await broker.send([message("run-1"), message("run-2")])
    async with taking(broker, store):
        await has_rows(store, 2)
        await is_empty(broker)


@pytest.mark.parametrize("slots", [1, 3])
async def test_a_worker_takes_no_more_than_it_can_claim(slots):
    aq = AgentQ("app", queue="q")
    open_now = asyncio.Event()

    @aq.task
    async def t(ctx: Context, n: int) -> None:
        await open_now.wait()

    broker, store = MemoryBroker(**QUICK), Ledger()
    async with aq.using(store=store, broker=broker):
        await aq.enqueue_many([t.bind(n) for n in range(20)])
        worker = Worker(aq, WorkerSettings(concurrency=slots, heartbeat_s=0.05, fence_s=20, lease_s=30, poll_s=0.02, drain_s=5))
        job = asyncio.create_task(worker.run())
        await wait_until("its slots are busy", lambda: worker.status()["busy"] == slots)
        beaten = store.beats
        await wait_until("a while has passed", lambda: store.beats > beaten + 5)
        assert len(await rows(store)) == slots
        open_now.set()
        await is_empty(broker)
        worker.drain()
        await job


@pytest.mark.parametrize("partitions", [0, 2])
async def test_what_comes_when_nothing_may_be_taken_any_more_goes_back(partitions):
    broker, store, room = MemoryBroker(partitions=partitions, wait_s=2.0), Ledger(), 5
    asked = asyncio.Event()

    def left() -> int:
        asked.set()
        return room

    intake = Intake(broker, store, "app", ("q",), room=left, ahead=100)
    running = asyncio.create_task(intake.run())
    await asked.wait()
    async with told() as events:
        room = -1
        await broker.send([message("run-1")])
        await wait_until("it is handed back", lambda: any(name == "intake.handed_back" for name, _ in events))
        assert await rows(store) == []
        room = 5
        intake.stir()
        await has_rows(store, 1)
    intake.stop()
    await running


async def test_a_log_is_not_read_ahead_into_memory_beyond_so_many_bytes(monkeypatch):
    monkeypatch.setattr("agentq.intake.intake.WAITING_BYTES", 50_000)
    broker, store = MemoryBroker(partitions=1, **QUICK), Ledger()
    monkeypatch.setattr("agentq.intake.intake._TOUCH_S", 0.02)
    received: list[int] = []
    rooms: list[int] = []
    inbox_of = broker.inbox

    @contextlib.asynccontextmanager
    async def watched(*given: Any, **more: Any) -> AsyncIterator[Any]:
        async with inbox_of(*given, **more) as inbox:
            receive = inbox.receive

            async def counted(room: int) -> Any:
                rooms.append(room)
                found = await receive(min(room, 2))  # as a log does whose messages are large
                received.extend(len(each.body) for each in found)
                return found

            monkeypatch.setattr(inbox, "receive", counted)
            yield inbox

    monkeypatch.setattr(broker, "inbox", watched)
    await broker.send([message(f"run-{n:02}", args={"text": "x" * 10_000}) for n in range(40)])
    admit, slow = store.admit, asyncio.Event()

    async def slowly(admission: Admission) -> list:
        await slow.wait()
        return await admit(admission)

    monkeypatch.setattr(store, "admit", slowly)
    async with taking(broker, store):
        try:
            await wait_until("there is no room", lambda: rooms and rooms[-1] == 0)
            assert 50_000 <= sum(received) < 80_000
        finally:
            slow.set()
        await has_rows(store, 40)


def test_a_broker_that_was_opened_on_a_loop_that_runs_no_more_is_told():
    aq = AgentQ("app", queue="q", store="memory:", broker=MemoryBroker(**QUICK))

    @aq.task
    async def t(ctx: Context) -> None: ...

    async def elsewhere() -> None:
        async with aq:
            async with asyncio.timeout(5):
                await t.enqueue()

    with asyncio.Runner() as first:
        first.run(aq.__aenter__())
        with pytest.raises(NotOpen, match="runs no more"):
            asyncio.run(elsewhere())
        first.run(aq.__aexit__(None, None, None))

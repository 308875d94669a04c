"""Clauses about waits, signals and the inbox: what comes is kept in order, and delivered once."""

# ruff: noqa: D103, S101 - a clause is named after what it proves, and asserts it with plain values

from __future__ import annotations

from agentq.message import (
    Cancel,
    Failed,
    Failure,
    Released,
    Reply,
    Retried,
    RunState,
    Send,
    Succeeded,
    Verdict,
    WaitKind,
    Write,
)
from agentq.testing.conformance.bench import Bench, child, clause, entry, signal, timer, waited


async def send(bench: Bench, *payloads: int, name: str = "go", run_id: str = "run-a") -> list[Reply]:
    """Send one signal per payload; the payload is its id too."""
    return [await bench.store.command(Send(run_id=run_id, name=name, signal_id=f"s{n}", payload=b"%d" % n)) for n in payloads]


@clause
async def a_wait_is_open_until_its_waited_entry(bench: Bench) -> None:
    claim = await bench.begin()
    first = timer(bench.clock.wall() + 5, branch="0", occurrence=2)
    second = signal(ask="Publish?", due_at=bench.clock.wall() + 9, branch="1")
    await bench.commit(claim, waits=(first, second))
    assert {wait.branch: wait for wait in await bench.store.waits("run-a")} == {"0": first, "1": second}
    await bench.commit(claim, waited(0, first))
    assert await bench.store.waits("run-a") == [second]
    await bench.commit(claim, waited(1, second))
    assert await bench.store.waits("run-a") == []


@clause
async def a_wait_opened_again_is_one_wait(bench: Bench) -> None:
    claim = await bench.begin()
    for _ in range(2):
        await bench.commit(claim, waits=(signal(),))
    assert await bench.store.waits("run-a") == [signal()]


@clause
async def a_wait_that_was_given_up_can_be_opened_again(bench: Bench) -> None:
    claim = await bench.begin()
    await bench.commit(claim, waits=(signal(),))
    await bench.commit(claim, waited(0, signal()))
    await bench.commit(claim, waits=(signal(attempt=2),))
    assert await bench.store.waits("run-a") == [signal(attempt=2)]
    await bench.commit(claim, waits=(signal(),))
    await send(bench, 1)
    assert len(await bench.store.inbox(["run-a"])) == 1
    await bench.commit(claim, waited(1, signal(attempt=2)))
    assert await bench.store.waits("run-a") == []


@clause
async def an_older_write_again_opens_no_wait_again(bench: Bench) -> None:
    claim = await bench.begin()
    write = Write(ref=claim.ref, waits=(signal(attempt=2),))
    await bench.store.write(write)
    await bench.commit(claim, waited(0, signal(attempt=2)))
    assert await bench.store.write(write) is Verdict.COMMITTED
    await bench.commit(claim, waits=(signal(),))
    assert await bench.store.waits("run-a") == []


@clause
async def open_waits_survive_release_retry_and_takeover(bench: Bench) -> None:
    claim = await bench.begin()
    await bench.commit(claim, waits=(signal(),), settle=Released())
    claim = await bench.take()
    assert claim.waits == (signal(),)
    await bench.commit(claim, settle=Retried(failure=Failure(type="E", message="m"), delay_s=0))
    assert (await bench.take()).waits == (signal(),)
    assert (await bench.taken_over()).waits == (signal(),)


@clause
async def a_final_run_has_no_waits(bench: Bench) -> None:
    outcomes = (Succeeded(result=b"1"), Failed(failure=Failure(type="E", message="m")))
    for n, settle in enumerate(outcomes):
        claim = await bench.begin(f"run-{n}")
        await bench.commit(claim, waits=(signal(), timer(9e9)), settle=settle)
        assert await bench.store.waits(f"run-{n}") == []
    await bench.suspend(await bench.begin(), signal())
    await bench.store.command(Cancel(run_id="run-a"))
    assert await bench.store.waits("run-a") == []


@clause
async def signals_are_a_queue_per_name(bench: Bench) -> None:
    claim = await bench.begin()
    await send(bench, 3, 1, 2)
    await send(bench, 9, name="other")
    await bench.commit(claim, waits=(signal(),))
    inbox = await bench.store.inbox(["run-a"])
    assert [(a.run_id, a.kind, a.ref, a.payload) for a in inbox] == [
        ("run-a", WaitKind.SIGNAL, "go", b"%d" % n) for n in (3, 1, 2)
    ]
    assert [a.signal for a in inbox] == sorted(a.signal for a in inbox)
    assert all(a.signal > 0 for a in inbox)


@clause
async def only_signals_that_an_open_wait_names_are_in_the_inbox(bench: Bench) -> None:
    claim = await bench.begin()
    await send(bench, 1)
    assert await bench.store.inbox(["run-a", "nowhere"]) == []
    await bench.commit(claim, waits=(signal("other"),))
    assert await bench.store.inbox(["run-a"]) == []


@clause
async def a_consumed_signal_never_comes_again(bench: Bench) -> None:
    claim = await bench.begin()
    await send(bench, 1, 2)
    await bench.commit(claim, waits=(signal(),))
    first, _ = await bench.store.inbox(["run-a"])
    write = Write(ref=claim.ref, entries=(waited(0, signal()),), signals=(first.signal,))
    assert await bench.store.write(write) is Verdict.COMMITTED
    assert await bench.store.write(write) is Verdict.COMMITTED
    await bench.commit(claim, waits=(signal(occurrence=1),))
    assert [a.payload for a in await bench.store.inbox(["run-a"])] == [b"2"]


@clause
async def a_refused_write_consumes_no_signal(bench: Bench) -> None:
    zombie = await bench.begin()
    await send(bench, 1)
    await bench.commit(zombie, waits=(signal(),))
    [arrival] = await bench.store.inbox(["run-a"])
    await bench.taken_over()
    await bench.write(zombie, waited(0, signal()), signals=(arrival.signal,))
    assert await bench.store.inbox(["run-a"]) == [arrival]


@clause
async def the_same_signal_id_is_one_signal(bench: Bench) -> None:
    claim = await bench.begin()
    assert await send(bench, 1, 1) == [Reply.DONE, Reply.UNCHANGED]
    await bench.commit(claim, waits=(signal(),))
    [arrival] = await bench.store.inbox(["run-a"])
    await bench.commit(claim, waited(0, signal()), waits=(signal(occurrence=1),), signals=(arrival.signal,))
    assert await send(bench, 1) == [Reply.UNCHANGED]
    assert await bench.store.inbox(["run-a"]) == []


@clause
async def signals_of_one_run_are_not_another_run_s(bench: Bench) -> None:
    await bench.submit("run-a", "run-b")
    for claim in await bench.claim():
        await bench.commit(claim, waits=(signal(),))
    assert await send(bench, 1) == await send(bench, 1, run_id="run-b") == [Reply.DONE]
    assert {a.run_id for a in await bench.store.inbox(["run-a", "run-b"])} == {"run-a", "run-b"}


@clause
async def a_signal_to_a_final_run_is_refused(bench: Bench) -> None:
    await bench.succeed(await bench.begin())
    assert await send(bench, 1) == [Reply.REFUSED]


@clause
async def two_branches_that_wait_for_one_name_see_each_signal_once(bench: Bench) -> None:
    claim = await bench.begin()
    await bench.commit(claim, waits=(signal(branch="0"), signal(branch="1")))
    await send(bench, 1, 2)
    assert [a.payload for a in await bench.store.inbox(["run-a"])] == [b"1", b"2"]


@clause
async def children_go_in_with_the_parents_write(bench: Bench) -> None:
    parent = await bench.begin()
    await bench.submit("run-old", args=b"old")
    children = (bench.envelope("run-b", parent_id="run-a"), bench.envelope("run-old", parent_id="run-a"))
    await bench.commit(parent, entry(0), children=children, waits=(child("run-b"),))
    run = await bench.run("run-b")
    assert (run.state, run.parent_id) == (RunState.QUEUED, "run-a")
    old = await bench.run("run-old")
    assert (old.args, old.parent_id) == (b"old", None)
    assert {claim.run.id for claim in await bench.claim()} == {"run-b", "run-old"}


@clause
async def children_know_their_parent_and_their_root(bench: Bench) -> None:
    root = await bench.begin("root")
    await bench.commit(root, children=(bench.envelope("kid"),))
    kid = await bench.take()
    await bench.commit(kid, children=(bench.envelope("grandkid"), bench.envelope("odd", parent_id="root", root_id="else")))
    found = {name: await bench.run(name) for name in ("kid", "grandkid", "odd")}
    assert {name: (run.parent_id, run.root_id) for name, run in found.items()} == {
        "kid": ("root", "root"),
        "grandkid": ("kid", "root"),
        "odd": ("root", "else"),
    }
    assert [claim.run.id for claim in await bench.claim(root="root")] == ["grandkid"]


@clause
async def the_outcome_of_a_child_is_in_the_inbox(bench: Bench) -> None:
    parent = await bench.begin()
    children = [bench.envelope(name, parent_id="run-a") for name in ("run-b", "run-c", "run-d", "run-e")]
    await bench.commit(parent, children=tuple(children), waits=tuple(child(c.id) for c in children))
    assert await bench.store.inbox(["run-a"]) == []
    failure = Failure(type="E", message="m")
    for claim in await bench.claim(limit=4):
        if claim.run.id == "run-b":
            await bench.commit(claim, entry(0, tokens=5, cost_nanos=6), settle=Succeeded(result=b'"b"'))
        elif claim.run.id == "run-c":
            await bench.commit(claim, settle=Failed(failure=failure))
        elif claim.run.id == "run-d":
            await bench.stop(claim)
    inbox = {arrival.ref: arrival for arrival in await bench.store.inbox(["run-a"])}
    assert set(inbox) == {"run-b", "run-c", "run-d"}
    assert all(a.run_id == "run-a" and a.kind is WaitKind.CHILD for a in inbox.values())
    done = inbox["run-b"]
    assert (done.state, done.payload, done.tokens, done.cost_nanos) == (RunState.SUCCEEDED, b'"b"', 5, 6)
    assert (inbox["run-c"].state, inbox["run-c"].failure) == (RunState.FAILED, failure)
    assert inbox["run-d"].state is RunState.CANCELLED


@clause
async def a_heartbeat_tells_of_arrivals_for_running_runs(bench: Bench) -> None:
    parent = await bench.begin()
    await bench.commit(parent, children=(bench.envelope("run-b", parent_id="run-a"),), waits=(child("run-b"), signal()))
    assert (await bench.beat("w1", parent)).arrivals == ()
    await bench.succeed(await bench.take())
    assert (await bench.beat("w1", parent)).arrivals == ("run-a",)
    await bench.commit(parent, waited(0, child("run-b")))
    assert (await bench.beat("w1", parent)).arrivals == ()
    await send(bench, 1, name="other")
    assert (await bench.beat("w1", parent)).arrivals == ()
    await send(bench, 1)
    assert (await bench.beat("w1", parent)).arrivals == ("run-a",)

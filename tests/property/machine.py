"""Random lives on one or more stores: after every step the rules of ownership are checked against what readers see."""

from __future__ import annotations

from typing import Any

import msgspec
from hypothesis import strategies as st
from hypothesis.stateful import initialize, invariant, precondition, rule

from agentq.message import (
    Admission,
    Cancel,
    Cancelled,
    Chunk,
    Crashed,
    DeadLetter,
    DropLetters,
    Failed,
    Failure,
    Fork,
    LetterQuery,
    Pause,
    Position,
    Released,
    Reply,
    Requeue,
    Resume,
    Retried,
    RunState,
    Send,
    Settlement,
    SetWorker,
    Succeeded,
    Suspended,
    Verdict,
    WaitKind,
    WorkerState,
)
from agentq.stores.base import TOMBSTONE_S
from agentq.testing.conformance.bench import LEASE_S, child, waited
from tests.property.lockstep import RUNS, Held, Known, Lockstep, plain_beat, plain_census, plain_claims, plain_inbox

WORKERS = ("w1", "w2", "w3")
SIGNALS = ("go", "stop")
DAY_S = 86_400.0
BEGUN = {RunState.RUNNING, RunState.WAITING}

runs = st.sampled_from(RUNS)
workers = st.sampled_from(WORKERS)
picks = st.integers(0, 11)


class StoreMachine(Lockstep):
    """Subclasses name the stores."""

    @initialize()
    def begin(self) -> None:
        for run_id in RUNS[:2]:
            self.submit(run_id, 0, None, None, None)

    # What is done to the stores

    @rule(
        run_id=runs,
        priority=st.integers(0, 1),
        delay=st.sampled_from((None, 20.0)),
        deadline=st.sampled_from((None, None, 100.0)),
        ordering_key=st.sampled_from((None, "k")),
    )
    def submit(self, run_id: str, priority: int, delay: float | None, deadline: float | None, ordering_key: str | None) -> None:
        now = self.clock.wall()
        fields = {
            "priority": priority,
            "due_at": None if delay is None else now + delay,
            "deadline": None if deadline is None else now + deadline,
            "ordering_key": ordering_key,
        }
        [answer] = self.each(lambda bench, _: bench.submit(run_id, **fields))[0]
        assert answer.created == (run_id not in self.known and run_id not in self.tombstones)
        if answer.created:
            self.known[run_id] = Known()
        self.clock.advance(0.001)

    @rule(worker=workers, limit=st.integers(1, 3), suspects=st.sampled_from((True, True, False)))
    def claim(self, worker: str, limit: int, suspects: bool) -> None:  # noqa: FBT001
        self.take(worker, limit, suspects=suspects)

    @rule(worker=workers, late=st.sampled_from((6.0, 31.0)))
    def claim_later(self, worker: str, late: float) -> None:
        self.clock.advance(late)
        self.take(worker, 2)

    def take(self, worker: str, limit: int, *, suspects: bool = True) -> list[Held]:
        answers = self.each(lambda bench, _: bench.claim(worker, limit=limit, suspects=suspects), plain_claims)
        held = [Held(twins) for twins in zip(*answers, strict=True)]
        assert len(held) <= limit
        for new in held:
            known = self.known[new.run_id]
            assert new.twins[0].ref.epoch == known.epoch + 1, "an epoch is the last one plus one"
            known.epoch += 1
            assert list(new.twins[0].journal) == known.journal
            for old in self.held:
                old.live = old.live and old.run_id != new.run_id
        self.held += held
        self.settled_by_the_store()
        return held

    def settled_by_the_store(self) -> None:
        """A cancel, or a claim that found a flag or a deadline, may have ended runs that their owners believe in."""
        for held in self.held:
            held.live = held.live and self.state(held.run_id) is RunState.RUNNING

    @precondition(lambda self: self.held)
    @rule(pick=picks, entries=st.integers(0, 2), opens=st.integers(0, 3), chunk=st.booleans())
    def write(self, pick: int, entries: int, opens: int, chunk: bool) -> None:  # noqa: FBT001
        held = self.pick(pick)
        claim = held.twins[0]
        added = self.entries(held, entries)
        self.send(
            held,
            entries=added,
            waits=self.some_waits(held)[:opens],
            chunks=(Chunk(topic="t", payload=b"1", epoch=claim.ref.epoch, n=len(added), at=0.0),) if chunk else (),
        )

    @precondition(lambda self: self.held)
    @rule(pick=st.integers(0, 2), opens=st.integers(1, 3))
    def suspend(self, pick: int, opens: int) -> None:
        held = self.pick(pick)
        self.send(held, waits=self.some_waits(held)[:opens], settle=Suspended())

    @precondition(lambda self: self.held)
    @rule(pick=picks)
    def bear(self, pick: int) -> None:
        held = self.pick(pick)
        kid = f"kid of {held.run_id}"
        if kid.count("kid") > 2:
            return
        verdict = self.send(
            held,
            entries=self.entries(held, 1),
            children=(self.benches[0].envelope(kid, parent_id=held.run_id, ordering_key=f"{kid.count('kid')} below"),),
            waits=(child(kid),),
        )
        if verdict is Verdict.COMMITTED:
            self.known.setdefault(kid, Known())

    @precondition(lambda self: self.held)
    @rule(pick=picks)
    def hear(self, pick: int) -> None:
        """Consume what the inbox holds first for a claim, as a worker would."""
        held = self.pick(pick)
        boxes = self.each(lambda bench, _: bench.store.inbox([held.run_id]), plain_inbox)
        open_ = {(w.kind, w.ref): w for w in self.waits(held.run_id)}
        for arrivals in zip(*boxes, strict=True):
            wait = open_[arrivals[0].kind, arrivals[0].ref]
            entry = msgspec.structs.replace(waited(self.seq(held), wait), epoch=held.twins[0].ref.epoch)
            self.send(held, entries=(entry,), signals=tuple(a.signal for a in arrivals))
            return

    @precondition(lambda self: self.held)
    @rule(pick=picks, kind=st.sampled_from(("succeed", "fail", "retry", "suspend", "release", "crash", "cancelled")),
          entries=st.integers(0, 1), opens=st.integers(1, 3))  # fmt: skip
    def settle(self, pick: int, kind: str, entries: int, opens: int) -> None:
        held = self.pick(pick)
        failure = Failure(type="E", message="m")
        settlement: Settlement = {
            "succeed": Succeeded(result=b"1"),
            "fail": Failed(failure=failure),
            "retry": Retried(failure=failure, delay_s=5),
            "suspend": Suspended(),
            "release": Released(),
            "crash": Crashed(failure=failure, delay_s=5),
            "cancelled": Cancelled(),
        }[kind]
        waits = self.some_waits(held)[:opens] if kind == "suspend" else ()
        self.send(held, entries=self.entries(held, entries), waits=waits, settle=settlement, running_s=1.5)

    @precondition(lambda self: self.held)
    @rule(pick=picks)
    def resend(self, pick: int) -> None:
        """The same write under the same claim, straight after: it is harmless, whatever it was."""
        held = self.held[pick % len(self.held)]
        if held.last is None or held.twins[0].ref.epoch != self.known[held.run_id].epoch:
            return
        before = self.look(held.run_id)
        last = held.last
        over = not held.live and before[0].state is RunState.CANCELLED  # by then or since: both answers are true
        verdicts = self.each(
            lambda bench, n: bench.store.write(self.as_seen_by(held, last, n)), lambda verdict: None if over else verdict
        )
        if held.live and last.settle is None and not last.children:
            assert verdicts[0] is Verdict.COMMITTED
        assert self.look(held.run_id) == before

    @precondition(lambda self: self.held)
    @rule(worker=workers, listed=st.integers(0, 4095))
    def beat(self, worker: str, listed: int) -> None:
        chosen = [held for n, held in enumerate(self.held[-12:]) if listed >> n & 1]
        answers = self.each(
            lambda bench, n: bench.store.beat(bench.worker(worker), [held.twins[n].ref for held in chosen], LEASE_S),
            plain_beat,
        )
        assert [ref.run_id for ref in answers[0].lost] == [held.run_id for held in chosen if not held.live]

    @rule(worker=workers, state=st.sampled_from((*WorkerState, None)))
    def operate(self, worker: str, state: WorkerState | None) -> None:
        if state is None:
            self.each(lambda bench, _: bench.store.leave(worker))
        else:
            self.command(SetWorker(worker_id=worker, state=state))

    @rule(run_id=runs, kid=st.booleans(), order=st.sampled_from((Cancel, Pause, Resume, Requeue)))
    def steer(self, run_id: str, kid: bool, order: type[Cancel | Pause | Resume | Requeue]) -> None:  # noqa: FBT001
        run_id = f"kid of {run_id}" if kid and f"kid of {run_id}" in self.known else run_id
        if run_id not in self.known:
            return
        before = self.state(run_id)
        reply = self.command(order(run_id=run_id))
        if order is Requeue:
            assert (reply is Reply.DONE) == (before in {RunState.FAILED, RunState.CANCELLED})
        if order is Cancel:
            assert (reply is Reply.REFUSED) == (before in {RunState.FAILED, RunState.SUCCEEDED})
        self.settled_by_the_store()

    @rule(run_id=runs, name=st.sampled_from(SIGNALS), repeated=st.booleans())
    def signal(self, run_id: str, name: str, repeated: bool) -> None:  # noqa: FBT001
        if run_id not in self.known:
            return
        known = self.known[run_id]
        known.signals += not repeated
        self.command(Send(run_id=run_id, name=name, signal_id=str(known.signals), payload=b"1"))

    @rule(run_id=runs, upto=st.integers(0, 3))
    def fork(self, run_id: str, upto: int) -> None:
        known = self.known.get(run_id)
        if known is None or f"fork of {run_id}" in self.known or upto > len(known.journal):
            return
        assert self.command(Fork(run_id=run_id, new_id=f"fork of {run_id}", upto=upto)) is Reply.DONE
        self.known[f"fork of {run_id}"] = Known(journal=known.journal[:upto])

    @rule(run_id=runs, order=st.sampled_from((Cancel, Pause, Resume, Send)))
    def steer_early(self, run_id: str, order: type[Cancel | Pause | Resume | Send]) -> None:
        if run_id in self.known:
            return
        sent: dict[str, Any] = {"name": "go", "signal_id": "early", "payload": b"1"} if order is Send else {}
        reply = self.command(order(run_id=run_id, early=True, **sent))
        assert reply is (Reply.NOT_FOUND if run_id in self.tombstones else Reply.DONE)

    @rule(letters=st.lists(st.sampled_from(("letter-a", "letter-b", "other")), max_size=2), offset=st.integers(0, 3))
    def admit(self, letters: list[str], offset: int) -> None:
        admission = Admission(
            letters=tuple(DeadLetter(id=letter, queue="queue", body=b"\xff", reason=str(offset)) for letter in letters),
            positions=(Position(source="log", partition=0, offset=offset),),
        )
        self.each(lambda bench, _: bench.store.admit(admission))
        self.each(lambda bench, _: bench.store.letters(LetterQuery()))
        self.each(lambda bench, _: bench.store.letters(LetterQuery(ids=("lett",), limit=1)))
        assert self.each(lambda bench, _: bench.store.positions("log"))[0][0] >= offset

    @rule(letter=st.sampled_from(("letter-a", "letter-b", "other")))
    def drop(self, letter: str) -> None:
        self.command(DropLetters(ids=(letter,)))

    @rule(retention_s=st.sampled_from((10.0, 100.0, 40 * DAY_S)))
    def sweep(self, retention_s: float) -> None:
        before = self.all_runs()
        gone = self.each(lambda bench, _: bench.store.sweep(retention_s=retention_s))[0]
        there = {run.id for run in self.all_runs()}
        assert len(before) - gone == len(there)
        swept = {run.id: run.finished_at for run in before if run.id not in there and run.parent_id is None}
        fallen = self.clock.wall() - TOMBSTONE_S
        self.tombstones = {id_: at for id_, at in (self.tombstones | swept).items() if at is not None and at > fallen}
        self.known = {run_id: known for run_id, known in self.known.items() if run_id in there}
        self.held = [held for held in self.held if held.run_id in there]

    @rule(seconds=st.sampled_from((1.0, 16.0, 31.0, 31.0, 200.0)))
    def time_passes(self, seconds: float) -> None:
        self.clock.advance(seconds)

    @rule(back=st.booleans())
    def wall_clock_is_stepped(self, back: bool) -> None:  # noqa: FBT001
        # Back in time a run that was due may be due still, or again later: there the stores are free to differ.
        seconds = -DAY_S if back and len(self.benches) == 1 else DAY_S
        before = [run.lease_s for run in self.all_runs()]
        self.clock.step_wall(seconds)
        assert [run.lease_s for run in self.all_runs()] == before

    # What must hold

    @invariant()
    def rules_hold(self) -> None:
        begun = [run.ordering_key for run in self.all_runs() if run.ordering_key and run.state in BEGUN]
        assert len(begun) == len(set(begun)), "one run of a key at a time"
        for run in self.all_runs():
            known = self.known[run.id]
            journal = self.journal(run.id)
            waits = self.waits(run.id)
            assert run.epoch == known.epoch
            assert [entry.seq for entry in journal] == list(range(len(journal))), "gap-free"
            assert journal[: len(known.journal)] == known.journal, "append-only"
            assert len({(*entry.identity, entry.kind, entry.attempt) for entry in journal}) == len(journal), "never twice"
            assert run.entries == len(journal)
            known.journal = journal
            if run.state is RunState.RUNNING:
                assert run.owner is not None, "running has a lease"
                assert run.lease_s is not None
            else:
                assert (run.owner, run.lease_s) == (None, None), f"{run.state} has no lease"
            if run.state is RunState.WAITING:
                assert waits, "waiting has something that can wake it"
                assert not any(wait.kind is WaitKind.CHILD and self.state(wait.ref).final for wait in waits), "lost wake-up"
            if run.state.final:
                assert waits == [], "final waits for nothing"
        if not any(run.deadline and run.deadline <= self.clock.wall() for run in self.all_runs()):
            self.each(lambda bench, _: bench.store.census(), plain_census)

    def everything_ends(self) -> None:
        """A run that is not final is reached again: with every hand off, one patient worker brings all runs to an end."""
        for name in WORKERS:
            self.each(lambda bench, _, name=name: bench.store.leave(name))
        for run in self.all_runs():
            if run.paused and not run.state.final:
                self.command(Resume(run_id=run.id))
        self.clock.advance(1000 * DAY_S)
        for _ in range(40):
            self.somebody_answers()
            runnable = sum(queue.runnable for queue in self.runner.run(self.benches[0].store.census()).queues)
            held = self.take("patient", 99)
            assert len(held) <= runnable, "the scaler counts every run that a claim returns"
            for one in held:
                self.send(one, settle=Succeeded(result=b"1"))
            if all(run.state.final for run in self.all_runs()):
                return
            self.clock.advance(1)
        raise AssertionError(f"not final: {[run for run in self.all_runs() if not run.state.final]}")

    def somebody_answers(self) -> None:
        """Send every signal that a waiting run waits for."""
        for run in self.all_runs():
            for wait in self.waits(run.id) if run.state is RunState.WAITING else ():
                if wait.kind is WaitKind.SIGNAL:
                    self.command(Send(run_id=run.id, name=wait.ref, signal_id="last", payload=b"1"))

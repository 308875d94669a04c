"""Random lives of runs that share ordering keys: the stores answer alike, and serve one of a key at a time, in order."""

from __future__ import annotations

from itertools import groupby

from hypothesis import strategies as st
from hypothesis.stateful import invariant, precondition, rule

from agentq.message import (
    Cancel,
    Cancelled,
    Failed,
    Failure,
    Pause,
    Released,
    Requeue,
    Resume,
    Retried,
    Run,
    RunState,
    Settlement,
    Succeeded,
    Suspended,
)
from agentq.testing.conformance.bench import LEASE_S
from tests.property.lockstep import Held, Known, Lockstep, plain_census, plain_claims

NAMES = tuple(f"run-{n}" for n in range(7))
FAILURE = Failure(type="E", message="m")
SETTLEMENTS: dict[str, Settlement] = {
    "succeed": Succeeded(result=b"1"),
    "fail": Failed(failure=FAILURE),
    "cancelled": Cancelled(),
    "retry": Retried(failure=FAILURE, delay_s=5),
    "release": Released(),
    "suspend": Suspended(),
}

names = st.sampled_from(NAMES)


class LineMachine(Lockstep):
    """Subclasses name the stores."""

    @rule(
        run_ids=st.lists(names, min_size=1, max_size=4),
        key=st.sampled_from(("k", "k", "l", None)),
        task=st.sampled_from(("task", "other")),
        delay=st.sampled_from((None, None, 20.0)),
        deadline=st.sampled_from((None, None, 50.0)),
    )
    def submit(self, run_ids: list[str], key: str | None, task: str, delay: float | None, deadline: float | None) -> None:
        now = self.clock.wall()
        fields = {
            "ordering_key": key,
            "task": task,
            "due_at": None if delay is None else now + delay,
            "deadline": None if deadline is None else now + deadline,
        }
        self.each(lambda bench, _: bench.submit(*run_ids, **fields))
        for run_id in run_ids:
            self.known.setdefault(run_id, Known())

    @rule(limit=st.integers(1, 3))
    def claim(self, limit: int) -> None:
        answers = self.each(lambda bench, _: bench.claim(limit=limit, tasks=("task", "other")), plain_claims)
        self.held += [Held(twins) for twins in zip(*answers, strict=True)]
        for held in self.held[:-limit]:
            held.live = held.live and self.look(held.run_id)[0].epoch == held.twins[0].ref.epoch
        self.let_go()

    @precondition(lambda self: any(held.live for held in self.held))
    @rule(pick=st.integers(0, 5), kind=st.sampled_from(("succeed", "succeed", *SETTLEMENTS)))
    def settle(self, pick: int, kind: str) -> None:
        live = [held for held in self.held if held.live]
        held = live[pick % len(live)]
        waits = self.some_waits(held)[:2] if kind == "suspend" else ()
        self.send(held, waits=waits, settle=SETTLEMENTS[kind])

    @rule(run_id=names, order=st.sampled_from((Cancel, Pause, Resume, Resume, Requeue, Requeue)))
    def steer(self, run_id: str, order: type[Cancel | Pause | Resume | Requeue]) -> None:
        self.command(order(run_id=run_id))
        self.let_go()

    @rule(seconds=st.sampled_from((6.0, 21.0, LEASE_S + 1)))
    def time_passes(self, seconds: float) -> None:
        self.clock.advance(seconds)

    def let_go(self) -> None:
        for held in self.held:
            held.live = held.live and self.state(held.run_id) is RunState.RUNNING

    @invariant()
    def one_of_a_key_at_a_time(self) -> None:
        self.each(lambda bench, _: bench.store.census(), plain_census)
        for _, line in self.lines():
            begun = [run for run in line if run.state in {RunState.RUNNING, RunState.WAITING}]
            assert len(begun) <= 1, "one run of a key at a time"

    def lines(self) -> list[tuple[str, list[Run]]]:
        """Unfinished runs by key, the oldest first."""
        keyed = [run for run in reversed(self.all_runs()) if run.ordering_key and not run.state.final]
        keyed.sort(key=lambda run: run.ordering_key or "")
        return [(key, list(line)) for key, line in groupby(keyed, lambda run: run.ordering_key or "")]

    def everything_ends(self) -> None:
        """With every hand off, each line is served to its end: first who was begun, then by age."""
        for run in self.all_runs():
            self.command(Resume(run_id=run.id))
        self.clock.advance(10 * LEASE_S)
        for _ in range(2 * len(NAMES)):
            lines = dict(self.lines())
            answers = self.each(lambda bench, _: bench.claim("patient", tasks=("task", "other")), plain_claims)
            for twins in zip(*answers, strict=True):
                run = twins[0].run
                line = [other for other in lines.get(run.ordering_key or "", [run]) if not self.state(other.id).final]
                begun = [other.id for other in line if other.epoch]
                assert run.id in begun if begun else run.id == line[0].id, "by age"
                self.send(Held(twins), settle=Succeeded(result=b"1"))
        assert all(run.state.final for run in self.all_runs())

"""Runs that a run starts: children that it waits for, and independent ones that it only submits."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import msgspec

from agentq import producer
from agentq.codec import digest
from agentq.context import Outcome
from agentq.errors import ChildFailed, InvalidArgument
from agentq.journal import Mismatch
from agentq.message import Arrival, Entry, EntryKind, Envelope, Failure, Run, RunQuery, RunState, Wait, WaitKind, child_run_id
from agentq.telemetry import emit
from agentq.worker.branches import Work, side_by_side
from agentq.worker.host import Host
from agentq.worker.mismatch import other_arguments
from agentq.worker.waits import Waits

if TYPE_CHECKING:
    from agentq.scope import Scope
    from agentq.task import Bound

CALL = "ctx.call"
ENQUEUE = "ctx.enqueue"
_NOT_NEEDED = Failure(type="Cancelled", message="not needed any more")


class _Ended(msgspec.Struct, frozen=True, omit_defaults=True):
    """Value of the ``waited`` entry of a child."""

    run_id: str
    result: msgspec.Raw = msgspec.Raw(b"null")
    failure: Failure | None = None


class Children:
    """The children of one execution."""

    def __init__(self, run: Host, waits: Waits) -> None:
        """Belong to ``run``."""
        self._run = run
        self._waits = waits

    async def call_many(
        self,
        scope: Scope,
        calls: Sequence[Bound[Any]],
        *,
        limit: int | None,
        tolerate: int,
        first: int | None,
        foreign: bool,
    ) -> list[Outcome[Any]]:
        """Run children side by side; see `agentq.Context.call_many`.

        Raises:
            ChildFailed: more than ``tolerate`` failed.

        """
        run = self._run
        if run.stopping is not None:
            await run.park(scope)
        sign = digest("\n".join([call.task.name + call.args_hash for call in calls]).encode())
        branch, _, occurrence = scope.place(CALL, sign, foreign=foreign)
        stem = f"{branch}/{CALL}#{occurrence}"
        score = _Score(tolerate, first)
        outcomes = await self._ended(stem, calls, score)
        todo = [number for number, outcome in enumerate(outcomes) if outcome is None]
        if todo and not score.over:
            work = [(f"{stem}.{number}", self._work(calls[number], f"{stem}.{number}")) for number in todo]
            await side_by_side(
                run, self._waits, scope, work, limit=limit, foreign=foreign, enough=lambda _, outcome: score.enough(outcome)
            )
            # Several may have ended at once; which of them count is decided as a replay will decide it.
            score = _Score(tolerate, first)
            outcomes = await self._ended(stem, calls, score)
        elif todo:
            for number in todo:  # its worker died before it could give these up
                self._waits.give_up((f"{stem}.{number}", calls[number].task.name, 0))
        if score.failed is not None:
            raise self._too_many(stem, calls, score.failed)
        return [
            outcome or Outcome(run_id=self._first_id(call, f"{stem}.{number}"), task=call.task.name, failure=_NOT_NEEDED)
            for number, (call, outcome) in enumerate(zip(calls, outcomes, strict=True))
        ]

    async def enqueue(self, scope: Scope, calls: Sequence[Bound[Any]], *, foreign: bool) -> list[str]:
        """Submit independent runs once; their ids are derived from the place in the journal."""
        run = self._run
        if run.stopping is not None:
            await run.park(scope)
        sign = digest("\n".join([call.task.name + call.args_hash for call in calls]).encode())
        place = scope.place(ENQUEUE, sign, foreign=foreign)
        entry = run.history.read(place)
        if entry is not None:
            self._check(entry, sign)
            return msgspec.json.decode(await run.fetch(entry), type=list[str])
        now = run.clock.wall()
        envelopes = [
            producer.envelope(
                call, app=run.row.app, now=now, tenant=run.row.tenant,
                run_id=child_run_id(run.row.id, place[0], f"{ENQUEUE}.{number}", place[2]),
            )
            for number, call in enumerate(calls)
        ]  # fmt: skip
        ids = await run.task.app.opened.submit(envelopes, run.store)
        done = run.ledger.entry(EntryKind.DONE, place, args_hash=sign, value=msgspec.json.encode(ids), started_at=now)
        await run.ledger.commit(done)
        return ids

    async def _ended(self, stem: str, calls: Sequence[Bound[Any]], score: _Score) -> list[Outcome[Any] | None]:
        """What ended already, in the order in which it ended, until that is enough: so a replay decides as the first time."""
        outcomes: list[Outcome[Any] | None] = [None] * len(calls)
        found = []
        for number, call in enumerate(calls):
            entry = self._run.history.read((f"{stem}.{number}", call.task.name, 0))
            if entry is not None:
                self._check(entry, call.args_hash)
                found.append((entry.seq, number, entry))
        for _, number, entry in sorted(found, key=lambda each: each[0]):
            outcomes[number] = await self._outcome(calls[number], entry)
            if score.enough(outcomes[number]):
                break
        return outcomes

    def _too_many(self, stem: str, calls: Sequence[Bound[Any]], failed: Outcome[Any]) -> ChildFailed:
        """Return the error of a ``call_many``; it remembers all failures, so that a new attempt can supersede them."""
        error = ChildFailed(failed.run_id, failed.task, failed.failure or _NOT_NEEDED)
        places = [(f"{stem}.{number}", call.task.name, 0) for number, call in enumerate(calls)]
        entries = [entry for place in places if (entry := self._run.history.answers.get(place)) is not None]
        error.carried = [entry for entry in entries if _failed(entry)]
        return error

    def _work(self, call: Bound[Any], branch: str) -> Work:
        async def work(scope: Scope) -> Outcome[Any]:
            run = self._run
            child = producer.envelope(
                call, app=run.row.app, now=run.clock.wall(), run_id=self._child_id(call, branch),
                parent_id=run.row.id, root_id=run.row.root_id or run.row.id, tenant=run.row.tenant,
            )  # fmt: skip
            wait = Wait(branch=branch, step=call.task.name, occurrence=0, kind=WaitKind.CHILD, ref=child.id)
            if self._waits.recorded((branch, call.task.name, 0)) is None:
                await self._refuse_held_key(child)
                emit("child.started", run_id=run.row.id, child=child.id, task=call.task.name)
            entry = await self._waits.wait(
                scope, wait, _value(child.id), children=(child,), args_hash=child.args_hash, foreign=False
            )
            return await self._outcome(call, entry)

        return work

    async def _refuse_held_key(self, child: Envelope) -> None:
        """A child behind a key that this run or one above it holds would wait for its own caller."""
        above: Run | None = self._run.row
        while child.ordering_key is not None and above is not None:
            if (above.queue, above.ordering_key) == (child.queue, child.ordering_key):
                raise InvalidArgument(
                    "ordering_key", child.ordering_key,
                    f"run {above.id} ({above.task}), which calls this one, holds it until it ends: give the child another key",
                )  # fmt: skip
            if above.parent_id is None:
                return
            found = await self._run.store.runs(RunQuery(ids=(above.parent_id,), limit=1))
            above = found[0] if found else None

    def _child_id(self, call: Bound[Any], branch: str) -> str:
        """The child to start or to wait for: another one each time that it was given up, or that its end was superseded."""
        attempt, _ = self._run.history.next_try((branch, call.task.name, 0))
        return child_run_id(self._run.row.id, branch, call.task.name, attempt - 1)

    def _first_id(self, call: Bound[Any], branch: str) -> str:
        return child_run_id(self._run.row.id, branch, call.task.name, 0)

    async def _outcome(self, call: Bound[Any], entry: Entry) -> Outcome[Any]:
        ended = msgspec.json.decode(await self._run.fetch(entry), type=_Ended)
        if ended.failure is not None:
            return Outcome(run_id=ended.run_id, task=call.task.name, failure=ended.failure)
        return Outcome(run_id=ended.run_id, task=call.task.name, value=call.task.codec.decode(bytes(ended.result)))

    def _check(self, entry: Entry, sign: str) -> None:
        if entry.args_hash != sign and self._run.task.spec.on_mismatch is not Mismatch.IGNORE:
            raise other_arguments(self._run, entry, sign)


class _Score:
    """When a ``call_many`` is over."""

    def __init__(self, tolerate: int, first: int | None) -> None:
        self._tolerate = tolerate
        self._first = first
        self._succeeded = 0
        self._failures = 0
        self.over = False
        self.failed: Outcome[Any] | None = None

    def enough(self, outcome: Outcome[Any] | None) -> bool:
        """Count one outcome."""
        if outcome is None or self.over:
            return self.over
        if outcome.ok:
            self._succeeded += 1
            self.over = self._first is not None and self._succeeded >= self._first
        else:
            self._failures += 1
            if self._failures > self._tolerate:
                self.failed, self.over = outcome, True
        return self.over


def _failed(entry: Entry) -> bool:
    return entry.value is not None and msgspec.json.decode(entry.value, type=_Ended).failure is not None


def _value(run_id: str) -> Any:
    def value(arrival: Arrival | None) -> bytes:
        if arrival is None or arrival.state is RunState.SUCCEEDED:
            payload = arrival.payload if arrival is not None else b"null"
            return msgspec.json.encode(_Ended(run_id, result=msgspec.Raw(payload)))
        failure = arrival.failure or Failure(type="Cancelled", message=f"child run {run_id} was cancelled")
        return msgspec.json.encode(_Ended(run_id, failure=failure))

    return value

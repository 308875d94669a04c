"""What the clauses are written with: a store, its clock, and short ways to submit, claim and write."""

# ruff: noqa: S101 - asserting is what it is for

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from agentq.message import (
    Cancelled,
    Claim,
    ClaimRef,
    ClaimRequest,
    Entry,
    EntryKind,
    Envelope,
    Run,
    RunQuery,
    Submitted,
    Succeeded,
    Suspended,
    Verdict,
    Wait,
    WaitKind,
    Worker,
    Write,
)

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from agentq.stores.base import Store
    from agentq.testing.clock import SimulatedClock

LEASE_S = 30.0
APP = "app"


@dataclass(frozen=True)
class Clause:
    """One sentence of the contract. Call it with an empty, open store; it raises `AssertionError` where the store fails it."""

    body: Callable[[Bench], Awaitable[None]]

    def __str__(self) -> str:
        """The sentence, as an identifier."""
        return self.body.__name__

    async def __call__(self, store: Store, clock: SimulatedClock, other: Store | None = None) -> None:
        """``other`` is a second handle on the same data, if there can be one."""
        await self.body(Bench(store, clock, other or store))


def clause(body: Callable[[Bench], Awaitable[None]]) -> Clause:
    """Mark a function of a `Bench` as a clause; its name is the sentence that it proves."""
    return Clause(body)


@dataclass(frozen=True)
class Bench:
    """A store under test."""

    store: Store
    clock: SimulatedClock
    other: Store

    def envelope(self, run_id: str, **fields: Any) -> Envelope:
        """A submission with every field that a clause does not care about filled in."""
        given: dict[str, Any] = {
            "app": APP, "task": "task", "queue": "queue", "args": b'{"n":1}', "args_hash": "h1",
            "submitted_at": self.clock.wall(),
        }  # fmt: skip
        return Envelope(id=run_id, **(given | fields))

    async def submit(self, *run_ids: str, **fields: Any) -> list[Submitted]:
        """Submit one run per id, all with the same ``fields``."""
        return await self.store.submit([self.envelope(run_id, **fields) for run_id in run_ids])

    async def claim(self, worker: str = "w1", *, limit: int = 100, store: Store | None = None, **fields: Any) -> list[Claim]:
        """What a worker gets."""
        given: dict[str, Any] = {"app": APP, "queues": ("queue",), "tasks": ("task",), "lease_s": LEASE_S}
        request = ClaimRequest(worker=worker, limit=limit, **(given | fields))
        return list((await (store or self.store).claim(request)).claims)

    async def take(self, worker: str = "w1", **fields: Any) -> Claim:
        """The one run that there is to claim."""
        claims = await self.claim(worker, **fields)
        assert len(claims) == 1, f"expected one claim, got {[claim.run.id for claim in claims]}"
        return claims[0]

    async def begin(self, run_id: str = "run-a", worker: str = "w1", **fields: Any) -> Claim:
        """Submit a run and claim it; other runnable runs must not be there."""
        await self.submit(run_id, **fields)
        asked = {f"{name}s": (fields[name],) for name in ("queue", "task") if name in fields}
        return await self.take(worker, **asked)

    async def taken_over(self, worker: str = "w2", **fields: Any) -> Claim:
        """Let every lease run out, and let another worker take the one run."""
        self.clock.advance(LEASE_S + 1)
        return await self.take(worker, **fields)

    async def run(self, run_id: str = "run-a") -> Run:
        """The run as readers see it."""
        found = await self.store.runs(RunQuery(ids=(run_id,)))
        assert [run.id for run in found] == [run_id], f"runs(ids={run_id!r}) answered {found}"
        return found[0]

    async def write(self, claim: Claim, *entries: Entry, **parts: Any) -> Verdict:
        """Write under a claim."""
        return await self.store.write(Write(ref=claim.ref, entries=entries, **parts))

    async def commit(self, claim: Claim, *entries: Entry, **parts: Any) -> None:
        """Write under a claim that must be good."""
        verdict = await self.write(claim, *entries, **parts)
        assert verdict is Verdict.COMMITTED, f"a live claim's write answered {verdict}"

    async def suspend(self, claim: Claim, *waits: Wait) -> None:
        """Open the waits and suspend in one write."""
        await self.commit(claim, waits=waits, settle=Suspended())

    async def beat(self, worker: str = "w1", *claims: Claim, lease_s: float = LEASE_S, **fields: Any) -> Any:
        """A heartbeat that renews ``claims``."""
        return await self.store.beat(self.worker(worker, **fields), [claim.ref for claim in claims], lease_s)

    def worker(self, worker_id: str = "w1", **fields: Any) -> Worker:
        """A worker's row."""
        given: dict[str, Any] = {
            "app": APP,
            "slots": 4,
            "queues": ("queue",),
            "tasks": ("task",),
            "started_at": self.clock.wall(),
        }
        return Worker(id=worker_id, **(given | fields))

    async def succeed(self, claim: Claim, result: bytes = b"1") -> None:
        """Settle as succeeded."""
        await self.commit(claim, settle=Succeeded(result=result))

    async def stop(self, claim: Claim) -> None:
        """Settle as cancelled."""
        await self.commit(claim, settle=Cancelled())


def entry(seq: int, step: str = "step", **fields: Any) -> Entry:
    """A ``done`` entry unless ``kind`` says otherwise; its occurrence is its seq unless given."""
    given: dict[str, Any] = {"kind": EntryKind.DONE, "occurrence": seq, "value": b"1"}
    return Entry(seq=seq, step=step, **(given | fields))


def waited(seq: int, wait: Wait, value: bytes = b"null") -> Entry:
    """The entry that closes ``wait``."""
    return Entry(
        seq=seq,
        kind=EntryKind.WAITED,
        step=wait.step,
        branch=wait.branch,
        occurrence=wait.occurrence,
        attempt=wait.attempt,
        value=value,
    )


def timer(due_at: float, step: str = "sleep", **fields: Any) -> Wait:
    """A wait for a time."""
    given: dict[str, Any] = {"branch": "", "step": step, "occurrence": 0, "kind": WaitKind.TIMER, "due_at": due_at}
    return Wait(**(given | fields))


def signal(name: str = "go", **fields: Any) -> Wait:
    """A wait for a signal."""
    given: dict[str, Any] = {"branch": "", "step": f"wait {name}", "occurrence": 0, "kind": WaitKind.SIGNAL, "ref": name}
    return Wait(**(given | fields))


def child(run_id: str, **fields: Any) -> Wait:
    """A wait for a child."""
    given: dict[str, Any] = {"branch": "", "step": f"call {run_id}", "occurrence": 0, "kind": WaitKind.CHILD, "ref": run_id}
    return Wait(**(given | fields))


def stale(claim: Claim) -> ClaimRef:
    """The claim's proof with a token that was never given out."""
    return ClaimRef(run_id=claim.ref.run_id, epoch=claim.ref.epoch, token=claim.ref.token ^ 1)

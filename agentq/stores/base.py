"""The contract of a store: who may call what, and what each verb promises.

Every verb may be awaited from any event loop of the process (the heartbeat thread has its own). Verbs are atomic: a verb
that raises has changed nothing, except that after `StoreUnavailable` the outcome may be unknown; then the same call with the
same values is sent again, and every verb is written so that this is harmless. The conformance suite in
`agentq.testing.conformance` tests each sentence of this file against every implementation.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, Protocol, Self, runtime_checkable

if TYPE_CHECKING:
    from collections.abc import Sequence
    from types import TracebackType

    from agentq.message import (
        Admission,
        Arrival,
        Beat,
        Census,
        Chunk,
        ClaimRef,
        ClaimRequest,
        Claims,
        Command,
        DeadLetter,
        Entry,
        Envelope,
        LetterQuery,
        Reply,
        Run,
        RunQuery,
        Submitted,
        Verdict,
        Wait,
        Worker,
        Write,
    )

TOMBSTONE_S: Final = 30 * 86400.0
"""For how long after its end a run's id stays known: longer than a broker may deliver it again (SQS keeps 14 days at most)."""
PARCEL_S: Final = 15 * 86400.0
"""For how long what waits for a run's arrival is kept."""


class ProducerStore(Protocol):
    """What a producer needs: put runs in, and steer them."""

    async def submit(self, envelopes: Sequence[Envelope]) -> list[Submitted]:
        """Insert each envelope as a queued run unless its id exists; answer in order.

        Atomic up to 5,000 envelopes; more go in such chunks. An id that exists is left untouched and answered with the
        arguments it has; so is one whose run was swept, while its tombstone stands (then without arguments). Commands that
        came early are applied before anybody can claim the run. Wakes idle workers.

        Among runs of one (app, queue, ordering key) a store hands out one at a time, in the order of their submission: the
        next one when the one before is final. One that is retried after that takes its old place among those not begun.
        """
        ...

    async def keep(self, data: bytes) -> str:
        """Keep arguments that are too large for a broker until the run that they belong to arrives; answer the address.

        `ReaderStore.blob` reads them. They stay for `PARCEL_S` seconds.
        """
        ...

    async def command(self, command: Command) -> Reply:
        """Steer one run or worker; see the command's docstring.

        Cancel marks the whole subtree; a run that is not running is `cancelled` at once, a running one gets a flag that
        its worker sees with the next heartbeat or write. A signal for a run that waits for it makes the run claimable.
        """
        ...


class IntakeStore(Protocol):
    """What intake needs: make durable what a broker delivered, before it is acknowledged."""

    async def admit(self, admission: Admission) -> list[Submitted]:
        """Insert runs, dead letters and positions in one transaction; answer for the envelopes as `submit` does.

        A dead letter whose id exists is left as it is. A position never moves back. Up to 5,000 envelopes.
        """
        ...

    async def positions(self, source: str) -> dict[int, int]:
        """Partition to offset of the next message to read, for the partitions of ``source`` that were ever read."""
        ...


class WorkerStore(Protocol):
    """What a worker needs: own runs, and write what they do."""

    async def beat(self, worker: Worker, claims: Sequence[ClaimRef], lease_s: float) -> Beat:
        """Insert or refresh the worker's row and renew exactly the claims listed, ``lease_s`` from now.

        The state of an existing row is the operator's and is not overwritten, it is answered. A claim whose lease
        expired but that nobody took yet is renewed.
        """
        ...

    async def leave(self, worker_id: str) -> None:
        """Remove the worker's row. Runs it still holds become claimable as if their lease had expired."""
        ...

    async def claim(self, request: ClaimRequest) -> Claims:
        """Take up to ``limit`` runnable runs of ``app``, those of the first queue first, by priority and then by due time.

        First makes due timers and delays runnable, and takes over expired leases: such a run counts a takeover, and the
        running time up to the last sign of life of its worker (a heartbeat, an entry), and is `suspect` if its journal has
        not grown since it was claimed; if it was already claimed as a suspect, that is a death. A run with the cancel flag,
        or past its deadline, is settled here without being handed out. Only tasks in ``tasks`` are returned; others stay.
        Each claim's epoch is the run's last epoch + 1, its token is fresh.
        A worker that is cordoned or draining gets nothing. With ``root`` set, only that run and its descendants are returned.
        """
        ...

    async def write(self, write: Write) -> Verdict:
        """Commit all parts of ``write`` or none, if the claim is still the run's owner (epoch and token match, state running).

        Entries must continue the journal without a gap, and must not repeat an identity (`StoreError` otherwise). A
        ``waited`` entry closes its wait. A run that fails for good takes its subtree with it, as a cancel does. The same
        write again under the same claim answers `committed` and adds nothing. Many writes may share one
        transaction; each has its own verdict.
        """
        ...

    async def inbox(self, run_ids: Sequence[str]) -> list[Arrival]:
        """What has arrived for the open waits of these runs: unconsumed signals in order, children that are final.

        Signals whose name no open wait names are not returned.
        """
        ...

    async def sweep(self, *, retention_s: float, limit: int = 1000) -> int:
        """Delete up to ``limit`` runs that are final for longer than ``retention_s``, with all that hangs on them.

        A run whose parent is not final stays. Blobs that nothing refers to any more go too, and the rows of workers not
        seen for an hour. What was final for less than `TOMBSTONE_S` leaves a tombstone, which stands until that time is over:
        a late delivery, or a key used again, meets it. Parcels and early commands older than `PARCEL_S` go as well. Answers
        how many runs went.
        """
        ...


class ReaderStore(Protocol):
    """What people and the scaler read. Reads never wait for writers."""

    async def runs(self, query: RunQuery) -> list[Run]:
        """Runs that match, newest first. Costs the same however many final runs there are."""
        ...

    async def journal(self, run_id: str, after: int = -1) -> list[Entry]:
        """Entries with ``seq > after`` in order."""
        ...

    async def waits(self, run_id: str) -> list[Wait]:
        """Open waits of a run."""
        ...

    async def stream(self, run_id: str, after: int = 0, limit: int = 1000) -> list[Chunk]:
        """Emitted chunks with ``offset > after`` in order, of every epoch."""
        ...

    async def census(self) -> Census:
        """Queues and workers now. A worker not seen for three leases is left out."""
        ...

    async def blob(self, sha: str) -> bytes:
        """The value behind a content address. `NotFound` if it is gone."""
        ...

    async def letters(self, query: LetterQuery) -> list[DeadLetter]:
        """Dead letters that match, newest first."""
        ...

    async def watch(self, topic: str, seen: int, wait_s: float) -> int:
        """Return a tick newer than ``seen``, as soon as there is one; ``seen`` itself after ``wait_s`` seconds.

        Topics: ``work`` (something may be claimable, or a command is there for a worker) and ``news`` (something a reader
        may want to look at). Ticks may come without cause and, between machines, late: they are hints.
        """
        ...


@runtime_checkable
class Store(ProducerStore, IntakeStore, WorkerStore, ReaderStore, Protocol):
    """A whole store. Opened and closed as an async context manager."""

    @property
    def where(self) -> str:
        """Where the data is, for people; free of secrets."""
        ...

    @property
    def shared(self) -> bool:
        """Whether another process can open the same data (an isolated run needs that)."""
        ...

    async def __aenter__(self) -> Self:
        """Open, migrate if the schema is older. `StoreUnavailable` or `StoreIncompatible` otherwise."""
        ...

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None, /
    ) -> None:
        """Finish what was handed in, then close."""
        ...

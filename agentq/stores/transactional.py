"""What a store can do beside the contract where the user's own data lies in the same database: share a transaction."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

if TYPE_CHECKING:
    from collections.abc import Sequence
    from contextlib import AbstractAsyncContextManager

    from agentq.message import ClaimRef, Envelope, Submitted, Verdict, Write


class Rejected(Exception):
    """The server refused to commit, or the body left the transaction unusable: nothing of it stands. Its cause says why."""


class StepTransaction(Protocol):
    """A transaction that a step's body works in."""

    @property
    def connection(self) -> Any:
        """The driver's connection, inside the transaction."""
        ...

    async def commit(self, write: Write) -> Verdict | None:
        """Add ``write`` to the transaction, fenced as any other, and commit. Only now the run's row is locked.

        Unless the answer is `Verdict.COMMITTED`, nothing that was done in the transaction stands. None: the connection broke,
        and it has been made sure that neither the body's work nor the write was committed.

        Raises:
            Rejected: the body is to blame; nothing was committed.
            StoreUnavailable: what became of the commit is not known yet; call `resolve`.
            StoreError: the write can never be.
        """
        ...

    async def resolve(self) -> bool:
        """After an unknown outcome: wait until the transaction is over, and tell whether it was committed.

        Raises:
            StoreUnavailable: it cannot be told yet; call it again.
        """
        ...


@runtime_checkable
class Transactional(Protocol):
    """A store that shares transactions with its users. Ask ``isinstance(store, Transactional)``: others lack the verbs."""

    async def submit_on(self, connection: object, envelopes: Sequence[Envelope]) -> list[Submitted]:
        """Submit inside the transaction of a connection of the caller's: the runs are there when that commits, or never.

        Answers as `ProducerStore.submit` does. Runs with an ordering key hold back other submissions of that key until the
        transaction ends, so that it ought to be short.

        Raises:
            InvalidArgument: the connection is of no known driver, not in a transaction, or of another database.
            StoreError, StoreUnavailable: in place of the driver's errors; the caller's transaction can go on.
        """
        ...

    def transaction(self, ref: ClaimRef) -> AbstractAsyncContextManager[StepTransaction]:
        """Begin a transaction for a step of a claimed run; left without `StepTransaction.commit` it is rolled back.

        Raises:
            StoreUnavailable: it cannot begin now.
        """
        ...

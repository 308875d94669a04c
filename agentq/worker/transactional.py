"""Transactional steps: what a body writes into the store's database and the record of its result are committed together."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any, Final, TypeVar

import msgspec

from agentq.errors import PermanentError, StoreError, StoreUnavailable
from agentq.journal import RESERVED
from agentq.message import Entry, EntryKind, Failure, Verdict, Write
from agentq.stores.transactional import Rejected, StepTransaction, Transactional
from agentq.telemetry.outage import outage_of

if TYPE_CHECKING:
    from agentq.scope import Frame
    from agentq.step import StepSpec
    from agentq.worker.host import Host

T = TypeVar("T")

LOSSES: Final = 5
"""A try that lost its transaction so often has failed: perhaps it is the body that makes the server end it."""
ROLLED_BACK: Final = f"{RESERVED}rollback"
"""Name of the entry that takes the number of a result which could not be committed."""
_PAUSES_S: Final = (0.05, 0.1, 0.2, 0.5, 1.0, 2.0)


class Lost(Exception):
    """The transaction is gone, nothing of it was committed, and it was not the body's fault."""


async def in_transaction(run: Host, spec: StepSpec, frame: Frame, once: Callable[[StepTransaction], Awaitable[T]]) -> T:
    """Do ``once`` in a transaction, and again in another where that was lost.

    Raises:
        PermanentError: the store shares no transactions.
        Lost: so often that the step has failed.
    """
    store = run.store
    if not isinstance(store, Transactional):
        fake = f"in a test, fake it: steps={{{spec.name}: …}}; else " if store.where.startswith("memory:") else ""
        raise PermanentError(
            f"step {spec.name!r} is transactional, and {store.where} shares no transactions: {fake}use a postgresql:// store, "
            "or effect='at_least_once' with current().idempotency_key"
        )
    losses = 0
    while True:
        async with contextlib.AsyncExitStack() as stack:
            shared = await _begin(run, store, stack)
            frame.connection = shared.connection
            try:
                return await once(shared)
            except Lost:
                losses += 1
                if losses == LOSSES:
                    raise
            finally:
                frame.connection = None
        await run.options.sleep(_PAUSES_S[losses - 1])


async def _begin(run: Host, store: Transactional, stack: contextlib.AsyncExitStack) -> StepTransaction:
    tries = 0
    while True:
        try:
            return await stack.enter_async_context(store.transaction(run.claim.ref))
        except StoreUnavailable as error:
            outage_of(run.store).met(error, verb="begin")
        await run.options.sleep(_PAUSES_S[min(tries, len(_PAUSES_S) - 1)])
        tries += 1


async def record(run: Host, shared: StepTransaction, entry: Entry) -> None:
    """Commit the transaction with ``entry``, which has its number and is not in the history yet.

    Where the run turns out to be no longer ours this never returns: the run is being stopped, and the caller with it.

    Raises:
        Rejected: the server refused; the body is to blame.
        Lost: it was not committed, for no fault of the body's.
    """
    committing = _Committing(run, shared, entry)
    try:
        await run.ledger.commit_alone(committing.work)
    except asyncio.CancelledError:
        await committing.give_up()
        raise
    if committing.error is not None:
        raise committing.error


class _Committing:
    """A commit that takes its turn in the run's ledger."""

    def __init__(self, run: Host, shared: StepTransaction, entry: Entry) -> None:
        self._run = run
        self._shared = shared
        self._entry = entry
        self._given_up = False
        self._begun = False
        self._over = asyncio.Event()
        self.error: Rejected | Lost | None = None

    async def work(self) -> Entry | None:
        """Commit; answer what takes the entry's number where that failed."""
        if self._given_up:  # the transaction is not ours any more
            return self._substitute("given up by the code that called it")
        self._begun = True
        try:
            return await self._commit()
        finally:
            self._over.set()

    async def give_up(self) -> None:
        """The caller is being cancelled: a commit that has begun is seen to its end, one that has not never begins."""
        self._given_up = True
        while self._begun and not self._over.is_set():
            with contextlib.suppress(asyncio.CancelledError):
                await self._over.wait()

    async def _commit(self) -> Entry | None:
        ledger, write = self._run.ledger, Write(ref=self._run.claim.ref, entries=(self._entry,))
        try:
            verdict = await self._shared.commit(write)
        except StoreUnavailable as error:
            outage_of(self._run.store).met(error, verb="commit")
            verdict = await self._resolve()
        except Rejected as rejected:
            self.error = rejected
            return self._substitute(f"not committed: {rejected.__cause__}")
        except StoreError as error:
            ledger.refuse(None, str(error))
            return None
        if verdict is Verdict.COMMITTED:
            ledger.keep(self._entry)
        elif verdict is None and ledger.safe:
            self.error = Lost()
            return self._substitute("the connection broke before the commit")
        else:
            ledger.refuse(verdict, f"the store answered {verdict}")
        return None

    async def _resolve(self) -> Verdict | None:
        """What became of a commit without an answer; None also where the lease is no longer safe."""
        tries = 0
        while self._run.ledger.safe:
            try:
                return Verdict.COMMITTED if await self._shared.resolve() else None
            except StoreUnavailable:
                await self._run.options.sleep(_PAUSES_S[min(tries, len(_PAUSES_S) - 1)])
                tries += 1
        return None

    def _substitute(self, message: str) -> Entry:
        failure = Failure(type="RolledBack", message=message, step=self._entry.step)
        changes: dict[str, Any] = {
            "kind": EntryKind.TRIED, "step": ROLLED_BACK, "occurrence": self._entry.seq, "attempt": 1, "args_hash": "",
            "value": msgspec.json.encode(failure), "tokens": 0, "cost_nanos": 0,
        }  # fmt: skip
        return msgspec.structs.replace(self._entry, **changes)

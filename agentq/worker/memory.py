"""What a run remembers beside its steps: transcripts, snapshots, the time, and values kept outside the journal's rows."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import msgspec

from agentq.codec import Codec, digest
from agentq.context import UNSET
from agentq.errors import AgentQError
from agentq.journal import Mismatch
from agentq.message import Entry, EntryKind
from agentq.worker.host import Host
from agentq.worker.mismatch import other_arguments
from agentq.worker.steps import Steps

if TYPE_CHECKING:
    from agentq.scope import Scope

NOW = "ctx.now"
SPEND = "ctx.spend"
SAVE = "ctx.save"


class Memory:
    """The memory of one execution."""

    def __init__(self, run: Host, steps: Steps) -> None:
        """Belong to ``run``."""
        self._run = run
        self._steps = steps
        self._blobs: dict[str, bytes] = {}

    async def fetch(self, entry: Entry) -> bytes:
        """The value of an entry, wherever it is kept."""
        if entry.value is not None:
            return entry.value
        if entry.blob is None:
            return b"null"
        if entry.blob not in self._blobs:
            self._blobs[entry.blob] = await self._run.store.blob(entry.blob)
        return self._blobs[entry.blob]

    def fetched(self, entry: Entry) -> bytes:
        """The value of an entry that was fetched before, or lies in its row."""
        return entry.value if entry.value is not None else self._blobs.get(entry.blob or "", b"null")

    async def append(self, scope: Scope, step: str, codec: Codec[Any], item: Any, *, foreign: bool) -> Entry:
        """Append to a transcript, or return what was appended at this place before.

        Raises:
            JournalMismatch: something else was appended here.

        """
        run = self._run
        if run.stopping is not None:
            await run.park(scope)
        raw = codec.encode(item)
        sign = digest(raw)
        place = scope.place(step, sign, foreign=foreign)
        entry = run.history.read(place)
        if entry is not None:
            if entry.args_hash != sign and run.task.spec.on_mismatch is Mismatch.ERROR:
                raise other_arguments(run, entry, sign)
            await self.fetch(entry)
            return entry
        entry = run.ledger.entry(EntryKind.APPENDED, place, args_hash=sign, value=raw)
        await run.ledger.commit(entry)
        return entry

    async def save(self, scope: Scope, codec: Codec[Any], state: Any) -> None:
        """Keep a snapshot together with the counters of its branch."""
        run = self._run
        if run.stopping is not None:
            await run.park(scope)
        place = scope.place(SAVE, "", foreign=False)
        last = run.history.saved.get(scope.branch)
        if last is not None and place[2] <= last.occurrence:
            return
        payload = codec.encode(state)
        entry = run.ledger.entry(EntryKind.SAVED, place, value=msgspec.json.encode(scope.counters))
        await run.ledger.commit(entry, snapshot=(scope.branch, payload))

    async def restore(self, scope: Scope, codec: Codec[Any]) -> Any:
        """Return the last snapshot of this branch and set its counters to where it was taken."""
        run = self._run
        if scope.counters:
            called = ", ".join(sorted(scope.counters))
            raise AgentQError(
                f"ctx.restore(…) must be the first call of its branch, but {called} came before: what was recorded there "
                "would be taken for what comes after the snapshot"
            )
        saved = run.history.saved.get(scope.branch)
        payload = run.claim.snapshots.get(scope.branch)
        if saved is None or payload is None:
            return UNSET
        scope.counters.update(msgspec.json.decode(await self.fetch(saved), type=dict[str, int]))
        run.history.skip_to(scope.branch, scope.counters)
        for entries in run.history.transcripts.values():
            for entry in entries:
                if entry.seq in run.history.behind:
                    await self.fetch(entry)
        return codec.decode(payload)

    async def now(self, scope: Scope, *, foreign: bool) -> float:
        """Wall time as it was when this was first asked, in seconds."""
        run = self._run
        if run.stopping is not None:
            await run.park(scope)
        place = scope.place(NOW, "", foreign=foreign)
        entry = run.history.read(place)
        if entry is None:
            entry = run.ledger.entry(EntryKind.DONE, place, value=msgspec.json.encode(run.clock.wall()))
            await run.ledger.commit(entry)
        return msgspec.json.decode(await self.fetch(entry), type=float)

    async def spend(self, scope: Scope, tokens: int, cost_nanos: int, *, foreign: bool) -> None:
        """Count usage with the step it happens in, or as an entry of its own.

        Raises:
            BudgetExceeded: the task's budget is used up.

        """
        run = self._run
        if scope.frame is not None:
            scope.frame.tokens += tokens
            scope.frame.cost_nanos += cost_nanos
            return
        if run.stopping is not None:
            await run.park(scope)
        place = scope.place(SPEND, f"{tokens}-{cost_nanos}", foreign=foreign)
        if run.history.read(place) is None:
            entry = run.ledger.entry(EntryKind.DONE, place, value=b"null", tokens=tokens, cost_nanos=cost_nanos)
            await run.ledger.commit(entry)
            self._steps.check_budget()

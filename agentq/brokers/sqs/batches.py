"""Requests of up to ten entries, filled by whoever has something for the same queue within a few milliseconds."""

from __future__ import annotations

import asyncio
import random
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, TypeAlias

from agentq.brokers.sqs.address import MAX_BATCH_BYTES
from agentq.brokers.sqs.errors import Denied, Missing, Refused
from agentq.errors import BrokerError, BrokerUnavailable

MAX_ENTRIES: Final = 10
"""Of one batch request; SQS's limit."""
PARALLEL: Final = 16
"""Requests of one batcher under way at most. Beyond that entries wait, and share fuller requests."""
TRIES: Final = 6
"""Of one entry that SQS failed by its own fault."""
_BACKOFF_S: Final = 0.05
"""Before the second try of an entry; doubles with each further one, and is jittered."""

Request: TypeAlias = Callable[[list[dict[str, Any]]], Awaitable[dict[str, Any]]]
"""Sends entries with their ids, answers ``Successful`` and ``Failed`` as SQS does, raises `BrokerError`."""


@dataclass(slots=True, kw_only=True, eq=False)
class Entry:
    """One entry of a batch request, and what became of it."""

    fields: dict[str, Any]
    size: int = 0
    """Bytes that it takes of a batch's."""
    lane: str | None = None
    """Entries of one lane are sent one after another, each when the one before it has arrived."""
    born: float = 0.0
    """When it was handed in, on the loop's clock."""
    tries: int = 0
    alone: bool = False
    """Whether it goes in a request of its own, because it made one with others fail."""
    done: asyncio.Future[BaseException | None] = field(default_factory=lambda: asyncio.get_running_loop().create_future())

    async def answer(self) -> BaseException | None:
        """What became of it; None is that SQS has it. Whoever is cancelled here does not call it back."""
        return await asyncio.shield(self.done)


class Batcher:
    """Joins what many callers hand in. A full batch goes at once, another when its first entry has waited ``linger_s``."""

    def __init__(self, request: Request, what: str, *, linger_s: float) -> None:
        """Send by ``request``; errors name ``what``."""
        self._request = request
        self._what = what
        self._linger_s = linger_s
        self._ready: deque[Entry] = deque()
        self._lanes: dict[str, deque[Entry]] = {}
        """Of each lane with an entry that is ready or under way: those behind it."""
        self._timer: asyncio.TimerHandle | None = None
        self._running: set[asyncio.Task[None]] = set()
        self._open = 0
        self._closing = False
        self._abandoned = False

    def add(self, entries: Sequence[Entry]) -> Sequence[Entry]:
        """Take these in; `Entry.answer` says what becomes of each."""
        self._open += len(entries)
        now = asyncio.get_running_loop().time()
        for entry in entries:
            entry.born = now
            if entry.lane is not None and entry.lane in self._lanes:
                self._lanes[entry.lane].append(entry)
                continue
            if entry.lane is not None:
                self._lanes[entry.lane] = deque()
            self._ready.append(entry)
        self._pump()
        return entries

    async def close(self) -> None:
        """Send what waits, and return when all is answered."""
        self._closing = True
        self._pump()
        while self._open:
            if self._running:
                await asyncio.wait(self._running)
            else:
                await asyncio.sleep(_BACKOFF_S)  # every open entry is between two tries

    def abandon(self) -> None:
        """Wait for no answer any more: what is under way may have arrived or not."""
        self._abandoned = True
        for task in self._running:
            task.cancel()

    def _pump(self) -> None:
        """Begin as many requests as are full or due."""
        while not self._abandoned and len(self._running) < PARALLEL and (batch := self._next()):
            task = asyncio.create_task(self._send(batch))
            self._running.add(task)
            task.add_done_callback(self._ended)
        if self._ready and self._timer is None and len(self._running) < PARALLEL:
            self._timer = asyncio.get_running_loop().call_at(self._ready[0].born + self._linger_s, self._lingered)

    def _next(self) -> list[Entry]:
        """Take the next batch from what is ready, if it is full or due."""
        count = size = 0
        full = False
        for entry in self._ready:
            full = count == MAX_ENTRIES or (count > 0 and (entry.alone or size + entry.size > MAX_BATCH_BYTES))
            if full:
                break
            count, size = count + 1, size + entry.size
            full = entry.alone or count == MAX_ENTRIES
            if full:
                break
        if not (full or self._closing or (count and self._due(self._ready[0]))):
            return []
        return [self._ready.popleft() for _ in range(count)]

    def _due(self, entry: Entry) -> bool:
        # The loop runs a timer up to its clock's resolution early.
        return asyncio.get_running_loop().time() >= entry.born + self._linger_s - 0.001

    def _lingered(self) -> None:
        self._timer = None
        self._pump()

    def _ended(self, task: asyncio.Task[None]) -> None:
        self._running.discard(task)
        self._pump()

    async def _send(self, batch: list[Entry]) -> None:
        try:
            answer = await self._request([{"Id": str(number), **entry.fields} for number, entry in enumerate(batch)])
        except BrokerError as error:
            self._refused(batch, error)
            return
        except BaseException as error:
            for entry in batch:
                self._answer(entry, BrokerUnavailable(f"{self._what}: {type(error).__name__}: {error}"))
            raise
        failures = {failure["Id"]: failure for failure in answer.get("Failed", ())}
        arrived = {success["Id"] for success in answer.get("Successful", ())}
        for number, entry in enumerate(batch):
            if (failure := failures.get(str(number))) is not None:
                self._failed(entry, failure)
            elif str(number) in arrived:
                self._answer(entry, None)
            else:
                self._failed(entry, {"Code": "NoAnswer", "Message": "the answer does not mention this entry"})

    def _refused(self, batch: list[Entry], error: BrokerError) -> None:
        """The request failed as a whole; where one of its entries may be why, each is tried alone."""
        if len(batch) > 1 and isinstance(error, Refused) and not isinstance(error, (Missing, Denied)):
            for entry in reversed(batch):
                entry.alone = True
                self._ready.appendleft(entry)
            return
        for entry in batch:
            self._answer(entry, error)

    def _failed(self, entry: Entry, failure: dict[str, Any]) -> None:
        """Try an entry again where SQS says that the fault is its own."""
        text = f"{self._what}: {failure.get('Code', '')}: {failure.get('Message', '')}".rstrip(": ")
        entry.tries += 1
        if failure.get("SenderFault"):
            self._answer(entry, Refused(text, str(failure.get("Code", ""))))
        elif entry.tries >= TRIES:
            self._answer(entry, BrokerUnavailable(f"{text} ({entry.tries} tries)"))
        else:
            delay_s = _BACKOFF_S * 2 ** (entry.tries - 1) * random.uniform(0.5, 1.0)  # noqa: S311 - jitter, not a secret
            asyncio.get_running_loop().call_later(delay_s, self._again, entry)

    def _again(self, entry: Entry) -> None:
        self._ready.appendleft(entry)
        self._pump()

    def _answer(self, entry: Entry, error: BaseException | None) -> None:
        self._open -= 1
        if not entry.done.done():
            entry.done.set_result(error)
        if entry.lane is None:
            return
        behind = self._lanes[entry.lane]
        if behind:
            self._ready.appendleft(behind.popleft())  # it has waited long enough
        else:
            del self._lanes[entry.lane]

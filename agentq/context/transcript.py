"""Append-only lists of a run."""

from __future__ import annotations

import functools
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any, Generic, TypeVar, overload

from agentq.codec import Codec
from agentq.context.about import About

if TYPE_CHECKING:
    from agentq.running import Running

T = TypeVar("T")


class Log(Sequence[T], Generic[T]):
    """The items of a transcript that the code has come to."""

    def __init__(self, run: Running, context: About, name: str, codec: Codec[T]) -> None:
        """Begin with what a restored snapshot has behind it."""
        self._run = run
        self._context = context
        self._step = f"ctx.transcript:{name}"
        self._codec = codec
        self._items: dict[int, T] = {}
        self._order: list[int] | None = None
        for entry in run.history.passed(self._step):
            self._items[entry.seq] = codec.decode(run.fetched(entry))

    def __len__(self) -> int:
        """Count the items."""
        return len(self._items)

    @overload
    def __getitem__(self, index: int) -> T: ...
    @overload
    def __getitem__(self, index: slice) -> list[T]: ...
    def __getitem__(self, index: int | slice) -> T | list[T]:
        """Return items by position."""
        order = self._sorted()
        if isinstance(index, slice):
            return [self._items[seq] for seq in order[index]]
        return self._items[order[index]]

    def __iter__(self) -> Iterator[T]:
        """Go over the items in the order in which they were recorded."""
        return iter([self._items[seq] for seq in self._sorted()])

    def __repr__(self) -> str:
        """As a list."""
        return f"<transcript {list(self)!r}>"

    def _sorted(self) -> list[int]:
        if self._order is None:
            self._order = sorted(self._items)
        return self._order

    def _take(self, entry: Any) -> None:
        self._items[entry.seq] = self._codec.decode(self._run.fetched(entry))
        self._order = None


class Transcript(Log[T]):
    """An append-only list of a run: a chat history, notes. While replaying it shows only what this replay has appended."""

    async def append(self, *items: T) -> None:
        """Append items; each is recorded once."""
        scope = self._context._here()  # noqa: SLF001 - the log belongs to its context
        for item in items:
            self._take(await self._run.append(scope, self._step, self._codec, item, foreign=scope.foreign()))


class SyncTranscript(Log[T]):
    """A `Transcript` for sync tasks."""

    def append(self, *items: T) -> None:
        """Append items; each is recorded once."""
        scope = self._context._here()  # noqa: SLF001 - the log belongs to its context
        for item in items:
            verb = functools.partial(self._run.append, scope, self._step, self._codec, item)
            self._take(self._run.from_thread(scope, lambda _, foreign: verb(foreign=foreign)))  # noqa: B023 - called at once

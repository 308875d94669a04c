"""What the in-memory store keeps beside its runs: dead letters, positions, parcels, tombstones, commands that came early."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING, TypeAlias

from agentq.errors import NotFound
from agentq.message import Reply, Submitted
from agentq.stores.base import PARCEL_S, TOMBSTONE_S

if TYPE_CHECKING:
    from collections.abc import Sequence

    from agentq.message import Cancel, DeadLetter, DropLetters, LetterQuery, Pause, Position, Resume, Send
    from agentq.stores.memory_rows import Row

PREFIX_CHARS = 4
"""Shorter prefixes of ids match nothing."""

Early: TypeAlias = "Cancel | Pause | Resume | Send"


class Arrivals:
    """No rules of ownership here: each thing lies in its own place. ``now`` is wall time throughout."""

    def __init__(self) -> None:
        """Start empty."""
        self.letters: dict[str, DeadLetter] = {}
        self._positions: dict[str, dict[int, int]] = {}
        self._parcels: dict[str, tuple[float, bytes]] = {}
        self._tombstones: dict[str, tuple[float, Submitted]] = {}
        self._early: dict[str, list[tuple[float, Early]]] = {}

    def take_in(self, letters: Sequence[DeadLetter], positions: Sequence[Position]) -> None:
        """Keep what an admission brings beside runs."""
        for letter in letters:
            self.letters.setdefault(letter.id, letter)
        for position in positions:
            read = self._positions.setdefault(position.source, {})
            read[position.partition] = max(position.offset, read.get(position.partition, position.offset))

    def positions(self, source: str) -> dict[int, int]:
        """See `IntakeStore.positions`."""
        return dict(self._positions.get(source, {}))

    def find(self, query: LetterQuery) -> list[DeadLetter]:
        """See `ReaderStore.letters`."""
        newest_first = [letter for letter in reversed(self.letters.values()) if query.queue in {None, letter.queue}]
        if query.ids:
            fits = set[str]().union(*(_fitting(newest_first, given) for given in query.ids))
            newest_first = [letter for letter in newest_first if letter.id in fits]
        return newest_first[: query.limit]

    def drop(self, order: DropLetters) -> Reply:
        """Delete dead letters."""
        gone = [self.letters.pop(letter_id, None) for letter_id in order.ids]
        return Reply.DONE if any(gone) else Reply.UNCHANGED

    def keep(self, data: bytes, now: float) -> str:
        """See `ProducerStore.keep`."""
        sha = hashlib.sha256(data).hexdigest()
        self._parcels[sha] = (now, data)
        return sha

    def parcel(self, sha: str) -> bytes:
        """What was kept; raises `NotFound`."""
        if sha not in self._parcels:
            raise NotFound(f"no blob {sha} in this store")
        return self._parcels[sha][1]

    def bury(self, row: Row) -> None:
        """Let the id of a root run outlive its row."""
        assert row.finished_at is not None  # noqa: S101 - narrows; only final runs are swept
        if row.base.parent_id is None:
            told = Submitted(id=row.id, created=False, args_hash=row.base.args_hash, state=row.state)
            self._tombstones[row.id] = (row.finished_at, told)

    def tombstone(self, run_id: str) -> Submitted | None:
        """What is still known of a run that was swept."""
        found = self._tombstones.get(run_id)
        return None if found is None else found[1]

    def wait_for_run(self, command: Early, now: float) -> Reply:
        """Keep a command until its run is made."""
        if not command.early or command.run_id in self._tombstones:
            return Reply.NOT_FOUND
        self._early.setdefault(command.run_id, []).append((now, command))
        return Reply.DONE

    def came_early(self, run_id: str) -> list[Early]:
        """Take what waits for a run, in order."""
        return [command for _, command in self._early.pop(run_id, ())]

    def sweep(self, now: float) -> None:
        """Forget what is past its time."""
        self._tombstones = {id_: kept for id_, kept in self._tombstones.items() if kept[0] > now - TOMBSTONE_S}
        self._parcels = {sha: kept for sha, kept in self._parcels.items() if kept[0] > now - PARCEL_S}
        for run_id, commands in list(self._early.items()):
            self._early[run_id] = [kept for kept in commands if kept[0] > now - PARCEL_S]
            if not self._early[run_id]:
                del self._early[run_id]


def _fitting(letters: Sequence[DeadLetter], given: str) -> set[str]:
    """Ids of those that ``given`` names in full, or else by a prefix."""
    if any(letter.id == given for letter in letters):
        return {given}
    return {letter.id for letter in letters if len(given) >= PREFIX_CHARS and letter.id.startswith(given)}

"""Dead letters: written with the admission that found them, kept until a person drops them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from agentq.message import DeadLetter, Reply
from agentq.stores.columns import encode, tags_decoder

if TYPE_CHECKING:
    from collections.abc import Sequence

    from agentq.message import DropLetters, LetterQuery
    from agentq.stores.sqlite.desk import Desk

PREFIX_CHARS: Final = 4
"""Shorter prefixes of ids match nothing."""

_WRITE: Final = """
insert into letter (id, queue, body, reason, attributes, origin, received_at) values (?, ?, ?, ?, ?, ?, ?)
on conflict (id) do nothing
"""
_COLUMNS: Final = "n, id, queue, body, reason, attributes, origin, received_at"


def write(desk: Desk, letters: Sequence[DeadLetter]) -> None:
    """Keep each letter unless its id exists."""
    values = [
        (
            letter.id, letter.queue, letter.body, letter.reason, encode(letter.attributes) if letter.attributes else None,
            letter.origin, letter.received_at,
        )
        for letter in letters
    ]  # fmt: skip
    if desk.db.executemany(_WRITE, values).rowcount > 0:
        desk.ring(work=False)


def drop(desk: Desk, order: DropLetters) -> Reply:
    """Delete dead letters."""
    gone = desk.db.executemany("delete from letter where id = ?", [(letter_id,) for letter_id in order.ids]).rowcount
    if gone <= 0:
        return Reply.UNCHANGED
    desk.ring(work=False)
    return Reply.DONE


def find(desk: Desk, query: LetterQuery) -> list[DeadLetter]:
    """See `ReaderStore.letters`."""
    limit = max(query.limit, 0)
    found: dict[int, tuple[Any, ...]] = {}
    for where, values in [_named(desk, given) for given in query.ids] if query.ids else [("1", ())]:
        if query.queue is not None:
            queue = "+queue" if query.ids else "queue"  # an id says more than a queue does
            where, values = f"{where} and {queue} = ?", (*values, query.queue)  # noqa: PLW2901
        sql = f"select {_COLUMNS} from letter where {where} order by n desc limit ?"  # noqa: S608 - constants
        found.update((row[0], row) for row in desk.db.execute(sql, (*values, limit)))
    return [_letter(found[n]) for n in sorted(found, reverse=True)[:limit]]


def _named(desk: Desk, given: str) -> tuple[str, tuple[str, ...]]:
    """The condition for one id, given in full or as a prefix."""
    whole = desk.db.execute("select 1 from letter where id = ?", (given,)).fetchone()
    if whole or len(given) < PREFIX_CHARS:
        return "id = ?", (given,)
    return "id >= ? and id < ?", (given, given + "\U0010ffff")


def _letter(row: tuple[Any, ...]) -> DeadLetter:
    _, letter_id, queue, body, reason, attributes, origin, received_at = row
    return DeadLetter(
        id=letter_id,
        queue=queue,
        body=body,
        reason=reason,
        attributes=tags_decoder.decode(attributes) if attributes else {},
        origin=origin,
        received_at=received_at,
    )

"""Submissions: how envelopes become runs, once each, and meet what came before them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import msgspec

from agentq.message import Submitted
from agentq.stores.columns import STATES, encode
from agentq.stores.sqlite import commands, early, ordering, tombstones
from agentq.stores.sqlite.desk import INLINE_PAYLOAD_BYTES, Desk
from agentq.stores.sqlite.rows import blob, marks

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from agentq.message import Envelope

_INSERT: Final = """
insert into run (id, lane, state, ready, priority, rank, since, due_at, wake_at, submitted_at, deadline, timeout_s,
  max_attempts, key, tenant, tags, args_hash, parent_id, root_id, fork_of, traceparent, ordering_key, args)
values (?, ?, 0, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)
on conflict (id) do nothing
"""

_BEFORE: Final = "select ifnull((select max(n) from run), 0), exists (select 1 from early), exists (select 1 from tombstone)"

_ASK: Final = 500
"""How many ids one query names."""


def submit(desk: Desk, envelopes: Sequence[Envelope]) -> list[Submitted]:
    """See `ProducerStore.submit`."""
    newest, awaited, buried = desk.db.execute(_BEFORE).fetchone()
    swept = _swept(desk, envelopes) if buried else {}
    fresh = [envelope for envelope in envelopes if envelope.id not in swept] if swept else envelopes
    created = _insert(desk, fresh, newest)
    met = created and awaited and _meet(desk, fresh, newest)
    if created == len(envelopes) and not met:
        return [Submitted(id=envelope.id, created=True, args_hash=envelope.args_hash) for envelope in envelopes]
    return _answers(desk, envelopes, newest, swept)


def submit_children(desk: Desk, children: Sequence[Envelope], *, parent: str, root: str) -> None:
    """Insert the runs that run ``parent`` starts; those that exist are left as they are.

    Tombstones do not count: the parent may wait for its child, which therefore has to be.
    """
    fields = {"parent_id": parent, "root_id": root}
    whole = [
        msgspec.structs.replace(child, **{name: value for name, value in fields.items() if getattr(child, name) is None})
        for child in children
    ]
    newest, awaited, _ = desk.db.execute(_BEFORE).fetchone()
    if _insert(desk, whole, newest) and awaited:
        _meet(desk, whole, newest)


def _insert(desk: Desk, envelopes: Sequence[Envelope], newest: int) -> int:
    """Add those whose ids are new, each in its place behind others of its ordering key; answer how many."""
    created = desk.db.executemany(_INSERT, [_row(desk, envelope) for envelope in envelopes]).rowcount
    if created > 0:
        desk.ring(work=True)
        if any(envelope.ordering_key is not None for envelope in envelopes):
            ordering.line_up(desk, newest)
    for envelope in envelopes:
        if len(envelope.args) > INLINE_PAYLOAD_BYTES:
            _outline(desk, envelope, newest)
    return created


def _meet(desk: Desk, envelopes: Sequence[Envelope], newest: int) -> bool:
    """Do to the runs that were just made what was asked for before they came; answer whether there was anything."""
    met = False
    for part in _parts(envelopes):
        for command in early.take(desk, part, newest):
            commands.command(desk, command)
            met = True
    return met


def _swept(desk: Desk, envelopes: Sequence[Envelope]) -> dict[str, Submitted]:
    """What is still known of those among ``envelopes`` that were runs before."""
    swept: dict[str, Submitted] = {}
    for part in _parts(envelopes):
        swept |= tombstones.standing(desk, part)
    return swept


def _parts(envelopes: Sequence[Envelope]) -> list[list[str]]:
    """Their ids, as many at a time as one query names."""
    ids = [envelope.id for envelope in envelopes]
    return [ids[start : start + _ASK] for start in range(0, len(ids), _ASK)]


def _row(desk: Desk, envelope: Envelope) -> tuple[Any, ...]:
    wall = desk.wall
    due_at = envelope.due_at
    delayed = due_at is not None and due_at > wall
    ready_at = envelope.submitted_at if due_at is None else due_at
    wakes = [at for at in (due_at if delayed else None, envelope.deadline) if at is not None]
    return (
        envelope.id,
        desk.lanes.number(envelope.app, envelope.queue, envelope.task),
        0 if delayed else 1,
        envelope.priority,
        ready_at,
        wall if due_at is None else due_at,
        due_at,
        min(wakes) if wakes else None,
        envelope.submitted_at,
        envelope.deadline,
        envelope.timeout_s,
        envelope.max_attempts,
        envelope.key,
        envelope.tenant,
        encode(envelope.tags) if envelope.tags else None,
        envelope.args_hash,
        envelope.parent_id,
        envelope.root_id,
        envelope.fork_of,
        envelope.traceparent,
        envelope.ordering_key,
        envelope.args if len(envelope.args) <= INLINE_PAYLOAD_BYTES else None,
    )


def _outline(desk: Desk, envelope: Envelope, newest: int) -> None:
    """Put large arguments of a run that was just made into a blob."""
    query = "select n from run where id = ? and n > ? and args is null and args_blob is null"
    row = desk.db.execute(query, (envelope.id, newest)).fetchone()
    if row is not None:
        desk.db.execute("update run set args_blob = ? where n = ?", (desk.keep(row[0], envelope.args), row[0]))


def _answers(desk: Desk, envelopes: Sequence[Envelope], newest: int, swept: Mapping[str, Submitted]) -> list[Submitted]:
    """Tell the new from those that stood already (rows up to number ``newest``), came twice, or were swept."""
    standing: dict[str, tuple[Any, ...]] = {}
    for part in _parts(envelopes):
        query = f"select id, n, args, args_blob, args_hash, state from run where id in ({marks(part)})"  # noqa: S608
        standing.update((row[0], row[1:]) for row in desk.db.execute(query, part))
    answers = []
    for envelope in envelopes:
        if envelope.id in swept:
            answers.append(swept[envelope.id])
            continue
        n, args, sha, args_hash, state = standing[envelope.id]
        if n > newest:
            standing[envelope.id] = (0, args, sha, args_hash, state)
            answers.append(Submitted(id=envelope.id, created=True, args_hash=args_hash, state=STATES[state]))
            continue
        stands = args if sha is None else blob(desk.db, sha)
        answers.append(Submitted(id=envelope.id, created=False, args=stands, args_hash=args_hash, state=STATES[state]))
    return answers

"""From a bound call to a run: envelope, identity, submission."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from agentq.errors import KeyConflict
from agentq.message import Envelope, Submitted, keyed_run_id, new_run_id

if TYPE_CHECKING:
    from agentq.stores.base import ProducerStore
    from agentq.task import Bound

_SHOWN = 300
"""Characters of arguments that an error shows."""


def envelope(
    bound: Bound[Any],
    *,
    app: str,
    now: float,
    run_id: str | None = None,
    parent_id: str | None = None,
    root_id: str | None = None,
    tenant: str | None = None,
) -> Envelope:
    """Write one submission. A key determines the run id; else ``run_id`` is taken, else a fresh one.

    ``tenant`` is inherited where the call names none. ``now`` is wall time in seconds.
    """
    call = bound.call
    owner = call.tenant or tenant
    identity = keyed_run_id(app, owner, bound.task.name, call.key) if call.key else run_id or new_run_id()
    return Envelope(
        id=identity,
        app=app,
        task=bound.task.name,
        queue=bound.task.queue,
        args=bound.args,
        args_hash=bound.args_hash,
        submitted_at=now,
        key=call.key,
        tenant=owner,
        priority=call.priority,
        due_at=call.due_at if call.delay_s is None else now + call.delay_s,
        deadline=call.deadline if call.deadline_s is None else now + call.deadline_s,
        max_attempts=call.max_attempts,
        timeout_s=call.timeout_s,
        tags=dict(call.tags),
        parent_id=parent_id,
        root_id=root_id,
    )


async def submit(store: ProducerStore, envelopes: Sequence[Envelope]) -> list[Submitted]:
    """Put envelopes into the store; those whose run exists already answer with it.

    Raises:
        KeyConflict: a key names a run with other arguments. The other envelopes of the call are in.

    """
    answers = await store.submit(envelopes)
    for sent, answer in zip(envelopes, answers, strict=True):
        if not answer.created and answer.args_hash != sent.args_hash:
            raise KeyConflict(sent.key or sent.id, answer.id, _shown(answer.args or b"?"), _shown(sent.args))
    return answers


def _shown(args: bytes) -> str:
    text = args.decode(errors="replace")
    return text if len(text) <= _SHOWN else text[: _SHOWN - 3] + "..."

"""Runs that the store does not know: they may still be in the broker, and what is asked of them is kept until they arrive."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final

from agentq.cli.brokers import meant_broker
from agentq.cli.reading import find_run
from agentq.errors import NotFound
from agentq.message import Run, RunState

if TYPE_CHECKING:
    from agentq.stores.base import Store

_FULL_ID: Final = re.compile(r"[0-9a-v]{26}")
_LOOK_S: Final = 1.0


async def find_or_submitted(store: Store, word: str, broker_url: str | None) -> Run:
    """Return the run that ``word`` means. A whole id that the store does not know is `SUBMITTED` where there is a broker."""
    try:
        return await find_run(store, word)
    except NotFound as error:
        run_id = word.lower()
        if meant_broker(broker_url) is None:
            raise
        if not _FULL_ID.fullmatch(run_id):
            raise NotFound(f"{error}; one that is still in the broker is known by its whole id alone") from None
        nothing = {"app": "", "task": "", "queue": "", "args": b"", "args_hash": "", "submitted_at": 0.0}
        return Run(id=run_id, state=RunState.SUBMITTED, **nothing)  # type: ignore[arg-type]  # texts, bytes and a time


async def arrived(store: Store, run_id: str) -> None:
    """Wait until the store has the run."""
    tick = -1
    while True:
        try:
            await find_run(store, run_id)
        except NotFound:
            tick = await store.watch("news", tick, _LOOK_S)
        else:
            return


def told_submitted(run: Run) -> str:
    """Say what is known of a run without a row."""
    return f"{run.id}  submitted: in the broker, or never heard of"

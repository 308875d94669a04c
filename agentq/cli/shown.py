"""What is known about one run, gathered from the store: the run, its journal by step, its waits, its children, its worker."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import msgspec

from agentq.cli.output import embedded, plain
from agentq.cli.strangers import strange
from agentq.errors import NotFound
from agentq.message import Census, Entry, EntryKind, Failure, Run, RunQuery, RunState, Wait, Worker

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from agentq.stores.base import Store

RESERVED = "ctx."
"""Names of entries that agentq makes itself begin so: waits, transcripts, snapshots."""
_MAX_CHILDREN = 200
_FORK = re.compile(r"runs fork RUN --keep (\d+)")


@dataclass(slots=True)
class Row:
    """One step of a run: everything that its journal says about one (branch, step, occurrence)."""

    entry: Entry
    """The entry that counts: the last one, or the last but a later supersession."""
    tried: list[Entry] = field(default_factory=list)
    """Tries that failed before, and failures that no longer count."""
    superseded: bool = False

    @property
    def started_at(self) -> float:
        """Start of its first try."""
        return min((one.started_at for one in (*self.tried, self.entry) if one.started_at), default=self.entry.ended_at)

    @property
    def ended_at(self) -> float:
        """End of its last try."""
        return self.entry.ended_at

    @property
    def took_s(self) -> float:
        """Seconds that its tries took, without what lay between them."""
        return sum(max(0.0, one.ended_at - one.started_at) for one in (*self.tried, self.entry) if one.started_at)

    @property
    def own(self) -> bool:
        """Whether it is an entry of agentq's own, not of a step that somebody wrote."""
        return self.entry.step.startswith(RESERVED)

    @property
    def tries(self) -> int:
        """How often it was tried, as far as the journal knows."""
        return max(self.entry.attempt, len(self.tried) + 1)

    @property
    def failed(self) -> bool:
        """Whether it ended in a failure that counts."""
        return self.entry.kind is EntryKind.FAILED and not self.superseded

    @property
    def open(self) -> bool:
        """Whether it was begun, or tried, and its end is not recorded."""
        return self.superseded or self.entry.kind in {EntryKind.STARTED, EntryKind.TRIED}


@dataclass(frozen=True, slots=True, kw_only=True)
class RunView:
    """A run with everything that hangs on it, at one moment."""

    run: Run
    rows: tuple[Row, ...]
    waits: tuple[Wait, ...] = ()
    children: tuple[Run, ...] = ()
    worker: Worker | None = None
    strange: str = ""
    """Why nobody takes it, if it is queued and that can be told."""
    values: Mapping[int, bytes] = field(default_factory=dict)
    """Entry's ``seq`` to its value, where values were asked for."""


async def load_view(store: Store, run: Run, *, values: bool = False) -> RunView:
    """Read all there is about ``run``; values outside the rows only if they are asked for."""
    journal = await store.journal(run.id)
    waits = () if run.state.final else tuple(await store.waits(run.id))
    children = tuple(reversed(await store.runs(RunQuery(parent_id=run.id, limit=_MAX_CHILDREN))))
    census = await store.census() if run.state in {RunState.RUNNING, RunState.QUEUED} else Census()
    worker = next((one for one in census.workers if one.id == run.owner), None)
    shown = {entry.seq: await _value(store, entry) for entry in journal} if values else {}
    return RunView(
        run=run,
        rows=rows_of(journal),
        waits=waits,
        children=children,
        worker=worker,
        strange=strange(run, census) if run.state is RunState.QUEUED else "",
        values={k: v for k, v in shown.items() if v},
    )


async def _value(store: Store, entry: Entry) -> bytes | None:
    if entry.blob is None:
        return entry.value
    try:
        return await store.blob(entry.blob)
    except NotFound:
        return None


def rows_of(journal: Iterable[Entry]) -> tuple[Row, ...]:
    """Put the entries of a journal together by step, in the order in which the steps ended."""
    rows: dict[tuple[Any, ...], Row] = {}
    for entry in journal:
        # Transcript items and snapshots repeat under one name: each is a line of its own.
        alone = entry.kind in {EntryKind.APPENDED, EntryKind.SAVED}
        key = (*entry.identity, entry.seq) if alone else entry.identity
        row = rows.pop(key, None)
        if row is None:
            row = Row(entry)
        elif entry.kind is EntryKind.SUPERSEDED:
            row.superseded = True
        else:
            if row.entry.kind is not EntryKind.STARTED:
                row.tried.append(row.entry)
            row.entry, row.superseded = entry, False
        rows[key] = row
    return tuple(rows.values())


def fork_at(failure: Failure) -> str | None:
    """Return the entry to fork at that an error names: code that no longer fits a journal does. It says RUN for the run."""
    found = _FORK.search(failure.message)
    return found[1] if found else None


def name_of(entry: Entry) -> str:
    """Name a step as people read it: what agentq records itself goes without its prefix."""
    return entry.step.removeprefix(RESERVED)


def branch_of(entry: Entry) -> str:
    """Name the innermost branch that a step belongs to: ``0.1`` is the second of the first gather; empty is the task itself."""
    return entry.branch.rstrip("/").rpartition("/")[2].partition("~")[0].removeprefix(RESERVED)


def label_of(entry: Entry) -> str:
    """Name a step with which call it was and its branch, as the timeline does: ``read #2 [0.1]``."""
    call = f" #{entry.occurrence}" if entry.occurrence else ""
    where = branch_of(entry)
    return f"{name_of(entry)}{call}" + (f" [{where}]" if where else "")


def failure_of(entry: Entry) -> Failure | None:
    """Return the failure that an entry records, if it does."""
    if entry.kind not in {EntryKind.FAILED, EntryKind.TRIED} or entry.value is None:
        return None
    try:
        return msgspec.json.decode(entry.value, type=Failure)
    except msgspec.DecodeError:
        return None


def view_json(view: RunView) -> dict[str, Any]:
    """Return the view as a JSON object."""
    return {
        **plain(view.run),
        "steps": [
            {
                "step": row.entry.step,
                "branch": row.entry.branch,
                "occurrence": row.entry.occurrence,
                "outcome": "superseded" if row.superseded else row.entry.kind.value,
                "tries": row.tries,
                "epoch": row.entry.epoch,
                "seq": row.entry.seq,
                "took_s": round(row.took_s, 6),
                "value": embedded(view.values.get(row.entry.seq)),
            }
            for row in view.rows
        ],
        "waits": [plain(wait) for wait in view.waits],
        "children": [{"id": child.id, "task": child.task, "state": child.state.value} for child in view.children],
        "worker": plain(view.worker) if view.worker else None,
    }

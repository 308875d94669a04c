"""Queued runs that nobody will take: neither code nor a live worker of their app has such a task, or such a queue."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from typing import TYPE_CHECKING

from agentq.cli.target import did_you_mean
from agentq.cli.text import clean, count

if TYPE_CHECKING:
    from agentq.app import AgentQ
    from agentq.message import Census, Run


def strange(run: Run, census: Census, app: AgentQ | None = None) -> str:
    """Say what keeps a queued run from being taken, and what was probably meant; empty where nobody can tell.

    ``app`` is its code, where that is at hand. A queue without workers may just wait for them: it is named only if it is no
    queue of the code, or looks like one that is served.
    """
    workers = [worker for worker in census.workers if worker.app == run.app]
    code = app if app is not None and app.name == run.app else None
    tasks = {task for worker in workers for task in worker.tasks} | set(code.tasks if code else ())
    if tasks and run.task not in tasks:
        return _said(f"no {'code' if code and not workers else 'worker'} knows task {clean(run.task)!r}", run.task, tasks)
    queues = {queue for worker in workers for queue in worker.queues} | set(code.queues if code else ())
    if queues and run.queue not in queues and (code or did_you_mean(run.queue, queues)):
        return _said(f"nobody serves queue {clean(run.queue)!r}", run.queue, queues)
    return ""


def strangers(queued: Iterable[Run], census: Census, app: AgentQ | None = None) -> list[str]:
    """Say it once for all runs of which the same is to be said."""
    found = Counter(said for run in queued if (said := strange(run, census, app)))
    return [f"{count(number, 'queued run')}: {said}" for said, number in sorted(found.items())]


def _said(what: str, word: str, known: Iterable[str]) -> str:
    guess = did_you_mean(word, sorted(known))
    return f"{what}; {guess}" if guess else what

"""``python -m tests.bench.interruption``: how much work each library repeats when its workers are replaced and killed."""

from __future__ import annotations

import argparse
import contextlib
import importlib.metadata
import os
import platform
import sys
import tempfile
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from tests.bench.interruption.contenders import ALL, SLOTS, VISIBILITY_S, Contender
from tests.bench.interruption.measure import (
    CRASH_AT_S,
    GRACE_S,
    LIMIT_S,
    ROLLOUT_AT_S,
    TASKS,
    MeasureError,
    Outcome,
    measure,
)
from tests.bench.interruption.venvs import VenvError
from tests.bench.interruption.work import UNIT_S, UNITS
from tests.helpers import elasticmq, java, postgres

COLUMNS = (
    *("", "tasks complete", "all complete after", "work repeated", "work lost", "two at once", "begun or resumed"),
    "left in the queue",
)


def main() -> int:
    """Measure, print the table, and answer the exit code: 0 when agentq, if measured, did as it promises."""
    options = _options()
    chosen = [each for each in ALL if not options.only or {each.name, each.library} & options.only]
    begin = time.monotonic()
    with _folder(options.keep) as folder, _servers(chosen) as (endpoint, store):

        def one(contender: Contender) -> Outcome | str:
            print(f"measuring {contender.name} …", file=sys.stderr, flush=True)
            try:
                return measure(contender, endpoint=endpoint, store=store, folder=folder / contender.name)
            except (MeasureError, VenvError) as error:
                return str(error)

        with ThreadPoolExecutor(options.jobs) as pool:
            outcomes = list(pool.map(one, chosen))
    print(_markdown(chosen, outcomes, jobs=options.jobs, took_s=time.monotonic() - begin))
    mine = next((outcome for each, outcome in zip(chosen, outcomes, strict=True) if each.library == "agentq"), None)
    return 0 if mine is None or _good(mine) else 1


def _good(outcome: Outcome | str) -> bool:
    """Whether all is done, nothing by two at once, and the kill has cost each slot no more than the unit it was at."""
    if isinstance(outcome, str) or outcome.tally.finished_s is None:
        return False
    return outcome.tally.repeated_s <= SLOTS * UNIT_S and outcome.tally.overlap_s == 0 and outcome.left == 0


def _options() -> argparse.Namespace:
    names = sorted({name for each in ALL for name in (each.name, each.library)})
    parser = argparse.ArgumentParser(prog="python -m tests.bench.interruption", description=__doc__)
    parser.add_argument(
        "--only",
        type=lambda text: set(text.split(",")),
        default=set(),
        metavar="NAME,…",
        help=f"libraries, or single settings: {', '.join(names)}",
    )
    parser.add_argument("--jobs", type=int, default=4, metavar="N", help="contenders at a time; they sleep mostly (default 4)")
    parser.add_argument("--keep", type=Path, metavar="FOLDER", help="keep the marks and the workers' logs in this new folder")
    options = parser.parse_args()
    if unknown := options.only - set(names):
        parser.error(f"--only: unknown: {', '.join(sorted(unknown))}")
    return options


@contextlib.contextmanager
def _folder(keep: Path | None) -> Iterator[Path]:
    if keep:
        keep.mkdir(parents=True)
        yield keep.resolve()
        return
    with tempfile.TemporaryDirectory(prefix="bench-", dir=os.environ.get("BENCH_FOLDER")) as folder:
        yield Path(folder)


@contextlib.contextmanager
def _servers(chosen: list[Contender]) -> Iterator[tuple[str, str]]:
    with contextlib.ExitStack() as stack:
        endpoint = stack.enter_context(elasticmq.server())
        ours = any(each.library == "agentq" for each in chosen)
        yield endpoint, stack.enter_context(postgres.server()) if ours else ""


def _markdown(chosen: list[Contender], outcomes: list[Outcome | str], *, jobs: int, took_s: float) -> str:
    measured = list(zip(chosen, outcomes, strict=True))
    server = elasticmq.GIVEN or Path(java.class_path("elasticmq")).parent.name
    lines = ["## Work repeated over a rollout and a crash, on one SQS server", "", _shape(), ""]
    lines += [f"| {' | '.join(COLUMNS)} |", "|---" * len(COLUMNS) + "|"]
    lines += [_row(each, outcome) for each, outcome in measured if isinstance(outcome, Outcome)]
    lines += [f"\n{each.shown}: not measured: {outcome}" for each, outcome in measured if isinstance(outcome, str)]
    lines += ["", f"- server: {server}; {jobs} contenders at a time, {took_s:.0f} s in all"]
    lines += ["- ElasticMQ refuses to delete by a receipt that a later delivery replaced; AWS says yes, and may not delete"]
    lines += [f"- machine: {os.cpu_count()} CPUs, {platform.system()} {platform.release()}"]
    lines += [f"- Python {platform.python_version()}, agentq {importlib.metadata.version('agentq')}"]
    pins = {each.library: each.requirements for each in chosen if each.requirements}
    lines += [f"- {library}: {', '.join(requirements)}" for library, requirements in pins.items()]
    return "\n".join(lines)


def _shape() -> str:
    best_s = TASKS * UNITS * UNIT_S / SLOTS
    sentences = (
        f"{TASKS} tasks of {UNITS * UNIT_S:g} s, each {UNITS} units of {UNIT_S:g} s, on one worker of {SLOTS} slots:",
        f"{best_s:g} s at best. Visibility timeout of the queue {VISIBILITY_S} s where not said otherwise.",
        f"At {ROLLOUT_AT_S:g} s a rollout: SIGTERM, {GRACE_S:g} s later SIGKILL, a new worker at once.",
        f"At {CRASH_AT_S:g} s SIGKILL, a new worker at once.",
        "Repeated is what was worked beyond each unit's first time; lost is what was done for tasks that nobody goes on with.",
        "Watched until every unit was done, the queue was empty and nobody worked,",
        f"for {LIMIT_S:g} s at most.",
    )
    return " ".join(sentences)


def _row(contender: Contender, outcome: Outcome) -> str:
    tally = outcome.tally
    missing = f", {tally.never_done} units never done" if tally.never_done else ""
    restarts = f", {outcome.restarts} restarts" if outcome.restarts else ""
    cells = (
        contender.shown,
        f"{tally.complete} of {TASKS}{missing}",
        f"{tally.finished_s:.0f} s" if tally.finished_s is not None else f"not within {outcome.watched_s:.0f} s",
        *(f"{seconds:,.0f} s" for seconds in (tally.repeated_s, tally.lost_s, tally.overlap_s)),
        f"{tally.executions}{restarts}",
        str(outcome.left),
    )
    return f"| {' | '.join(cells)} |"


if __name__ == "__main__":
    sys.exit(main())

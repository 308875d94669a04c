"""One contender through one rollout and one crash, in real time."""

from __future__ import annotations

import os
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import botocore.session

from tests.bench.contest import ROOT
from tests.bench.interruption.contenders import SLOTS, Contender
from tests.bench.interruption.deployment import Deployment
from tests.bench.interruption.tally import Performance, Tally, performances, tally
from tests.bench.interruption.work import UNIT_S, UNITS

TASKS = 2 * SLOTS
ROLLOUT_AT_S = 40.0
CRASH_AT_S = 100.0
"""Both counted from the first unit's beginning."""
GRACE_S = 30.0
"""Kubernetes' default."""
LIMIT_S = 600.0
START_S = 90.0
QUIET_S = UNIT_S + 5
"""Nobody has begun or ended a unit for so long."""
LOOK_S = 0.2


class MeasureError(Exception):
    """A contender could not be measured; the message says why."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """What was seen of one contender."""

    tally: Tally
    watched_s: float
    """From the first beginning to the end of the measurement."""
    left: int
    """Messages still in the queue then, visible or not."""
    restarts: int
    """Times that a worker ended without being told to."""


def measure(contender: Contender, *, endpoint: str, store: str, folder: Path) -> Outcome:
    """Send the tasks, start a worker, interrupt it twice, and watch until all is done and nothing is left, or LIMIT_S.

    Raises:
        MeasureError: the tasks could not be sent, or none of them was begun.
        VenvError: the library cannot be installed here.
    """
    units = folder / "units"
    units.mkdir(parents=True)
    queue = f"bench-{contender.name}"
    python = str(contender.python())
    environment = _environment(contender, endpoint=endpoint, store=store, queue=queue, units=units)
    with _client(endpoint) as sqs:
        attributes = {"VisibilityTimeout": str(contender.visibility_s)}
        url = sqs.create_queue(QueueName=queue, Attributes=attributes)["QueueUrl"]
        _send([python, "-m", contender.module, str(TASKS)], environment)
        deployment = Deployment([python, *contender.worker], environment, grace_s=GRACE_S, log=folder / "worker.log")
        deployment.start()
        try:
            began = _first_mark(deployment, units, folder)
            _interrupt_and_watch(deployment, units, began, lambda: _left(sqs, url))
            watched_s = time.time() - began
            # The workers end after this: what they leave unfinished now is no fault of theirs.
            found = _read(deployment, units)
        finally:
            deployment.stop()
        left = _left(sqs, url)
    added = tally(found, tasks=TASKS, units=UNITS, unit_s=UNIT_S)
    return Outcome(tally=added, watched_s=watched_s, left=left, restarts=deployment.restarts)


def _environment(contender: Contender, *, endpoint: str, store: str, queue: str, units: Path) -> dict[str, str]:
    ours = {name: value for name, value in os.environ.items() if not name.startswith("AGENTQ_")}
    return {
        **ours,
        **contender.environment,
        "AWS_ACCESS_KEY_ID": "x",
        "AWS_SECRET_ACCESS_KEY": "x",
        "BENCH_QUEUE": queue,
        "BENCH_SETTING": contender.setting,
        "BENCH_SQS": endpoint,
        "BENCH_STORE": store,
        "BENCH_UNITS": str(units),
        "BENCH_VISIBILITY": str(contender.visibility_s),
        "PYTHONUNBUFFERED": "1",
    }


@contextmanager
def _client(endpoint: str) -> Iterator[Any]:
    session = botocore.session.get_session()
    session.set_credentials("x", "x")
    client = session.create_client("sqs", region_name="elasticmq", endpoint_url=endpoint)
    try:
        yield client
    finally:
        client.close()


def _send(command: list[str], environment: dict[str, str]) -> None:
    try:
        done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False, timeout=START_S)
    except subprocess.TimeoutExpired:
        raise MeasureError(f"sending took longer than {START_S:g} s") from None
    if done.returncode:
        raise MeasureError((done.stderr or done.stdout).strip()[-600:])


def _first_mark(deployment: Deployment, units: Path, folder: Path) -> float:
    deadline = time.monotonic() + START_S
    while time.monotonic() < deadline:
        deployment.look()
        if found := _read(deployment, units):
            return min(each.begin for each in found)
        time.sleep(LOOK_S)
    raise MeasureError(f"no task was begun within {START_S:g} s: {(folder / 'worker.log').read_text()[-600:]}")


def _interrupt_and_watch(deployment: Deployment, units: Path, began: float, left: Callable[[], int]) -> None:
    due = [(ROLLOUT_AT_S, deployment.roll_out), (CRASH_AT_S, deployment.crash)]
    looked = 0.0
    while (now := time.time() - began) < LIMIT_S:
        if due and now >= due[0][0]:
            due.pop(0)[1]()
        deployment.look()
        if not due and now - looked > 1:
            looked = now
            found = _read(deployment, units)
            added = tally(found, tasks=TASKS, units=UNITS, unit_s=UNIT_S)
            quiet = time.time() - max(each.end for each in found) > QUIET_S
            if added.finished_s is not None and quiet and not left():
                return
        time.sleep(LOOK_S)


def _read(deployment: Deployment, units: Path) -> list[Performance]:
    lines = [line for file in sorted(units.glob("*.log")) for line in file.read_text().splitlines()]
    return performances(lines, deployment.ended, time.time())


def _left(sqs: Any, url: str) -> int:
    names = ["ApproximateNumberOfMessages", "ApproximateNumberOfMessagesNotVisible", "ApproximateNumberOfMessagesDelayed"]
    answer = sqs.get_queue_attributes(QueueUrl=url, AttributeNames=names)["Attributes"]
    return sum(int(answer[name]) for name in names)

"""Celery on SQS; a plain task, as users write it. ``python -m tests.bench.interruption.peer_celery N`` sends N of them.

Settings, by BENCH_SETTING:

- ``default``: Celery as it is. A message is acknowledged before its task is begun; four per slot are fetched ahead.
- ``late``: what Celery's documentation advises for tasks that must not be lost: ``task_acks_late``,
  ``task_reject_on_worker_lost``, and for long ones ``worker_prefetch_multiplier = 1``.
- ``best``: the same, a visibility timeout longer than the longest task (the documentation's first caveat about SQS), and the
  soft shutdown of Celery 5.5 with SIGTERM mapped to it (``REMAP_SIGTERM=SIGQUIT``, as advised for Kubernetes): tasks that do
  not end within the soft timeout are cancelled and put back into the queue.

The queue is predefined, its visibility timeout is an attribute of the queue. kombu looks every second as by default.
"""

from __future__ import annotations

import os
import sys
import time
from urllib.parse import urlsplit

from celery import Celery

from tests.bench.interruption.work import UNIT_S, UNITS, Execution

ENDPOINT = os.environ["BENCH_SQS"]
QUEUE = os.environ["BENCH_QUEUE"]
SETTING = os.environ["BENCH_SETTING"]

app = Celery("bench", broker=f"sqs://x:x@{urlsplit(ENDPOINT).netloc}")
app.conf.update(
    task_default_queue=QUEUE,
    task_ignore_result=True,
    task_create_missing_queues=True,
    broker_transport_options={
        "region": "elasticmq",
        "is_secure": False,
        "visibility_timeout": int(os.environ["BENCH_VISIBILITY"]),
        "predefined_queues": {
            QUEUE: {"url": f"{ENDPOINT}/000000000000/{QUEUE}", "access_key_id": "x", "secret_access_key": "x"}
        },
    },
)
if SETTING in {"late", "best"}:
    app.conf.update(task_acks_late=True, task_reject_on_worker_lost=True, worker_prefetch_multiplier=1)
if SETTING == "best":
    app.conf.update(worker_soft_shutdown_timeout=5.0)


@app.task(name="work")
def work(task: str) -> None:
    execution = Execution(task)
    for number in range(UNITS):
        with execution.unit(number):
            time.sleep(UNIT_S)


if __name__ == "__main__":
    for n in range(int(sys.argv[1])):
        app.send_task("work", [f"task-{n}"], queue=QUEUE)

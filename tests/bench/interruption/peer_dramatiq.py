"""Dramatiq with dramatiq-sqs; a plain actor, as users write it. ``… peer_dramatiq N`` sends N messages.

Settings, by BENCH_SETTING:

- ``default``: dramatiq-sqs as its README sets it up. It asks for a visibility timeout of its own: twelve hours.
- ``queue``: the same with the visibility timeout that the queue is to have.
- ``best``: a visibility timeout longer than the longest task; as many messages fetched as there are threads
  (``dramatiq_queue_prefetch``; the default is twice as many, and the visibility of those that wait runs out meanwhile);
  and ``notify_shutdown``: on SIGTERM the actor is interrupted, and its message is sent again by the Retries middleware,
  after a second or two, as the README sets it.

The time limit (10 minutes by default) is off in all of them: long tasks are what is measured.
"""

from __future__ import annotations

import os
import sys
import time

import dramatiq
from dramatiq.middleware import AgeLimit, Callbacks, Pipelines, Retries, ShutdownNotifications
from dramatiq_sqs import SQSBroker

from tests.bench.interruption.work import UNIT_S, UNITS, Execution

SETTING = os.environ["BENCH_SETTING"]
OPTIONS = {} if SETTING == "default" else {"visibility_timeout": int(os.environ["BENCH_VISIBILITY"])}

broker = SQSBroker(
    middleware=[
        AgeLimit(),
        ShutdownNotifications(notify_shutdown=SETTING == "best"),
        Callbacks(),
        Pipelines(),
        Retries(min_backoff=1000, max_backoff=900000, max_retries=96),
    ],
    endpoint_url=os.environ["BENCH_SQS"],
    region_name="elasticmq",
    aws_access_key_id="x",
    aws_secret_access_key="x",  # noqa: S106 - the server asks for none
    **OPTIONS,
)
dramatiq.set_broker(broker)


@dramatiq.actor(queue_name=os.environ["BENCH_QUEUE"])
def work(task: str) -> None:
    execution = Execution(task)
    for number in range(UNITS):
        with execution.unit(number):
            time.sleep(UNIT_S)


if __name__ == "__main__":
    for n in range(int(sys.argv[1])):
        work.send(f"task-{n}")

"""Taskiq with taskiq-aio-sqs; a plain async task, as users write it. ``… peer_taskiq N`` sends N of them.

Settings, by BENCH_SETTING:

- ``default``: as its README sets it up. A message is acknowledged after its task; the visibility timeout is the queue's.
- ``best``: ``enable_heartbeat``, its README's answer to tasks longer than the visibility timeout, every third of it.

There is no setting that hands a running task back on SIGTERM: the worker waits for its tasks, without limit by default.
"""

from __future__ import annotations

import asyncio
import os
import sys

from taskiq_aio_sqs import SQSBroker

from tests.bench.interruption.work import UNIT_S, UNITS, Execution

VISIBILITY_S = int(os.environ["BENCH_VISIBILITY"])
OPTIONS = {"enable_heartbeat": True, "heartbeat_interval": VISIBILITY_S / 3} if os.environ["BENCH_SETTING"] == "best" else {}

broker = SQSBroker(
    os.environ["BENCH_QUEUE"],
    endpoint_url=os.environ["BENCH_SQS"],
    region_name="elasticmq",
    aws_access_key_id="x",
    aws_secret_access_key="x",  # noqa: S106 - the server asks for none
    **OPTIONS,
)


@broker.task("work")
async def work(task: str) -> None:
    execution = Execution(task)
    for number in range(UNITS):
        with execution.unit(number):
            await asyncio.sleep(UNIT_S)


async def main(count: int) -> None:
    await broker.startup()
    for n in range(count):
        await work.kiq(f"task-{n}")
    await broker.shutdown()


if __name__ == "__main__":
    asyncio.run(main(int(sys.argv[1])))

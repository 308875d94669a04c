"""agentq on SQS and PostgreSQL, every setting as it comes; each unit is a step. ``… ours N`` enqueues N runs."""

from __future__ import annotations

import asyncio
import os
import sys

from agentq import AgentQ, Context
from tests.bench.interruption.work import UNIT_S, UNITS, Execution

aq = AgentQ(
    "interruption",
    store=os.environ["BENCH_STORE"],
    broker=f"sqs://elasticmq/{os.environ['BENCH_QUEUE']}?endpoint={os.environ['BENCH_SQS']}",
)


@aq.step(ignore=("execution",))
async def unit(execution: Execution, number: int) -> int:
    with execution.unit(number):
        await asyncio.sleep(UNIT_S)
    return number


@aq.task
async def work(ctx: Context, task: str) -> None:
    execution = Execution(task)
    for number in range(UNITS):
        await unit(execution, number)


async def main(count: int) -> None:
    async with aq:
        await aq.enqueue_many([work.bind(f"task-{n}") for n in range(count)])


if __name__ == "__main__":
    from tests.bench.interruption import ours  # under this name the tasks are those that the worker knows

    asyncio.run(ours.main(int(sys.argv[1])))

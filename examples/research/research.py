"""Ask the research agent; see README.md. Its code is in ``agentq.cli.demo_agent``, so that ``agentq demo`` has it, too."""

import sys

from agentq import RunHandle
from agentq.cli.demo_agent.agent import approved, aq, research, summarise
from agentq.cli.demo_agent.values import Report

__all__ = ["approved", "aq", "research", "summarise"]


async def show(handle: RunHandle[Report]) -> None:
    async for event in handle.events():
        if event.kind == "progress" and event.note:
            print(f"{event.progress or 0:4.0%}  {event.note}", file=sys.stderr)
    report = await handle.result()
    print(report.answer)
    for finding in report.findings:
        print("-", finding.claim)
        for source in finding.sources:
            print(f"    {source.file}:{source.line}  {source.text}")
    print(f"({report.model}; {report.turns} turns, {report.tool_calls} tool calls)")


async def main(goal: str) -> None:
    async with aq:
        await show(await research.options(key=goal).enqueue(goal))


if __name__ == "__main__":
    import asyncio

    asyncio.run(main(" ".join(sys.argv[1:])))

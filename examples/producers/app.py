"""Runs that programs in other languages submit: sqs.sh (curl), sqs.mjs (Node.js) and Submit.java (Kafka), all beside this file.

cd examples/producers && agentq worker app:aq --broker "sqs://eu-central-1" --store postgresql://host/database
"""

from agentq import AgentQ, Context

aq = AgentQ("shop")  # so its queue reports is shop-reports on SQS, and shop.reports on Kafka


@aq.step
def outline(topic: str) -> list[str]:
    return [f"What {topic} is", f"What {topic} costs"]


@aq.task(queue="reports")
async def report(ctx: Context, topic: str, pages: int = 2) -> str:
    chapters = await ctx.thread(outline, topic)
    return "\n".join(chapters[:pages])

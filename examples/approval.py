"""A run that asks a person and needs no worker while it waits, be it two days.

agentq run approval:article topic=bees        # drafts, then waits
agentq runs list                              # in another terminal: shows the question
agentq runs signal RUN approved true          # the first terminal goes on
"""

import asyncio
from datetime import timedelta
from pathlib import Path

from agentq import AgentQ, Context, Signal, current

aq = AgentQ("approval")
approved = Signal("approved", bool)
PUBLISHED = Path("published.txt")


@aq.step
async def draft(topic: str) -> str:
    await asyncio.sleep(0.1)  # in place of a model
    return f"All there is to know about {topic}."


@aq.step
def publish(text: str) -> str:
    """Publish once: after a crash the step may run again, with the same key."""
    key = current().idempotency_key
    if not PUBLISHED.exists() or key not in PUBLISHED.read_text():
        with PUBLISHED.open("a") as file:
            file.write(f"{key} {text}\n")
    return key


@aq.task
async def article(ctx: Context, topic: str) -> str:
    text = await draft(topic)
    ok = await ctx.wait_for(approved, ask=f"Publish {text!r}?", timeout=timedelta(days=2), default=False)
    if not ok:
        return "not published"
    return f"published as {await ctx.thread(publish, text)}"

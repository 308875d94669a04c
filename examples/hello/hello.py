"""The README's first program: kill it anywhere, start it again, and no answer is paid for twice.

export OPENAI_API_KEY=… HELLO_MODEL=gpt-4o-mini     # or OPENAI_BASE_URL of any compatible endpoint
cd examples/hello && agentq run hello:agent goal="How long is a lease?" --key g1
"""

import os
import pathlib

import openai

from agentq import AgentQ, Context, Retry

aq = AgentQ("hello")
DOCS = pathlib.Path(__file__).parent / "docs"
MODEL = os.environ.get("HELLO_MODEL", "gpt-4o-mini")


@aq.step(retry=Retry(max_attempts=5))
async def ask(prompt: str) -> str:
    async with openai.AsyncOpenAI() as llm:
        reply = await llm.chat.completions.create(model=MODEL, messages=[{"role": "user", "content": prompt}])
        return reply.choices[0].message.content or ""


@aq.step
async def read(file: str) -> str:
    return (DOCS / pathlib.Path(file).name).read_text()


@aq.task
async def agent(ctx: Context, goal: str) -> str:
    files = " ".join(sorted(path.name for path in DOCS.iterdir()))
    prompt = f"Files: {files}\nReply 'READ <files>' until you know enough, then answer: {goal}"
    while (reply := await ask(prompt)).startswith("READ "):
        prompt += "\n".join(["", reply, *await ctx.gather(*(read(file) for file in reply[5:].split()))])
    return reply

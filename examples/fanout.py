"""One child run per file, four at a time; a file that cannot be read fails its child, not the whole.

agentq run fanout:survey folder=/usr/share/doc
"""

from dataclasses import dataclass
from pathlib import Path

from agentq import AgentQ, Context, Retry

aq = AgentQ("fanout")


@dataclass(frozen=True)
class Size:
    file: str
    words: int


@dataclass(frozen=True)
class Survey:
    sizes: list[Size]
    failed: int


@aq.step
def files(folder: str) -> list[str]:
    return sorted(str(path) for path in Path(folder).rglob("*.txt"))[:100]


@aq.step
def count(file: str) -> int:
    return len(Path(file).read_text().split())


@aq.task(retry=Retry(max_attempts=1))
async def measure(ctx: Context, file: str) -> Size:
    words = await ctx.thread(count, file)
    await ctx.emit("measured", file)
    return Size(file, words)


@aq.task
async def survey(ctx: Context, folder: str) -> Survey:
    found = await ctx.thread(files, folder)
    outcomes = await ctx.call_many([measure.bind(file) for file in found], limit=4, tolerate=len(found))
    sizes = [outcome.value for outcome in outcomes if outcome.value is not None]
    return Survey(sorted(sizes, key=lambda size: -size.words), failed=len(outcomes) - len(sizes))

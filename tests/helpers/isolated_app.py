"""An app that a child process can import, with tasks that misbehave in ways that only a process of its own survives."""

import asyncio
import os
import signal
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import timedelta
from pathlib import Path

from agentq import AgentQ, Context, Retry, Signal, SyncContext

aq = AgentQ("isolated")
GO = Signal("go", str)
ONE = Retry(max_attempts=1)


def once(marker: str) -> bool:
    """Whether nobody asked before, in whichever process."""
    path = Path(marker)
    if path.exists():
        return False
    path.touch()
    return True


def die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def write(path: str, word: str) -> None:
    with Path(path).open("a") as file:
        file.write(f"{word}\n")


def there(path: str) -> bool:
    return Path(path).exists()


@aq.step
async def note(path: str, word: str) -> int:
    write(path, word)
    return os.getpid()


@aq.task(isolate=True)
async def whoami(ctx: Context) -> int:
    return os.getpid()


@aq.task(isolate=True)
async def submits_through(ctx: Context) -> str | None:
    return None if aq.broker is None else aq.broker.where


@aq.task
async def plain(ctx: Context) -> int:
    return os.getpid()


@aq.task(isolate=True)
async def dies_once(ctx: Context, path: str) -> list[int]:
    first = await note(path, "first")
    if once(path + ".died"):
        die()
    return [first, await note(path, "second")]


@aq.task(isolate=True, retry=Retry(max_attempts=9))
async def always_dies(ctx: Context, path: str) -> None:
    write(path, "died")
    die()


@aq.task(isolate=True)
async def waits(ctx: Context, path: str) -> list[object]:
    before = await note(path, "before")
    word = await ctx.wait_for(GO)
    return [word, before == await note(path, "after")]


@aq.task(isolate=True, retry=ONE)
async def fails(ctx: Context) -> None:
    raise LookupError("in the child")


@aq.task(isolate=True, retry=ONE, timeout=timedelta(milliseconds=200))
async def blocks(ctx: Context) -> None:
    time.sleep(60)  # noqa: ASYNC251 - the point


@aq.task(isolate=True)
def hangs(ctx: SyncContext, path: str) -> None:
    Path(path).write_text(str(os.getpid()))
    while True:
        time.sleep(0.01)


@aq.task(isolate=True)
async def drained(ctx: Context, path: str) -> int:
    await note(path, "one")
    ran = 0
    while not there(path + ".go"):
        ran = await note(path, "loop")
    return ran


@asynccontextmanager
async def slow_to_close(app: AgentQ) -> AsyncIterator[None]:
    """Closing takes until there is a file called close beside the store."""
    yield
    while not there(str(Path(app.store.where).parent / "close")):
        await asyncio.sleep(0.01)


slow = AgentQ("slow", lifespan=slow_to_close)


@slow.task(isolate=True)
async def ends(ctx: Context) -> str:
    return "ended"


if __name__ == "__main__":
    import sys

    from agentq.settings import WorkerSettings
    from agentq.worker import Worker

    async def main() -> None:
        from tests.helpers.isolated_app import aq as app  # noqa: PLC0415 - the child must find it by this name

        async with app.using(store=sys.argv[1]):
            await Worker(app, WorkerSettings(heartbeat_s=0.05, poll_s=0.05)).run()

    asyncio.run(main())

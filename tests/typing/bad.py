"""What users get wrong. Each marked line, and no other, is an error to a type checker; the mark says which."""

from datetime import timedelta

from agentq import AgentQ, Budget, Context, Retry, Signal, SyncContext

aq = AgentQ("typed")
approved = Signal("approved", bool)


@aq.step
async def ask(prompt: str) -> str:
    return prompt


@aq.step(retry=Retry(max_attempts=2))
async def count(text: str) -> int:
    return len(text)


@aq.step(effect="twice")  # E: an unknown effect
async def odd() -> None: ...


class Browser:
    @aq.step
    async def fetch(self, url: str) -> bytes:
        return url.encode()


@aq.task
async def report(ctx: Context, topic: str, *, pages: int = 3) -> list[str]:
    await ask(5)  # E: steps keep their parameters
    await ask()  # E: …all of them
    wrong: int = await ask("x")  # E: …and their results
    await count(text=None)  # E: also with options
    await Browser().fetch(5)  # E: also as methods
    texts: list[str] = await ctx.gather(count("a"), count("b"))  # E: branches keep their results
    answer: str = await ctx.wait_for(approved)  # E: a signal brings its own type
    child: str = await ctx.call(summarise, "x")  # E: a child returns its own type
    await ctx.call(summarise, 5)  # E: and takes its own arguments
    notes = await ctx.transcript("notes", str)
    await notes.append(5)  # E: a transcript takes items of its type
    await ctx.sleep("1m")  # E: no duration
    return [*texts, str(wrong), answer, child]


@aq.task
async def summarise(ctx: Context, page: str) -> int:
    return len(page)


@aq.task(timeout=60)  # E: a duration is a timedelta
async def slow(ctx: Context) -> None: ...


@aq.task  # E: a sync function takes a SyncContext
def blocking(ctx: Context, name: str) -> str:
    return name


@aq.task(queue="q")  # E: also with options
def blocking_with_options(ctx: Context, name: str) -> str:
    return name


@aq.task  # E: the context comes first
async def without_context(name: str) -> str:
    return name


@aq.task
def quick(ctx: SyncContext, name: str) -> str:
    return name


async def produce() -> None:
    handle = await report.enqueue(5)  # E: the wrong type
    await report.enqueue()  # E: an argument is missing
    await report.enqueue("a", 3)  # E: too many by position
    await report.enqueue("a", page=3)  # E: no parameter of this name
    await report.options(key="k").enqueue(5)  # E: options keep the types
    await report.options(kee="k").enqueue("a")  # E: an unknown option
    report.bind("a", pages="3")  # E: bind is typed, too
    await quick.enqueue(5)  # E: sync tasks are typed, too
    result: str = await handle.result()  # E: the result is the task's
    typed: str = await report.handle("id").result()  # E: also from another process
    await handle.signal(approved, "yes")  # E: the signal's own type
    await aq.enqueue_many([report.bind("a"), "b"])  # E: only bound calls
    print(result, typed)


Retry(max_attempts="3")  # E: a number
Retry(initial=5)  # E: a timedelta
Budget(cost_usd=5.0)  # E: money is a Decimal
Signal("x", bool).encode("yes")  # E: the signal's own type
aq.blocking(report)  # E: a coroutine
timedelta(seconds=1)

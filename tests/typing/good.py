"""The public API as users write it. A type checker finds nothing here."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import timedelta
from decimal import Decimal
from typing import Any, assert_type

from agentq import AgentQ, Budget, Context, Outcome, Retry, RunHandle, RunStatus, Signal, SyncContext, current


@dataclass
class Report:
    title: str


@dataclass
class State:
    page: int = 0


@asynccontextmanager
async def clients(_: AgentQ) -> AsyncIterator[None]:
    yield


aq = AgentQ("typed", lifespan=clients)
approved = Signal("approved", bool)
edited = Signal[Report | None]("edited", Report | None)


@aq.step
async def ask(prompt: str, *, model: str = "m") -> str:
    current().spend(tokens=10, cost_usd=Decimal("0.01"))
    return prompt + model


@aq.step(retry=Retry(max_attempts=5, initial=timedelta(seconds=1)), timeout=timedelta(minutes=1))
async def count(text: str) -> int:
    return len(text)


@aq.step(effect="at_most_once", on_interrupt="ask")
def pay(amount: Decimal) -> str:
    return str(amount)


class Browser:
    @aq.step
    async def fetch(self, url: str) -> bytes:
        return url.encode()

    @aq.step(ignore=("client",))
    def title(self, page: bytes, client: object = None) -> str:
        return page.decode()


@aq.task
async def summarise(ctx: Context, page: str) -> int:
    return await count(page)


@aq.task(
    queue="reports",
    retry=Retry(max_attempts=3),
    timeout=timedelta(hours=6),
    budget=Budget(steps=200, tokens=500_000, cost_usd=Decimal(5)),
)
async def report(ctx: Context, topic: str, *, pages: int = 3) -> Report:
    answer = await ask(topic, model="x")
    assert_type(answer, str)
    assert_type(await ctx.gather(ask("a"), ask("b"), limit=2), list[str])
    assert_type(await ctx.gather(*(count(each) for each in topic.split())), list[int])
    assert_type(await ctx.thread(pay, Decimal(1)), str)
    browser = Browser()
    assert_type(await browser.fetch("u"), bytes)
    assert_type(await ctx.thread(browser.title, b"x"), str)

    notes = await ctx.transcript("notes", str)
    await notes.append("one", "two")
    assert_type(notes[0], str)
    assert_type(list(notes), list[str])

    assert_type(await ctx.restore(State, default=State()), State)
    assert_type(await ctx.restore(State), State | None)
    await ctx.save(State(1))

    assert_type(await ctx.wait_for(approved, ask="Publish?"), bool)
    assert_type(await ctx.wait_for(approved, timeout=timedelta(days=2), default=None), bool | None)
    assert_type(await ctx.wait_for(edited), Report | None)

    assert_type(await ctx.call(summarise, "page"), int)
    assert_type(await ctx.call_many([summarise.bind(each) for each in "ab"], limit=20, tolerate=3), list[Outcome[int]])
    handle = await summarise.enqueue("page")
    assert_type(handle, RunHandle[int])

    assert_type(await ctx.step("chat", lambda: ask(topic), returns=Report), Report)
    await ctx.progress(0.5, "half-way")
    await ctx.emit("token", {"text": "…"})
    await ctx.sleep(timedelta(minutes=1))
    return Report(answer)


@aq.task
def blocking(ctx: SyncContext, name: str, times: int = 1) -> list[str]:
    assert_type(pay(Decimal(2)), str)
    assert_type(ctx.gather(lambda: pay(Decimal(1)), lambda: pay(Decimal(2))), list[str])
    assert_type(ctx.call(summarise, "page"), int)
    assert_type(ctx.wait_for(approved), bool)
    assert_type(ctx.restore(State, default=State()), State)
    notes = ctx.transcript("notes", int)
    notes.append(5)
    assert_type(notes[0], int)
    return [name] * times


@aq.task(name="other", isolate=True, on_mismatch="rerun")
def blocking_with_options(ctx: SyncContext, name: str) -> int:
    return len(name)


@aq.task
async def without_arguments(ctx: Context) -> None:
    await ctx.sleep(1.5)


async def produce() -> None:
    async with aq:
        handle = await report.enqueue("k8s")
        assert_type(handle, RunHandle[Report])
        assert_type(await handle.result(), Report)
        assert_type(await handle.result(timeout=5), Report)
        assert_type(await handle.status(), RunStatus)
        await handle.signal(approved, True)
        await handle.signal(edited, None, id="once")
        assert_type(await handle.cancel(), bool)
        async for event in handle.events():
            assert_type(event.epoch, int)

        later = report.options(key="r-42", tenant="acme", delay=timedelta(minutes=5), tags={"a": "b"})
        assert_type(await later.enqueue("k8s", pages=1), RunHandle[Report])
        assert_type(report.handle("id"), RunHandle[Report])
        assert_type(aq.handle("id"), RunHandle[Any])
        many = await aq.enqueue_many([report.bind("a"), report.bind("b", pages=2)])
        assert_type(many, list[RunHandle[Report]])

        assert_type(await blocking.enqueue("x", times=2), RunHandle[list[str]])
        assert_type(await blocking_with_options.enqueue("x"), RunHandle[int])
        assert_type(await without_arguments.enqueue(), RunHandle[None])


def from_a_shell() -> None:
    handle = aq.blocking(report.enqueue("x"))
    assert_type(handle, RunHandle[Report])
    assert_type(aq.blocking(handle.result()), Report)


async def in_a_test() -> None:
    async with aq.using(store="memory:") as opened:
        assert_type(opened, AgentQ)

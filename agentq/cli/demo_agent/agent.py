"""The research agent on agentq: every model call and every tool call is a step, summaries are child runs."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AbstractContextManager, asynccontextmanager
from datetime import timedelta
from typing import ParamSpec, TypeVar

from agentq import AgentQ, Budget, Context, Retry, Signal, current
from agentq.cli.demo_agent import tools
from agentq.cli.demo_agent.corpus import corpus
from agentq.cli.demo_agent.effects import recorded
from agentq.cli.demo_agent.model import Digest, Thought, model_from
from agentq.cli.demo_agent.values import (
    Call,
    Counts,
    Decision,
    Excerpt,
    Hits,
    Listing,
    Observation,
    Ranking,
    Report,
    Summary,
    Trouble,
    Turn,
)
from agentq.cli.demo_agent.words import read_goal
from agentq.errors import InvalidArgument, PermanentError

P = ParamSpec("P")
T = TypeVar("T")


@asynccontextmanager
async def _documents(_: AgentQ) -> AsyncIterator[None]:
    """Read the documents once per worker process, before its first run."""
    await asyncio.to_thread(corpus)
    yield


aq = AgentQ("research", lifespan=_documents)
approved = Signal("approved", bool)

_PATIENT = Retry(max_attempts=5, initial=timedelta(seconds=2))
_AT_ONCE = 4
_MAX_TURNS = 30


@aq.step(retry=_PATIENT)
async def think(goal: str, turns: list[Turn]) -> Decision:
    """Ask the model what to do next."""
    with _recorded("think"):
        thought: Thought = await model_from().decide(goal, turns)
        current().spend(tokens=thought.tokens)
        return thought.decision


@aq.step(retry=_PATIENT)
async def digest(module: str, question: str, about: str, pages: list[Excerpt]) -> Summary:
    """Ask the model what a module says about a question."""
    with _recorded("digest"):
        made: Digest = await model_from().summarise(module, question, about, pages)
        current().spend(tokens=made.tokens)
        return made.summary


@aq.step(name="list")
async def list_modules(prefix: str = "", limit: int = tools.LIMIT) -> Listing | Trouble:
    """List modules."""
    return await _use("list", tools.list_modules, prefix, limit)


@aq.step
async def search(pattern: str, within: str = "", limit: int = tools.LIMIT) -> Hits | Trouble:
    """Search a regular expression."""
    return await _use("search", tools.search, pattern, within, limit)


@aq.step
async def read(module: str, line: int = 1, around: int = 4) -> Excerpt | Trouble:
    """Read some lines of a module."""
    return await _use("read", tools.read, module, line, around)


@aq.step
async def count(names: list[str]) -> Counts | Trouble:
    """Count lines, definitions and docstrings."""
    return await _use("count", tools.count, names)


@aq.step
async def rank(names: list[str], by: str = "lines", limit: int = 10) -> Ranking | Trouble:
    """Order modules by size."""
    return await _use("rank", tools.rank, names, by, limit)


TOOLS: dict[str, Callable[..., Awaitable[Observation]]] = {
    "list": list_modules,
    "search": search,
    "read": read,
    "count": count,
    "rank": rank,
}


@aq.task(timeout=timedelta(hours=1))
async def summarise(ctx: Context, module: str, question: str) -> Summary:
    """Read what one module says about a question."""
    listing = await list_modules(module, 1)
    about = listing.documents[0].about if isinstance(listing, Listing) and listing.documents else ""
    stems = "|".join(read_goal(question).stems) or "def|class"
    found = await search(rf"^\s*(?:async\s+)?(?:def|class)\s+\w*(?:{stems})\w*", module)
    hits = found.hits if isinstance(found, Hits) else []
    pages = await ctx.gather(*(read(hit.module, hit.line) for hit in hits[:_AT_ONCE]))
    await ctx.progress(0.7, "summarise")
    return await digest(module, question, about, [page for page in pages if isinstance(page, Excerpt)])


@aq.task(retry=Retry(max_attempts=3), timeout=timedelta(hours=1), budget=Budget(steps=1_000))
async def research(ctx: Context, goal: str, approve: bool = False) -> Report:  # noqa: FBT001, FBT002 - an argument of a run
    """Research Python's standard library until ``goal`` is answered.

    With ``approve`` a person is asked before the report is published.
    """
    notes = await ctx.transcript("turns", Turn)
    decision = await think(goal, [])
    while not decision.final:
        if len(notes) >= _MAX_TURNS:
            raise PermanentError(f"{_MAX_TURNS} turns and no answer; give a narrower goal")
        done = len(notes) + 1
        await ctx.progress(done / (done + max(decision.remaining, 1)), decision.why)
        seen = await ctx.gather(*(_use_tool(call) for call in decision.calls), limit=_AT_ONCE)
        if decision.summarise:
            seen += await _summaries(ctx, decision.summarise, goal)
        await notes.append(Turn(decision, seen))
        decision = await think(goal, list(notes))
    published = True
    if approve:
        question = f"Publish a report of {len(decision.findings)} findings on: {goal}"
        published = await ctx.wait_for(approved, ask=question, timeout=timedelta(days=2), default=False)
    await ctx.progress(1.0, "done")
    return Report(
        goal=goal,
        answer=decision.answer,
        findings=decision.findings,
        model=model_from().name,
        turns=len(notes) + 1,
        tool_calls=sum(len(turn.decision.calls) for turn in notes),
        published=published,
    )


async def _summaries(ctx: Context, modules: list[str], question: str) -> list[Observation]:
    calls = [summarise.bind(module, question) for module in modules]
    outcomes = await ctx.call_many(calls, limit=_AT_ONCE, tolerate=len(calls))
    return [o.value or Trouble("summarise", o.failure.message if o.failure else "no summary") for o in outcomes]


async def _use_tool(call: Call) -> Observation:
    tool = TOOLS.get(call.tool)
    if tool is None:
        return Trouble(call.tool, f"no such tool; there are {', '.join(TOOLS)}")
    try:
        return await tool(**call.args)
    except (InvalidArgument, TypeError) as error:
        return Trouble(call.tool, str(error))


async def _use(name: str, tool: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T | Trouble:
    with _recorded(name):
        try:
            return await asyncio.to_thread(tool, *args, **kwargs)
        except tools.ToolError as error:
            return Trouble(name, str(error))


def _recorded(step: str) -> AbstractContextManager[None]:
    here = current()
    return recorded(run=here.run_id, key=here.idempotency_key, step=step, epoch=here.fence)

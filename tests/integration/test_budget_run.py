"""Budgets of steps, tokens and money: counted with the step they are spent in, and over is over for good."""

from decimal import Decimal

import pytest

from agentq import AgentQ, Budget, BudgetExceeded, Context, InvalidArgument, Retry, StepFailed, current
from agentq.message import RunState
from tests.helpers.lab import Calls, lab

pytestmark = pytest.mark.usefixtures("each_store")


async def test_spending_is_committed_with_the_step_and_counted_once() -> None:
    aq, calls = AgentQ("t"), Calls()

    @aq.step(retry=Retry(max_attempts=3))
    async def chat() -> str:
        calls.append(1)
        current().spend(tokens=100, cost_usd="0.000000001")
        if len(calls) == 1:
            raise ValueError("the tokens are gone all the same")
        return "x"

    @aq.step
    async def die_once() -> None:
        if len(calls) == 2:
            calls.append("dies")
            await bench.die_here()

    @aq.task
    async def task(ctx: Context) -> None:
        await chat()
        await ctx.spend(tokens=1, cost_usd=Decimal("0.01"))
        await die_once()

    async with lab(aq) as bench:
        run = await bench.finish(task.bind())
        status = await bench.handle(run.id).status()
        assert (status.tokens, status.cost_usd) == (201, Decimal("0.010000002"))


async def test_steps_over_the_budget_are_not_begun() -> None:
    aq, calls = AgentQ("t"), Calls()

    @aq.step
    async def step(n: int) -> int:
        calls.append(n)
        return n

    @aq.task(budget=Budget(steps=3), retry=Retry(max_attempts=5))
    async def task(ctx: Context) -> None:
        await ctx.now()
        for n in range(10):
            await step(n)

    async with lab(aq) as bench:
        run = await bench.finish(task.bind())
        assert (run.state, run.attempt) == (RunState.FAILED, 1)
        assert run.failure is not None
        assert run.failure.type.endswith("BudgetExceeded")
        assert "3" in run.failure.message
        assert calls == [0, 1, 2]


async def test_tokens_over_the_budget_are_recorded_and_end_the_run_unless_it_is_caught() -> None:
    aq = AgentQ("t")

    @aq.step
    async def chat(tokens: int) -> str:
        current().spend(tokens=tokens)
        return "x"

    @aq.task(budget=Budget(tokens=100), retry=Retry(max_attempts=5))
    async def task(ctx: Context, *, careful: bool) -> str:
        await chat(60)
        try:
            await chat(60)
        except BudgetExceeded:
            if careful:
                return "in short"
            raise
        return "in full"

    async with lab(aq) as bench:
        run = await bench.finish(task.bind(careful=False))
        assert (run.state, run.attempt, run.tokens) == (RunState.FAILED, 1, 120)
        run = await bench.finish(task.bind(careful=True))
        assert await bench.result(run.id) == "in short"


async def test_money_over_the_budget_ends_the_run_at_ctx_spend() -> None:
    aq = AgentQ("t")

    @aq.task(budget=Budget(cost_usd=Decimal(1)))
    async def task(ctx: Context) -> None:
        for _ in range(20):
            await ctx.spend(cost_usd=Decimal("0.3"))

    async with lab(aq) as bench:
        run = await bench.finish(task.bind())
        assert run.failure is not None
        assert run.failure.type.endswith("BudgetExceeded")
        assert (await bench.handle(run.id).status()).cost_usd == Decimal("1.2")


async def test_amounts_that_do_not_fit_are_refused() -> None:
    aq, refused = AgentQ("t"), Calls()

    @aq.step
    async def chat() -> None:
        current().spend(tokens=-1)

    @aq.task(retry=Retry(max_attempts=1))
    async def task(ctx: Context) -> None:
        for tokens, cost in ((-1, 0), (0, -1), (0, "much")):
            try:
                await ctx.spend(tokens=tokens, cost_usd=cost)
            except InvalidArgument as error:
                refused.append(error.field)
        try:
            await chat()
        except StepFailed as error:
            refused.append(error.type)

    async with lab(aq) as bench:
        run = await bench.finish(task.bind())
        assert run.state is RunState.SUCCEEDED
        assert refused == ["tokens", "cost_usd", "cost_usd", "agentq.errors.InvalidArgument"]

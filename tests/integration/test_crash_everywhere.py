"""Tasks of every shape, killed, paused and stuttered at every operation that they do."""

from __future__ import annotations

import asyncio
from datetime import timedelta
from decimal import Decimal

import msgspec
import pytest

from agentq import AgentQ, Budget, Context, Outcome, Retry, Signal, StepFailed, SyncContext, testing
from agentq.message import ClaimRequest, Claims
from agentq.stores.memory import MemoryStore
from agentq.testing import Broken, FaultKind, SimulatedClock

aq = AgentQ("crash")
approved = Signal("approved", bool)
failures: dict[str, int] = {}


@aq.step
async def ask(prompt: str) -> str:
    await asyncio.sleep(0)
    return prompt.upper()


@aq.step
async def outer(prompt: str) -> str:
    return "-".join([await ask(prompt), await ask(prompt + "2")])


@aq.step(retry=Retry(max_attempts=3, jitter=0.0))
async def flaky(key: str) -> str:
    failures[key] = failures.get(key, 0) + 1
    if failures[key] % 2:
        raise ConnectionError("once in two")
    return key


@aq.step
async def hopeless() -> str:
    raise ValueError("no")


@aq.step
def plain(text: str) -> str:
    return text[::-1]


@aq.task
async def double(ctx: Context, n: int) -> int:
    return n * 2


@aq.task
async def chat(ctx: Context, goal: str) -> list[str]:
    log = await ctx.transcript("log", str)
    for turn in range(3):
        await log.append(await ask(f"{goal}{turn}"))
        await ctx.emit("turn", turn)
    return [*log, await outer(goal)]


@aq.task(budget=Budget(steps=20, tokens=1_000, cost_usd=Decimal(1)))
async def branches(ctx: Context) -> list[object]:
    async def branch(n: int) -> str:
        await ctx.spend(tokens=n)
        if n == 1:
            await ctx.sleep(60)
        return await ask(f"b{n}")

    mine = await ctx.gather(*(branch(n) for n in range(3)), limit=2)
    foreign = await asyncio.gather(*(ask(f"f{n}") for n in range(3)))
    try:
        await hopeless()
    except StepFailed as error:
        mine.append(error.type)
    return [*mine, *foreign, await ctx.thread(plain, "abc")]


@aq.task(retry=Retry(max_attempts=5, jitter=0.0))
async def waits(ctx: Context) -> list[object]:
    started = await ctx.now()
    await ctx.sleep(timedelta(hours=3))
    first = await ctx.wait_for(approved, ask="Publish?")
    second = await ctx.wait_for(approved, timeout=timedelta(days=1), default=None)
    child = await ctx.call(double, 21)
    many: list[Outcome[int]] = await ctx.call_many([double.bind(n) for n in range(4)], limit=2)
    long_enough = await ctx.now() - started >= timedelta(hours=3)
    return [first, second, child, [each.unwrap() for each in many], long_enough]


@aq.task
async def snapshots(ctx: Context) -> int:
    state: dict[str, int] = await ctx.restore(dict[str, int], default={"turn": 0, "sum": 0})
    while state["turn"] < 4:
        state["sum"] += len(await ask("x" * state["turn"]))
        state["turn"] += 1
        await ctx.save(state)
    return state["sum"]


@aq.task(retry=Retry(max_attempts=4, jitter=0.0))
async def retried(ctx: Context, key: str) -> str:
    return await ask(key) + await flaky(key)


@aq.task
def sync(ctx: SyncContext, text: str) -> list[str]:
    first = plain(text)
    both = ctx.gather(lambda: plain(first + "1"), lambda: plain(first + "2"))
    ctx.sleep(5)
    return [first, *both, str(ctx.call(double, 2))]


CALLS = {
    "chat": chat.bind("hi"),
    "branches": branches.bind(),
    "waits": waits.bind(),
    "snapshots": snapshots.bind(),
    "retried": retried.bind("k"),
    "sync": sync.bind("abc"),
}


@pytest.mark.parametrize("name", CALLS)
async def test_it_comes_out_the_same_wherever_it_crashes(name: str) -> None:
    failures.clear()
    signals = {approved: [True, False]} if name == "waits" else {}
    report = await testing.crash_everywhere(CALLS[name], signals=signals, pairs=30, seed=1)
    assert report.scenarios == report.operations * len(FaultKind) + 30
    assert set(report.by_kind) == set(FaultKind)


class _Forgetful(MemoryStore):
    """A store that hands runs over without the last entry of their journal."""

    async def claim(self, request: ClaimRequest) -> Claims:
        claims = await super().claim(request)
        short = [msgspec.structs.replace(claim, journal=claim.journal[:-1]) for claim in claims.claims]
        return msgspec.structs.replace(claims, claims=tuple(short))


async def test_a_store_that_forgets_is_found_out() -> None:
    def store(clock: SimulatedClock) -> MemoryStore:
        return _Forgetful(clock=clock)

    with pytest.raises(Broken, match="runs again although"):
        await testing.crash_everywhere(chat.bind("hi"), store=store)


async def test_a_task_that_depends_on_what_is_not_recorded_is_found_out() -> None:
    app, calls = AgentQ("careless"), [0]

    @app.step
    async def step(n: int) -> int:
        return n

    @app.task(on_mismatch="ignore")
    async def careless(ctx: Context) -> int:
        calls[0] += 1
        return calls[0] + await step(1) + await step(2)

    with pytest.raises(Broken, match="undisturbed it ends"):
        await testing.crash_everywhere(careless.bind())


async def test_faults_of_one_kind_only() -> None:
    report = await testing.crash_everywhere(chat.bind("hi"), kinds=[FaultKind.PAUSE])
    assert report.by_kind == {FaultKind.PAUSE: report.operations}
    assert report.reexecuted > 0


@aq.task
async def impatient(ctx: Context) -> str:
    try:
        async with asyncio.timeout(0.01):
            await never()
    except TimeoutError:
        found = await ask("fallback")
    await ctx.sleep(60)
    return found + await ask("more")


@aq.step
async def never() -> None:
    await asyncio.get_running_loop().create_future()


async def test_a_step_that_its_code_gives_up_comes_out_the_same() -> None:
    report = await testing.crash_everywhere(impatient.bind())
    assert report.scenarios > 0


async def test_a_run_that_fails_undisturbed_proves_little() -> None:
    app = AgentQ("fails")

    @app.task(retry=Retry(max_attempts=1))
    async def fails(ctx: Context) -> None:
        raise ValueError("no")

    with pytest.raises(Broken, match="without any fault the run fails: ValueError"):
        await testing.crash_everywhere(fails.bind())
    report = await testing.crash_everywhere(fails.bind(), fails=True)
    assert report.scenarios > 0


@aq.step(effect="at_most_once", on_interrupt="retry")
async def pay(amount: int) -> str:
    return f"paid {amount}"


@aq.step(effect="at_most_once", on_interrupt="skip")
async def mail(to: str) -> str | None:
    return None


@aq.task
async def buys(ctx: Context) -> list[str | None]:
    return [await pay(5), await mail("a"), await ask("thanks")]


async def test_no_try_of_an_at_most_once_step_is_begun_twice() -> None:
    report = await testing.crash_everywhere(buys.bind(), pairs=30)
    assert report.scenarios > 0


class _Unmarked(MemoryStore):
    """A store that hands runs over without the marks of steps that were begun."""

    async def claim(self, request: ClaimRequest) -> Claims:
        claims = await super().claim(request)
        last = claims.claims[0].journal[-1:] if claims.claims else ()
        if last and last[0].kind == "started":
            cut = [msgspec.structs.replace(claim, journal=claim.journal[:-1]) for claim in claims.claims]
            return msgspec.structs.replace(claims, claims=tuple(cut))
        return claims


async def test_a_store_that_forgets_the_marks_is_found_out() -> None:
    with pytest.raises(Broken):
        await testing.crash_everywhere(buys.bind(), store=lambda clock: _Unmarked(clock=clock))


@aq.step(effect="at_most_once")
async def charge(amount: int) -> str:
    return f"paid {amount}"


@aq.task
async def invoice(ctx: Context) -> str:
    return await charge(5)


@aq.task
async def careful(ctx: Context) -> str:
    try:
        return await charge(5)
    except StepFailed:
        return "look"


async def test_a_step_that_fails_by_design_where_it_is_interrupted_is_named_with_what_to_say(caplog) -> None:
    with pytest.raises(Broken, match=r"step 'charge' is at_most_once and was interrupted: .* say fails=True"):
        await testing.crash_everywhere(invoice.bind())
    assert not [record for record in caplog.records if record.name == "agentq"], "of faults that were injected"
    report = await testing.crash_everywhere(invoice.bind(), fails=True)
    assert report.scenarios > 10
    with pytest.raises(Broken, match=r"step 'charge' is at_most_once and was interrupted: .* say same_result=False"):
        await testing.crash_everywhere(careful.bind())
    await testing.crash_everywhere(careful.bind(), same_result=False)


async def test_that_a_run_may_fail_excuses_no_other_end() -> None:
    @aq.task(name="other-each-time")
    async def other(ctx: Context) -> int:
        failures["other"] = failures.get("other", 0) + 1
        return failures["other"]

    with pytest.raises(Broken, match="undisturbed it ends as") as broken:
        await testing.crash_everywhere(other.bind(), fails=True)
    assert "at_most_once" not in str(broken.value)

"""Steps that may happen at most once: what is decided about one that began and whose end nobody recorded."""

from collections.abc import Callable
from typing import Any

import pytest

from agentq import AgentQ, Context, Retry, Signal, StepFailed
from agentq.errors import DeclarationError
from agentq.message import EntryKind, RunState
from tests.helpers.lab import Calls, Doubtful, lab

pytestmark = pytest.mark.usefixtures("each_store")

ONE = Retry(max_attempts=1)


def app(on_interrupt: Any, **options: Any) -> tuple[AgentQ, Any, Calls, Callable[[Any], None]]:
    aq, calls = AgentQ("t"), Calls()
    crash: list[Any] = []

    @aq.step(effect="at_most_once", on_interrupt=on_interrupt, **options)
    async def pay(amount: int) -> str | None:
        calls.append(amount)
        if len(calls) == 1 and crash:
            await crash[0]()
        return "paid"

    @aq.task(retry=ONE)
    async def task(ctx: Context) -> Any:
        try:
            return await pay(5)
        except StepFailed as error:
            return [error.type, error.failure.permanent]

    return aq, task, calls, crash.append


async def test_it_is_marked_before_its_body_runs_and_replayed_like_any_other() -> None:
    aq, task, calls, _ = app("fail")
    async with lab(aq) as bench:
        run = await bench.finish(task.bind())
        assert await bench.result(run.id) == "paid"
        assert await bench.shape(run.id) == [("started", "pay"), ("done", "pay")]
        assert calls == [5]


@pytest.mark.parametrize(
    ("policy", "result", "times", "shape"),
    [
        ("fail", ["StepInterrupted", True], 1, ["started", "failed"]),
        ("skip", None, 1, ["started", "done"]),
        ("retry", "paid", 2, ["started", "started", "done"]),
    ],
)
async def test_one_that_was_interrupted_is_decided_by_its_policy_and_the_decision_is_recorded(
    policy: str, result: Any, times: int, shape: list[str]
) -> None:
    aq, task, calls, crash = app(policy)
    async with lab(aq) as bench:
        crash(bench.die_here)
        run = await bench.finish(task.bind())
        assert await bench.result(run.id) == result
        assert len(calls) == times
        assert [kind for kind, _ in await bench.shape(run.id)] == shape


@pytest.mark.parametrize(
    ("answer", "result", "times"), [("retry", "paid", 2), ("skip", None, 1), ("fail", ["StepInterrupted", True], 1)]
)
async def test_a_person_may_be_asked(answer: str, result: Any, times: int) -> None:
    aq, task, calls, crash = app("ask")
    async with lab(aq) as bench:
        crash(bench.die_here)
        run_id = await bench.submit(task.bind())
        await bench.settle()
        assert await bench.state(run_id) is RunState.WAITING
        (asked,) = (await bench.handle(run_id).status()).waiting_for
        assert asked.signal == "resolve:pay"
        assert asked.ask is not None
        assert "may have happened" in asked.ask
        assert len(calls) == 1
        decide = Signal("resolve:pay", str)
        await bench.send(run_id, decide, "nonsense", "1")
        await bench.settle()
        assert await bench.state(run_id) is RunState.WAITING
        await bench.send(run_id, decide, answer, "2")
        await bench.settle()
        assert await bench.result(run_id) == result
        assert len(calls) == times


def test_a_result_that_cannot_be_none_cannot_be_skipped() -> None:
    aq = AgentQ("t")
    with pytest.raises(DeclarationError, match="None"):

        @aq.step(effect="at_most_once", on_interrupt="skip")
        async def pay() -> str:
            return "paid"


async def test_a_person_is_not_offered_to_skip_what_cannot_be_none() -> None:
    aq, calls = AgentQ("t"), Calls()
    crash: list[Any] = []

    @aq.step(effect="at_most_once", on_interrupt="ask")
    async def pay() -> str:
        calls.append(1)
        if len(calls) == 1:
            await crash[0]()
        return "paid"

    @aq.task(retry=ONE)
    async def task(ctx: Context) -> str:
        return await pay()

    async with lab(aq) as bench:
        crash.append(bench.die_here)
        run_id = await bench.submit(task.bind())
        await bench.settle()
        (asked,) = (await bench.handle(run_id).status()).waiting_for
        assert "skip" not in (asked.ask or "")
        for number, answer in enumerate(["skip", "retry"]):
            await bench.send(run_id, Signal("resolve:pay", str), answer, str(number))
            await bench.settle()
        assert await bench.result(run_id) == "paid"


async def test_a_failure_of_its_body_is_known_and_follows_the_retry_policy() -> None:
    aq, calls = AgentQ("t"), Calls()

    @aq.step(effect="at_most_once", retry=Retry(max_attempts=2))
    async def pay() -> str:
        calls.append(1)
        if len(calls) == 1:
            raise ConnectionError("refused")
        return "paid"

    @aq.task(retry=ONE)
    async def task(ctx: Context) -> str:
        return await pay()

    async with lab(aq) as bench:
        run = await bench.finish(task.bind())
        assert await bench.result(run.id) == "paid"
        assert [kind for kind, _ in await bench.shape(run.id)] == ["started", "tried", "started", "done"]


async def test_an_unknown_outcome_of_the_mark_does_not_run_the_body_twice() -> None:
    aq, task, calls, _ = app("fail")
    async with lab(aq) as bench:
        bench.store = Doubtful(bench.store, iter(["lost", "refused", "lost"]))
        run = await bench.finish(task.bind())
        assert await bench.result(run.id) == "paid"
        assert calls == [5]
        assert len(await bench.names(run.id, EntryKind.STARTED)) == 1

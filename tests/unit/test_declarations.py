"""What is declared or given wrongly is refused where it is written, and the message says what to write."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any

import pytest

from agentq import AgentQ, Context, InvalidArgument
from agentq.errors import DeclarationError

aq = AgentQ("t")


@aq.task
async def task(ctx: Context) -> None: ...


@pytest.mark.parametrize(
    ("options", "field"),
    [
        ({"priority": "high"}, "priority"),
        ({"priority": True}, "priority"),
        ({"tags": {"a": 1}}, "tags"),
        ({"tags": ["a"]}, "tags"),
        ({"deadline": 10}, "deadline"),
        ({"deadline": timedelta(0)}, "deadline"),
        ({"timeout": 3}, "timeout"),
        ({"delay": "5s"}, "delay"),
        ({"delay": timedelta(-1)}, "delay"),
        ({"key": 5}, "key"),
        ({"key": ""}, "key"),
        ({"tenant": 5}, "tenant"),
        ({"at": "tomorrow"}, "at"),
        ({"at": datetime(2030, 1, 1)}, "at"),  # noqa: DTZ001 - without a zone is the point
        ({"max_attempts": 0}, "max_attempts"),
        ({"max_attempts": 1.5}, "max_attempts"),
    ],
)
def test_a_wrong_option_is_named(options: dict[str, Any], field: str) -> None:
    with pytest.raises(InvalidArgument, match=f"^{field}: "):
        task.options(**options)


def test_no_delay_is_at_once_and_tags_add_up() -> None:
    bound = task.options(delay=timedelta(0), tags={"a": "1"}).options(tags={"b": "2"}).bind()
    assert (bound.call.delay_s, bound.call.tags) == (0.0, {"a": "1", "b": "2"})


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"retry": 3}, "retry=3 must be a Retry"),
        ({"timeout": 3}, "timeout=3 must be a timedelta"),
        ({"retries": 3}, "did you mean retry"),
        ({"on_interrupt": "ask"}, "only with effect='at_most_once'"),
        ({"effect": "exactly_once"}, "'at_least_once', 'at_most_once' or 'transactional'"),
    ],
)
def test_a_wrong_step_is_refused_when_it_is_declared(options: dict[str, Any], words: str) -> None:
    with pytest.raises(DeclarationError, match=words):

        @aq.step(**options)
        async def step() -> None: ...


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"retry": 3}, "retry=3 must be a Retry"),
        ({"timeout": 3}, "timeout=3 must be a timedelta"),
        ({"budget": 3}, "budget=3 must be a Budget"),
        ({"retries": 3}, "did you mean retry"),
    ],
)
def test_a_wrong_task_is_refused_when_it_is_declared(options: dict[str, Any], words: str) -> None:
    with pytest.raises(DeclarationError, match=words):

        @aq.task(**options)
        async def other(ctx: Context) -> None: ...


def test_a_task_is_no_step_and_a_step_no_task() -> None:
    with pytest.raises(DeclarationError, match="no step"):
        aq.step(task)  # type: ignore[arg-type]

    @aq.step
    async def step(ctx: Context) -> None: ...

    with pytest.raises(DeclarationError, match="step already"):
        aq.task(step)

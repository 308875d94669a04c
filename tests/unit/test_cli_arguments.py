import io
import sys
from dataclasses import dataclass
from datetime import date
from enum import Enum
from types import SimpleNamespace
from typing import Annotated, Any, Literal

import pytest

from agentq.cli.arguments import called_with, convert, parse_arguments, usage
from agentq.cli.problem import Problem
from agentq.codec import Arguments


class Colour(Enum):
    RED = "red"


@dataclass(frozen=True)
class Range:
    low: int
    high: int


async def report(
    ctx: Any,
    topic: str,
    limit: int = 3,
    *,
    deep: bool = False,
    rate: float | None = None,
    tags: list[str] | None = None,
    when: date | None = None,
    colour: Colour = Colour.RED,
    span: Range | None = None,
    free: Any = None,
    mode: Literal["fast", "slow"] = "fast",
    noted: Annotated[str, "a note"] = "",
) -> None: ...


TASK = SimpleNamespace(name="report", fn=report, arguments=Arguments(report, skip=1))


def test_words_become_what_the_annotations_say():
    got = parse_arguments(
        TASK,
        [
            "topic=k8s",
            "limit=5",
            "deep=yes",
            "rate=0.5",
            "when=2030-01-31",
            "colour=red",
            'span={"low": 1, "high": 2}',
            "mode=slow",
        ],
    )
    assert got == {
        "topic": "k8s",
        "limit": 5,
        "deep": True,
        "rate": 0.5,
        "when": date(2030, 1, 31),
        "colour": Colour.RED,
        "span": Range(1, 2),
        "mode": "slow",
    }


@pytest.mark.parametrize("text", ["5", "true", "null", '{"a": 1}', "a=b", ""])
def test_a_text_stays_a_text_whatever_it_looks_like(text):
    assert parse_arguments(TASK, [f"topic={text}", f"noted={text}"]) == {"topic": text, "noted": text}


def test_none_and_lists():
    assert parse_arguments(TASK, ["topic=x", "rate=null"])["rate"] is None
    assert parse_arguments(TASK, ["topic=x", "tags=a"])["tags"] == ["a"]
    assert parse_arguments(TASK, ["topic=x", "tags=a", "tags=b"])["tags"] == ["a", "b"]
    assert parse_arguments(TASK, ["topic=x", 'tags=["a", "b"]'])["tags"] == ["a", "b"]


def test_a_parameter_of_any_type_takes_json_or_text():
    assert parse_arguments(TASK, ["topic=x", "free=[1, 2]"])["free"] == [1, 2]
    assert parse_arguments(TASK, ["topic=x", "free=hello"])["free"] == "hello"


def test_a_json_object_is_taken_whole_also_from_stdin(monkeypatch):
    assert parse_arguments(TASK, ['{"topic": "k8s", "limit": 5}']) == {"topic": "k8s", "limit": 5}
    monkeypatch.setattr(sys, "stdin", SimpleNamespace(buffer=io.BytesIO(b'{"topic": "k8s"}')))
    assert parse_arguments(TASK, ["-"]) == {"topic": "k8s"}


@pytest.mark.parametrize(
    ("word", "field"), [("limit=many", "limit"), ("deep=maybe", "deep"), ("when=soon", "when"), ("mode=x", "mode")]
)
def test_a_value_that_does_not_fit_names_the_field(word, field):
    with pytest.raises(Problem, match=field) as refused:
        parse_arguments(TASK, ["topic=x", word])
    assert refused.value.exit_code == 2
    assert "[colour=<red>]" in refused.value.hint


def test_a_missing_argument_is_named():
    with pytest.raises(Problem, match="report needs topic") as refused:
        parse_arguments(TASK, ["limit=3"])
    assert (refused.value.exit_code, refused.value.hint) == (2, usage(TASK))


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["topik=k8s"], "did you mean topic?"),
        (["k8s"], "write name=value"),
        (["topic=a", "topic=b"], "given twice"),
        (["{not json"], "no JSON object"),
        (["[1]"], "write name=value"),
    ],
)
def test_what_cannot_be_meant_is_refused_with_a_remedy(words, said):
    with pytest.raises(Problem) as refused:
        parse_arguments(TASK, words)
    assert said in f"{refused.value.message} {refused.value.hint}"


def test_usage_shows_names_and_types():
    assert usage(TASK) == (
        "report topic=<str> [limit=<int>] [deep=<bool>] [rate=<float|null>] [tags=<list[str]|null>] [when=<date|null>] "
        "[colour=<red>] [span=<Range|null>] [free=<Any>] [mode=<fast|slow>] [noted=<str>]"
    )


@pytest.mark.parametrize(("text", "value"), [("true", True), ("no", False), ("1", True), ("perhaps", "perhaps")])
def test_booleans_have_many_names(text, value):
    assert convert(bool, text) == value


async def open_ended(ctx: Any, first: str = "f", *many: int, **more: bool) -> None: ...


def test_many_arguments_and_any_names():
    task = SimpleNamespace(name="open_ended", fn=open_ended, arguments=Arguments(open_ended, skip=1))
    assert parse_arguments(task, ["first=1", "many=1", "many=2", "other=yes"]) == {"first": "1", "many": [1, 2], "other": True}
    assert parse_arguments(task, ["first=1", "many=[1, 2]"])["many"] == [1, 2]
    assert parse_arguments(task, ['{"first": "1", "many": [3], "z": false}']) == {"first": "1", "many": [3], "z": False}
    assert usage(task) == "open_ended [first=<str>] [many=<list[int]>] [NAME=<bool>]"
    assert called_with(task, {"first": "1", "many": [1, 2], "z": True}) == (("1", 1, 2), {"z": True})
    assert called_with(task, {"many": [1]}) == (("f", 1), {})
    assert called_with(task, {"first": "1", "many": []}) == ((), {"first": "1"})
    assert called_with(TASK, {"topic": "x"}) == ((), {"topic": "x"})

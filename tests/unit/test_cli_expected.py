"""What the command line says about an answer that a run waits for."""

import enum
from dataclasses import dataclass
from datetime import datetime
from typing import Annotated, Literal, TypedDict

import msgspec
import pydantic
import pytest

from agentq import Signal
from agentq.cli.expected import NO_TYPE, answering, example, in_question
from agentq.message import Wait, WaitKind


class Mood(enum.Enum):
    good = "good"
    bad = "bad"


@dataclass
class Verdict:
    ok: bool
    by: str
    notes: list[int]
    mood: Mood | None = None


class Review(msgspec.Struct, rename="camel"):
    star_count: int
    when: datetime


class Point(TypedDict):
    x: float


class Page(pydantic.BaseModel):
    title: str
    at: Verdict


class Even(pydantic.BaseModel):
    n: Annotated[int, pydantic.Field(multiple_of=2)]


def wait(ask=None, ref="approved"):
    return Wait(branch="", step=f"ctx.wait_for:{ref}", occurrence=0, kind=WaitKind.SIGNAL, ref=ref, ask=ask)


@pytest.mark.parametrize(
    ("kind", "json"),
    [
        (bool, "true"),
        (int, "1"),
        (str, "text"),
        (Literal["yes", "no"], '"yes"'),
        (Mood, '"good"'),
        (Verdict, '{"ok":true,"by":"text","notes":[1],"mood":"good"}'),
        (Review, '{"starCount":1,"when":"2030-01-31T18:00:00Z"}'),
        (Point | None, '{"x":1.5}'),
        (Page, '{"title":"text","at":{"ok":true,"by":"text","notes":[1],"mood":"good"}}'),
        (Even, None),
        (bytes, None),
    ],
)
def test_an_example_is_made_up_from_the_type_and_fits_it(kind, json):
    assert example(Signal("approved", kind)) == json


@pytest.mark.parametrize(
    ("ask", "json"),
    [
        ('Publish? {"ok": true, "by": "you"}', '{"ok": true, "by": "you"}'),
        ("Publish {draft}?", None),
        ('Publish {draft}? {"ok": true}.', '{"ok": true}'),
        ("Publish {} pages [1]?", None),
        (None, None),
    ],
)
def test_a_question_may_say_what_it_expects(ask, json):
    assert in_question(ask) == json


def test_the_command_can_be_copied_into_a_shell():
    assert answering("r1", wait('{"it\'s": "; rm -rf"}')) == ["""agentq runs signal r1 approved '{"it'"'"'s": "; rm -rf"}'"""]
    assert answering("r1", wait(ref="a b"), "true") == ["agentq runs signal r1 'a b' true"]
    assert answering("r1", wait(ref="resolve:pay")) == [
        "agentq runs signal r1 resolve:pay retry",
        "or skip, or fail, in place of retry",
    ]
    assert answering("r1", wait("Publish?")) == ["agentq runs signal r1 approved VALUE", NO_TYPE]

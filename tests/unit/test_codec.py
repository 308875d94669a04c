from __future__ import annotations

import collections
import datetime as dt
import enum
import subprocess
import sys
import uuid
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from decimal import Decimal
from pathlib import Path
from typing import Annotated, Any, Literal, NamedTuple, Never, Optional, Required, TypedDict, Union

import msgspec
import pydantic
import pydantic.dataclasses
import pytest

from agentq import codec as codec_module
from agentq.codec import codec_for
from agentq.errors import CodecError, DeclarationError, PayloadTooLarge


class Colour(enum.Enum):
    RED = "red"


@dataclass
class Source:
    url: str
    seen: dt.datetime | None = None


@dataclass
class Report:
    title: str
    sources: list[Source] = field(default_factory=list)


@dataclass
class LongReport(Report):
    appendix: str = ""


class Point(NamedTuple):
    x: int
    y: int


class Options(TypedDict, total=False):
    depth: int
    tags: set[str]


class Account(TypedDict):
    user: str


class Message(TypedDict, total=False):
    """As LLM clients declare theirs."""

    role: Required[Literal["user", "assistant"]]
    content: str | Iterable[str]
    tool_calls: Iterable[Options]


class Struct(msgspec.Struct):
    q: int


class Left(msgspec.Struct, tag="left"):
    a: int


class Right(msgspec.Struct, tag="right"):
    a: int


class Cat(pydantic.BaseModel):
    kind: Literal["cat"] = "cat"
    lives: int = pydantic.Field(9, alias="livesLeft")
    legs: int = pydantic.Field(4, serialization_alias="legCount")


class Kitten(Cat):
    weeks: int = 0


class Dog(pydantic.BaseModel):
    kind: Literal["dog"] = "dog"
    born: dt.date | None = None
    data: Any = None


@pydantic.dataclasses.dataclass
class Checked:
    positive: int

    @pydantic.field_validator("positive")
    @classmethod
    def _is_positive(cls, value: int) -> int:
        assert value > 0, "must be greater than 0"
        return value


class Login(pydantic.BaseModel):
    password: pydantic.SecretStr


UTC_NOON = dt.datetime(2026, 3, 1, 12, 0, 0, 123456, tzinfo=dt.UTC)

ROUND_TRIPS: list[tuple[Any, Any]] = [
    (None, {"a": [1, 2.5, "x", None, True]}),
    (Any, []),
    (object, "x"),
    (str, "žluť 🎉"),
    (int, 2**80),
    (float, 1.5),
    (bool, True),
    (type(None), None),
    (Never, None),
    (bytes, b"\x00\xff"),
    (Decimal, Decimal("0.10")),
    (uuid.UUID, uuid.UUID(int=5)),
    (Path, Path("a/b")),
    (Path | None, None),
    (Colour, Colour.RED),
    (dt.datetime, UTC_NOON),
    (dt.datetime, UTC_NOON.replace(tzinfo=None)),
    (dt.date, UTC_NOON.date()),
    (dt.time, UTC_NOON.time()),
    (dt.timedelta, dt.timedelta(days=-3, microseconds=1)),
    (set[str], {"a", "b"}),
    (frozenset[int], frozenset({1})),
    (tuple[int, str], (1, "a")),
    (tuple[int, ...], (1, 2, 3)),
    (dict[int, Source], {5: Source("u")}),
    (collections.OrderedDict[str, int], collections.OrderedDict(a=1)),
    (Point, Point(1, 2)),
    (Options, {"depth": 3, "tags": {"x"}}),
    (list[Options | Account | None], [{"user": "x"}, None, {"depth": 1}]),
    (Report, Report("t", [Source("u", UTC_NOON)])),
    (list[Report], [Report("t")]),
    (Optional[Report], Report("t")),  # noqa: UP045 - written so in older code
    (Struct, Struct(1)),
    (Left | Right, Right(2)),
    (Cat, Cat(livesLeft=3)),
    (Cat | Dog, Dog(born=UTC_NOON.date())),
    (Union[int, Cat], 5),  # noqa: UP007 - as above
    (list[Cat | Dog], [Dog(data={"x": [1]}), Cat()]),
    (dict[str, Report | Cat], {"a": Cat(), "b": Report("t")}),
    (Struct | Cat, Struct(4)),
    (Struct | Cat | None, Cat()),
    (Cat | bytes, b"\xff"),
    (int | uuid.UUID | dt.datetime, uuid.UUID(int=9)),
    (Literal["a", 1, True], True),
    (Annotated[int, pydantic.Field(gt=0)], 3),
    (list[Checked], [Checked(1)]),
    (Cat, Cat(livesLeft=2, legs=3)),
    (complex, 1j),
]


@pytest.mark.parametrize(
    ("annotation", "value"), ROUND_TRIPS, ids=lambda each: (repr(sorted(each)) if isinstance(each, set) else repr(each))[:40]
)
def test_what_was_written_is_read_back(annotation: Any, value: Any) -> None:
    codec = codec_for(annotation)
    raw, seen = codec.roundtrip(value)
    assert (codec.encode(value), codec.decode(raw)) == (raw, value)
    assert seen == value
    assert type(seen) is type(value)
    msgspec.json.decode(raw)  # it is JSON, whatever engine wrote it


def test_iterables_in_messages_are_read_back_as_lists() -> None:
    history: list[Any] = [
        {"role": "user", "content": "x"},
        {"role": "assistant", "content": ["y"], "tool_calls": [{"depth": 1}]},
    ]
    codec = codec_for(list[Message | Cat])
    _, seen = codec.roundtrip(history)
    assert seen == history
    assert codec.roundtrip(seen)[1] == history, "and written again"


@pytest.mark.parametrize(
    ("annotation", "value", "seen"),
    [
        (None, (1, 2), [1, 2]),
        (float, 1, 1.0),
        (Report, {"title": "t", "sources": [{"url": "u"}]}, Report("t", [Source("u")])),
        (Cat, {"livesLeft": 1}, Cat(livesLeft=1)),
        (Cat, {"lives": 1}, Cat(livesLeft=1)),
        (dt.datetime, "2026-03-01T12:00:00.123456Z", UTC_NOON),
        (tuple[int, ...], [1, 2], (1, 2)),
        (set[int], [1, 1], {1}),
        (bytes, bytearray(b"x"), b"x"),
        (Left | Right, {"type": "left", "a": 1}, Left(1)),
    ],
)
def test_plain_data_becomes_what_is_declared_and_both_sides_see_that(annotation: Any, value: Any, seen: Any) -> None:
    codec = codec_for(annotation)
    raw, now = codec.roundtrip(value)
    assert now == seen
    assert codec.decode(raw) == seen
    assert type(now) is type(seen)


@pytest.mark.parametrize(
    ("annotation", "value", "message"),
    [
        (Report, "text", r"\$: expected Report, got str"),
        (Cat, "text", r"\$: expected Cat, got str"),
        (Cat | Dog, 5, r"\$.*: expected .*Cat \| .*Dog, got int|\$\.Cat: "),
        (Struct | Cat, 5, r"\$: .*expected Struct, got int.*expected Cat, got int"),
        (type(None), 1, r"\$: expected None, got int"),
        (int, True, "expected int, got bool"),
        (int, "5", "expected int, got str"),
        (str, None, "expected str, got None"),
        (Report, Report("t", [Source(5)]), r"\$\.sources\[0\]\.url: expected `str`, got `int`"),  # type: ignore[arg-type]
        (list[Cat], [Cat(), {"lives": "many"}], r"\$\[1\]\.lives: .*integer.*, got str"),
        (Annotated[int, pydantic.Field(gt=0)], -1, "greater than 0"),
        (Annotated[int, msgspec.Meta(ge=0)], -1, ">= 0"),
        (Checked, {"positive": -1}, "greater than 0"),
        (Literal["a", "b"], "c", "'c'"),
        (Colour, "blue", "'blue'"),
    ],
)
def test_a_value_of_the_wrong_type_is_refused_with_path_expected_and_actual(annotation: Any, value: Any, message: str) -> None:
    with pytest.raises(CodecError, match=message):
        codec_for(annotation).encode(value)


@pytest.mark.parametrize(
    ("annotation", "value", "message"),
    [
        (None, Report("t"), r"\$: Report would come back as dict"),
        (None, {"a": [Struct(1)]}, r"\$\.a\[0\]: Struct would come back as dict"),
        (None, {"when": UTC_NOON}, r"\$\.when: datetime would come back as str"),
        (None, {"a": b"x"}, r"\$\.a: bytes would come back as str"),
        (None, [{1, 2}], r"\$\[0\]: set would come back as list"),
        (None, Point(1, 2), r"\$: Point would come back as list"),
        (None, {1: "x"}, r"\$\.1: .*keys of type int"),
        (dict[str, Any], {"a": Decimal("0.1")}, r"\$\.a: Decimal would come back as"),
        (str, b"hi", "bytes would come back as str"),
        (bytes, "aGk=", "str would come back as bytes"),
        (str, Path("x"), "PosixPath would come back as str"),
        (str, uuid.UUID(int=1), "UUID would come back as str"),
        (set[str], {b"x"}, "bytes would come back as str"),
        (Report, LongReport("t", [], "long"), r"\$: LongReport would come back as Report"),
        (list[Report], [Report("t"), LongReport("t")], r"\$\[1\]: LongReport would come back as Report"),
        (Cat, Kitten(weeks=3), r"\$: Kitten would come back as Cat"),
        (Report, {"title": "t", "titel": "x"}, r"\$\.titel: Report has no such field"),
        (Options, {"depth": 1, "deep": 2}, r"\$\.deep: no such field"),
        (Dog, Dog(data=Report("t")), r"\$\.data: Report would come back as dict"),
    ],
)
def test_what_would_be_lost_silently_is_refused_instead(annotation: Any, value: Any, message: str) -> None:
    with pytest.raises(CodecError, match=message):
        codec_for(annotation).encode(value)


def loop() -> list[Any]:
    ring: list[Any] = []
    ring.append(ring)
    return ring


@pytest.mark.parametrize(
    ("annotation", "value", "message"),
    [
        (float, float("nan"), r"\$: nan is no JSON number"),
        (float | None, float("inf"), r"\$: inf is no JSON number"),
        (None, {"a": [float("-inf")]}, r"\$\.a\[0\]: -inf is no JSON number"),
        (Dog, Dog(data={"x": float("nan")}), r"\$\.data\.x: nan is no JSON number"),
        (str, "\ud800", "surrogate"),
        (None, {"client": object()}, r"\$\.client: object has no JSON form"),
        (Dog, Dog(data=object()), r"\$\.data: object has no JSON form"),
        (None, {"f": len}, r"\$\.f: builtin_function_or_method has no JSON form"),
        (None, loop(), "contains itself"),
    ],
)
def test_what_json_has_no_form_for_is_refused_with_its_path(annotation: Any, value: Any, message: str) -> None:
    with pytest.raises(CodecError, match=message):
        codec_for(annotation).encode(value)


@pytest.mark.parametrize("annotation", [pydantic.SecretStr, list[pydantic.SecretStr], Login, dict[str, Login | None]])
def test_a_secret_is_refused_where_it_is_declared(annotation: Any) -> None:
    with pytest.raises(DeclarationError, match="secrets do not belong"):
        codec_for(annotation)


@pytest.mark.parametrize(
    ("annotation", "value"),
    [
        (None, [pydantic.SecretStr("hunter2")]),
        (None, {"a": pydantic.SecretStr("hunter2")}),
        (Dog, Dog(data=pydantic.SecretStr("hunter2"))),
    ],
)
def test_a_secret_that_hides_in_a_value_is_refused_and_not_shown(annotation: Any, value: Any) -> None:
    with pytest.raises(CodecError, match="secrets do not belong") as caught:
        codec_for(annotation).encode(value)
    assert "hunter2" not in str(caught.value)


@pytest.mark.parametrize("annotation", [Iterator[int], Struct | Iterator[int], type(len)])
def test_an_annotation_without_a_form_is_refused_when_it_is_declared(annotation: Any) -> None:
    with pytest.raises(DeclarationError, match="JSON"):
        codec_for(annotation)


@pytest.mark.parametrize(
    ("annotation", "raw", "message"),
    [
        (Report, b'{"sources":[]}', r"\$: .*missing required field `title`"),
        (Report, b'{"title":1}', r"\$\.title: expected `str`, got `int`"),
        (Cat, b'{"livesLeft":[]}', r"\$\.livesLeft: .*integer.*, got list"),
        (Cat, b'{"lives":"x","kind":"dog"}', "and 1 more"),
        (int, b"nonsense", r"\$: "),
        (int, b"", r"\$: "),
    ],
)
def test_what_was_not_written_by_us_is_checked_too(annotation: Any, raw: bytes, message: str) -> None:
    with pytest.raises(CodecError, match=message):
        codec_for(annotation).decode(raw)


def test_a_value_over_the_limit_is_refused_with_its_size(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(codec_module.typed, "MAX_PAYLOAD_BYTES", 2**20)
    codec = codec_for(str)
    assert codec.encode("x" * (2**20 - 2))
    with pytest.raises(PayloadTooLarge, match=r"2\.0 MiB.*over 1 MiB.*reference"):
        codec.encode("x" * 2**21)


def test_the_limit_is_64_mib() -> None:
    assert codec_module.MAX_PAYLOAD_BYTES == 64 * 1024 * 1024


def test_codecs_are_made_once() -> None:
    assert codec_for(list[Report]) is codec_for(list[Report])
    assert codec_for(None) is codec_for(Any)


def test_an_annotation_that_cannot_be_hashed_has_a_codec_all_the_same() -> None:
    assert codec_for(Annotated[int, {"unit": "s"}]).encode(1) == b"1"


def test_pydantic_is_imported_only_when_an_annotation_needs_it() -> None:
    program = """
import sys, dataclasses, typing, datetime
from agentq.codec import codec_for
@dataclasses.dataclass
class R:
    when: datetime.datetime
codec_for(list[R] | None).encode([R(datetime.datetime.now())])
assert "pydantic" not in sys.modules, "too early"
codec_for(typing.Union[int, complex])
assert "pydantic" in sys.modules, "not at all"
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_without_pydantic_the_error_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "agentq.codec.pydantic_engine", None)
    with pytest.raises(DeclarationError, match="pip install pydantic"):
        codec_for(dict[str, complex])

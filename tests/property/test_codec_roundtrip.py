"""Whatever is accepted comes back equal, of the same type, and is written the same way again."""

import datetime as dt
import enum
import uuid
from dataclasses import dataclass, field
from decimal import Decimal
from pathlib import PurePosixPath
from typing import Any

import msgspec
import pydantic
from hypothesis import given
from hypothesis import strategies as st

from agentq.codec import Arguments, codec_for
from agentq.errors import CodecError, InvalidArgument


class Level(enum.Enum):
    LOW = 1
    HIGH = 2


@dataclass
class Plain:
    text: str
    number: float
    when: dt.datetime | None = None
    inner: dict[str, bytes] = field(default_factory=dict)


class Struct(msgspec.Struct, tag=True):
    level: Level
    span: dt.timedelta
    amount: Decimal


class Other(msgspec.Struct, tag=True):
    path: PurePosixPath | None = None


class Model(pydantic.BaseModel):
    ids: list[uuid.UUID] = []
    day: dt.date | None = None
    anything: Any = None


texts = st.text(st.characters(codec="utf-8"))
numbers = st.floats(allow_nan=False, allow_infinity=False)
zones = st.sampled_from([None, dt.UTC, dt.timezone(dt.timedelta(hours=-5, minutes=-30))])
# a day from either end: msgspec turns an offset into UTC, which the first and the last moment have no room for
days = st.dates(dt.date(2, 1, 1), dt.date(9998, 1, 1))
times = st.builds(dt.datetime.combine, days, st.times(), zones)
json = st.recursive(
    st.none() | st.booleans() | st.integers() | numbers | texts,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(texts, inner, max_size=4),
    max_leaves=12,
)
plains = st.builds(Plain, texts, numbers, st.none() | times, st.dictionaries(texts, st.binary(), max_size=3))
structs = st.builds(
    Struct,
    st.sampled_from(Level),
    st.timedeltas(dt.timedelta(days=-100_000), dt.timedelta(days=100_000)),
    st.decimals(allow_nan=False, allow_infinity=False),
)
others = st.builds(Other, st.none() | st.builds(PurePosixPath, texts.filter(lambda text: "\0" not in text)))
models = st.builds(Model, ids=st.lists(st.uuids(), max_size=3), day=st.none() | st.dates(), anything=json)

typed = st.one_of(
    st.tuples(st.just(None), json),
    st.tuples(st.just(dict[str, Any]), st.dictionaries(texts, json, max_size=4)),
    st.tuples(st.just(Plain), plains),
    st.tuples(st.just(list[Plain | None]), st.lists(st.none() | plains, max_size=3)),
    st.tuples(st.just(Struct | Other), structs | others),
    st.tuples(st.just(dict[int, Struct]), st.dictionaries(st.integers(-(2**63), 2**63 - 1), structs, max_size=3)),
    st.tuples(st.just(Model), models),
    st.tuples(st.just(list[Model | int]), st.lists(models | st.integers(), max_size=3)),
    st.tuples(st.just(Struct | Model), structs | models),
    st.tuples(st.just(tuple[set[int], frozenset[str]]), st.tuples(st.sets(st.integers()), st.frozensets(texts))),
)


@given(typed)
def test_what_was_written_is_read_back_and_written_again(case: tuple[Any, Any]) -> None:
    annotation, value = case
    codec = codec_for(annotation)
    raw, seen = codec.roundtrip(value)
    assert seen == value
    assert type(seen) is type(value)
    assert codec.decode(raw) == value
    again, seen_again = codec.roundtrip(seen)
    assert seen_again == value
    assert len(again) == len(raw), "what is read back is written in the same form"


@given(
    st.recursive(
        json | plains | structs | models | times | st.binary() | st.floats(), lambda inner: st.lists(inner, max_size=3)
    )
)
def test_without_an_annotation_a_value_comes_back_equal_or_is_refused(value: Any) -> None:
    codec = codec_for(None)
    try:
        raw = codec.encode(value)
    except CodecError as error:
        assert str(error).startswith("$")  # noqa: PT017 - it need not be raised
    else:
        assert codec.decode(raw) == value


@given(st.binary(max_size=40) | st.builds(msgspec.json.encode, json))
def test_foreign_bytes_are_read_or_refused_and_nothing_else(raw: bytes) -> None:
    for annotation in (None, Plain, Struct | Other, Model, Struct | Model, list[int]):
        try:
            codec_for(annotation).decode(raw)
        except CodecError:
            continue


def call(one: str, two: int = 0, *, three: Any = None) -> None: ...


ARGUMENTS = Arguments(call)


@given(texts, st.integers(), json)
def test_a_call_is_the_same_however_it_is_made(one: str, two: int, three: Any) -> None:
    ways = [
        ((one, two), {"three": three}),
        ((one,), {"three": three, "two": two}),
        ((), {"three": three, "two": two, "one": one}),
    ]
    packed = {ARGUMENTS.pack(args, kwargs) for args, kwargs in ways}
    assert len(packed) == 1
    assert len({ARGUMENTS.digest(args, kwargs) for args, kwargs in ways}) == 1
    ((raw, _),) = packed
    assert ARGUMENTS.decode(raw) == {"one": one, "two": two, "three": three}


@given(st.dictionaries(st.sampled_from(["one", "two", "three", "four"]), json))
def test_foreign_arguments_are_read_or_refused_by_name(values: dict[str, Any]) -> None:
    try:
        ARGUMENTS.decode(msgspec.json.encode(values))
    except InvalidArgument as error:
        assert error.field.split(".")[0].split("[")[0] in {"one", "two", "three", "four"}  # noqa: PT017 - as above

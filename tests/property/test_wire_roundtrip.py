"""What is written is read back as it was; what is not fit is refused, by the words of the schema and never by a crash."""

import json
import math
from typing import Any

import hypothesis.strategies as st
import jsonschema
import msgspec
import pytest
from hypothesis import assume, example, given, settings

from agentq import wire
from agentq.errors import InvalidArgument
from agentq.message import Envelope, broker_run_id, keyed_run_id

END = 253_370_764_800
LATE = math.nextafter(END, 0)
VALIDATOR = jsonschema.Draft202012Validator(wire.schema())

characters = st.characters(exclude_characters="\0", codec="utf-8")
plain = st.characters(exclude_characters="".join(map(chr, [*range(32), 127])), codec="utf-8")
names = st.text(plain, min_size=1, max_size=255)
keys = st.text(characters, min_size=1, max_size=512)
seconds = st.floats(0, END, exclude_min=True, exclude_max=True)
ids = st.from_regex(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}", fullmatch=True)
traces = st.from_regex(r"0[0-9a-e]-[1-9a-f][0-9a-f]{31}-[0-9a-f]{15}[1-9a-f]-[0-9a-f]{2}", fullmatch=True)
leaves = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text()
json_values = st.recursive(leaves, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3))
arguments = st.dictionaries(st.text(), json_values, max_size=4).map(lambda args: json.dumps(args).encode())


def maybe(values: st.SearchStrategy) -> st.SearchStrategy:
    return st.none() | values


@st.composite
def envelopes(draw: st.DrawFn) -> Envelope:
    app, tenant, task, key = draw(names), draw(maybe(st.text(plain, min_size=1, max_size=512))), draw(names), draw(maybe(keys))
    return Envelope(
        id=draw(ids) if key is None else keyed_run_id(app, tenant, task, key),
        app=app,
        task=task,
        queue=draw(names),
        args=draw(arguments),
        args_hash=draw(st.text("0123456789abcdef", min_size=16, max_size=16)),
        submitted_at=draw(seconds),
        key=key,
        tenant=tenant,
        priority=draw(st.integers(-1_000_000, 1_000_000)),
        due_at=draw(maybe(seconds)),
        deadline=draw(maybe(seconds)),
        max_attempts=draw(maybe(st.integers(1, 1_000_000))),
        timeout_s=draw(maybe(seconds)),
        tags=draw(st.dictionaries(names, st.text(characters, max_size=1024), max_size=5)),
        traceparent=draw(maybe(traces)),
        ordering_key=draw(maybe(keys)),
    )


def read(body: bytes, app: str = "shop", attributes: dict[str, str] | None = None, sent_at: float | None = None) -> Envelope:
    arrived = wire.read(body=body, app=app, queue="q", delivery_id="d", attributes=attributes or {}, sent_at=sent_at, now=LATE)
    return arrived.envelope


@given(envelopes())
def test_what_is_written_is_read_back(sent):
    body = wire.write(sent)
    assert read(body, app=sent.app, attributes=wire.attributes(sent)) == sent
    VALIDATOR.validate(json.loads(body))


@given(envelopes(), st.binary(max_size=100))
def test_a_parcel_is_read_back_and_filled(sent, other):
    parcel = wire.parcel_of(sent.args, "store")
    body = wire.write(sent, parcel=parcel)
    arrived = wire.read(
        body=body, app=sent.app, queue="q", delivery_id="d", attributes=wire.attributes(sent), sent_at=None, now=LATE
    )
    assert arrived.parcel == parcel
    assert wire.filled(arrived, sent.args) == sent
    assume(other != sent.args)
    with pytest.raises(wire.Unreadable):
        wire.filled(arrived, other)


texts = st.sampled_from(
    ["", "a", "a\0", "a\x1f", "x\n", "-", "é" * 255, "k" * 256, "k" * 512, "k" * 513, "t" * 1024, "t" * 1025]
)
numbers = st.sampled_from(
    [-1, 0, 1, 1.0, 1.5, 2, -1_000_000, 1_000_000, 1_000_001, -1_000_001.0, END, END - 1, 1e-300, 10**30, 2**26]
)
parcels = st.fixed_dictionaries(
    {"sha256": st.sampled_from(["0" * 64, "0" * 63, "A" * 64, "0" * 64 + "\n"]), "bytes": numbers},
    optional={"place": st.sampled_from(["store", "s3://abc/k", "s3://abc", "s3://abc/k\n", "s3://ABC/k"]), "more": texts},
)
tags = st.dictionaries(texts, texts | numbers, max_size=3) | st.just({str(n): "" for n in range(64)})
too_many_tags = st.just({str(n): "" for n in range(65)})
FIELDS = sorted(wire.schema()["properties"])
mutations = st.dictionaries(
    st.sampled_from(FIELDS) | st.text(max_size=3),
    st.one_of(texts, numbers, st.booleans(), st.none(), parcels, tags, too_many_tags, json_values, st.just({}), names, seconds),
    max_size=4,
)


@settings(max_examples=400)
@given(mutations, st.sampled_from([{"task": "t"}, {"task": "t", "args": {"a": 1}}, {}]))
@example({"parcel": {"sha256": "0" * 64, "bytes": 5.0, "place": "store"}}, {"task": "t"})
@example({"parcel": {"sha256": "0" * 64, "bytes": 5, "place": "store"}, "args": None}, {"task": "t"})
@example({"tags": {"a": ""}, "v": 1.0}, {"task": "t"})
@example({"v": True}, {"task": "t"})
def test_the_schema_accepts_what_reading_accepts(mutation: dict[str, Any], base: dict[str, Any]) -> None:
    message = {**base, **mutation}
    if message.get("key") is not None:
        message.pop("id", None)  # that the two agree no schema can say
    accepted = VALIDATOR.is_valid(message)
    app = message.get("app")
    try:
        read(json.dumps(message).encode(), app=app if isinstance(app, str) else "shop")
    except wire.Unreadable as error:
        assert not accepted, error  # noqa: PT017 - as the schema has it
    else:
        assert accepted, list(VALIDATOR.iter_errors(message))


@given(envelopes(), st.data())
def test_damaged_bytes_are_read_or_refused(sent, data):
    body = bytearray(wire.write(sent))
    for _ in range(data.draw(st.integers(1, 4))):
        place = data.draw(st.integers(0, len(body)))
        body[place : place + data.draw(st.integers(0, 3))] = data.draw(
            st.binary(max_size=3)
            | st.sampled_from([b"\\ud800", b"[" * 5000, b"1e999", b"null", b"\0", b"\xef\xbb\xbf", b'"', b"}"])
        )
    try:
        found = read(bytes(body), app=sent.app)
    except wire.Unreadable as error:
        assert len(str(error)) < 600  # noqa: PT017 - it is read or refused
    else:
        assert isinstance(msgspec.json.decode(found.args), dict)


@given(
    st.binary(max_size=200),
    st.dictionaries(st.sampled_from(["tenant", "traceparent"]), st.text() | st.just("\ud800")),
    st.floats() | st.none(),
)
def test_any_bytes_beside_any_attributes_are_read_or_refused(body, attributes, sent_at):
    for each in (body, b'{"task":"t"}', b'{"task":"t","key":"k"}'):
        try:
            found = read(each, attributes=attributes, sent_at=sent_at)
        except wire.Unreadable:
            continue
        assert math.isfinite(found.submitted_at)
        wire.write(found)  # what is read is fit to be written


@given(st.text(max_size=600), st.text(max_size=600))
def test_writing_refuses_exactly_what_reading_would(key, tenant):
    try:
        sent = wire.write(
            Envelope(
                id="r",
                app="shop",
                task="t",
                queue="q",
                args=b"{}",
                args_hash="0",
                submitted_at=1,
                ordering_key=key,
                tenant=tenant,
            )
        )
    except InvalidArgument:
        with pytest.raises(wire.Unreadable):
            read(json.dumps({"task": "t", "ordering_key": key, "tenant": tenant}).encode())
    else:
        assert (read(sent).ordering_key, read(sent).tenant) == (key, tenant)


@given(st.dictionaries(st.text(), json_values, max_size=5), st.randoms())
def test_the_hash_of_arguments_ignores_order_and_blanks(args, random):
    shuffled = dict(random.sample(list(args.items()), len(args)))
    one, other = json.dumps(args).encode(), json.dumps(shuffled, indent=3, ensure_ascii=False).encode()
    assert wire.args_hash(one) == wire.args_hash(other)
    assert wire.same_args(one, other)
    assert not wire.same_args(one, json.dumps({**args, "new name": 1, "other": 2}).encode())


@given(st.text(), st.text())
def test_each_delivery_has_a_run_of_its_own(one, other):
    assert (broker_run_id(one) == broker_run_id(other)) is (one == other)

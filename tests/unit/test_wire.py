import json
from typing import Any

import jsonschema
import msgspec
import pytest

from agentq import wire
from agentq.errors import InvalidArgument
from agentq.message import Envelope, keyed_run_id
from agentq.wire.fields import FIELDS
from agentq.wire.kinds import misfit

NOW = 1_767_225_600.0
TRACE = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"
SHA = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"


def arrived(body: bytes | dict[str, Any], **about: Any) -> wire.Arrived:
    given = {"app": "shop", "queue": "reports", "delivery_id": "q/1", "attributes": {}, "sent_at": None, "now": NOW, **about}
    return wire.read(body=body if isinstance(body, bytes) else json.dumps(body).encode(), **given)


def read(body: bytes | dict[str, Any], **about: Any) -> Envelope:
    return arrived(body, **about).envelope


def refusal(body: bytes | dict[str, Any], **about: Any) -> str:
    with pytest.raises(wire.Unreadable) as caught:
        arrived(body, **about)
    return str(caught.value)


def envelope(**fields: Any) -> Envelope:
    base = {"id": "r1", "app": "shop", "task": "t", "queue": "reports", "args": b'{"a":1}', "args_hash": "0" * 16}
    return Envelope(**{**base, "submitted_at": NOW, **fields})


def test_a_foreign_producer_needs_to_say_little():
    assert read({"task": "report"}) == Envelope(
        id=wire.broker_run_id("q/1"),
        app="shop",
        task="report",
        queue="reports",
        args=b"{}",
        args_hash=wire.args_hash(b"{}"),
        submitted_at=NOW,
    )


def test_null_says_the_same_as_leaving_out():
    nothing = dict.fromkeys([*wire.schema()["properties"]])
    assert read({**nothing, "task": "report"}) == read({"task": "report"})


def test_unknown_fields_are_ignored_and_lineage_is_never_taken_from_outside():
    stranger = {"task": "t", "color": [1], "parent_id": "p", "root_id": "p", "fork_of": "p"}
    assert read(stranger) == read({"task": "t"})


def test_arguments_stay_the_bytes_that_they_are():
    raw = b'{ "b": 1.50, "a": "\\u0000\\u00e9" }'
    assert read(b'{"task":"t","args":' + raw + b"}").args == raw
    assert raw in wire.write(envelope(args=raw))


def test_what_is_at_its_default_is_not_written():
    assert list(json.loads(wire.write(envelope()))) == ["v", "app", "task", "queue", "args", "id", "submitted_at", "args_hash"]


def test_trace_and_tenant_travel_as_attributes():
    sent = envelope(tenant="acme", traceparent=TRACE)
    assert wire.attributes(sent) == {"tenant": "acme", "traceparent": TRACE}
    assert wire.attributes(envelope()) == {}
    assert read({"task": "t"}, attributes=wire.attributes(sent)).tenant == "acme"
    assert read({"task": "t"}, attributes=wire.attributes(sent)).traceparent == TRACE


def test_the_body_counts_where_an_attribute_contradicts_it():
    assert read({"task": "t", "tenant": "acme"}, attributes={"tenant": "other"}).tenant == "acme"
    other = TRACE.replace("4bf9", "4bf8")
    assert read({"task": "t", "traceparent": TRACE}, attributes={"traceparent": other}).traceparent == TRACE
    assert read({"task": "t", "traceparent": "?"}, attributes={"traceparent": other}).traceparent == other


@pytest.mark.parametrize(
    "trace", ["", "x", TRACE.upper(), TRACE + "-more", "ff" + TRACE[2:], "00-" + "0" * 32 + TRACE[35:], TRACE + "\n"]
)
def test_a_broken_trace_is_dropped_in_silence(trace):
    assert read({"task": "t"}, attributes={"traceparent": trace}).traceparent is None
    assert read({"task": "t", "traceparent": trace}).traceparent is None


def test_a_key_determines_the_run():
    given = read({"task": "t", "key": "k"}, attributes={"tenant": "acme"})
    assert given.id == keyed_run_id("shop", "acme", "t", "k")
    assert read({"task": "t", "key": "k", "id": given.id, "tenant": "acme"}).id == given.id
    assert refusal({"task": "t", "key": "k", "id": "mine"}).startswith("id: \"mine\" does not fit; the key 'k' makes it ")


def test_an_id_is_kept_and_its_absence_is_filled_from_the_delivery():
    assert read({"task": "t", "id": "7F-a.b_c"}).id == "7F-a.b_c"
    assert read({"task": "t"}, delivery_id="a").id != read({"task": "t"}, delivery_id="b").id


def test_queue_and_app_are_those_of_the_delivery_unless_given():
    assert read({"task": "t", "queue": "other"}).queue == "other"
    text = refusal({"task": "t", "app": "bank"})
    assert '"bank"' in text
    assert "'shop'" in text


@pytest.mark.parametrize(
    ("given", "sent_at", "kept"),
    [
        (None, None, NOW),
        (None, NOW - 5, NOW - 5),
        (NOW - 30, None, NOW - 30),
        (NOW + 3600, None, NOW),
        (NOW - 30, NOW - 5, NOW - 30),
        (NOW - 3, NOW - 5, NOW - 5),
        (NOW - 3600, NOW - 5, NOW - 5),
        (NOW + 3600, NOW - 5, NOW - 5),
        (NOW - 30, float("nan"), NOW - 30),
        (NOW - 30, -1.0, NOW - 30),
    ],
)
def test_a_clock_that_is_off_does_not_jump_the_queue(given, sent_at, kept):
    assert read({"task": "t", "submitted_at": given}, sent_at=sent_at).submitted_at == kept


def test_whole_numbers_may_be_written_as_floats():
    whole = read(b'{"task":"t","v":1.0,"priority":2.0,"max_attempts":1e1}')
    assert (whole.priority, whole.max_attempts) == (2, 10)
    assert type(whole.priority) is int


def test_of_a_field_given_twice_the_last_counts():
    assert read(b'{"task":"a","task":"b"}').task == "b"


NOT_JSON = {
    "nothing": b"",
    "text": b"hello",
    "list": b"[]",
    "byte order mark": b'\xef\xbb\xbf{"task":"t"}',
    "utf-16": '{"task":"t"}'.encode("utf-16"),
    "latin-1": b'{"task":"caf\xe9"}',
    "latin-1 in what is skipped": b'{"task":"t","other":"\xe9"}',
    "more after it": b'{"task":"t"}{}',
    "NaN": b'{"task":"t","priority":NaN}',
    "huge float": b'{"task":"t","priority":1e400}',
    "huge integer": b'{"task":"t","priority":' + b"9" * 5000 + b"}",
    "half a surrogate pair": b'{"task":"\\ud800"}',
    "the other half": b'{"task":"t","args":{"a":"\\udc00"}}',
    "bomb": b"[" * 100_000,
    "bomb in arguments": b'{"task":"t","args":{"a":' + b"[" * 100_000,
    "bomb in what is skipped": b'{"task":"t","other":' + b"[" * 100_000,
    "closed bomb": b'{"task":"t","args":{"a":' + b"[" * 100_000 + b"]" * 100_000 + b"}}",
    "raw control character": b'{"task":"a\nb"}',
}


@pytest.mark.parametrize("body", NOT_JSON.values(), ids=NOT_JSON)
def test_what_is_no_json_object_is_refused_with_an_example_at_hand(body):
    text = refusal(body)
    assert text.startswith("message: ")
    assert "send one JSON object in UTF-8 without a byte order mark; `agentq schema --example` prints one" in text


def test_a_message_over_the_limit_is_not_even_parsed():
    assert refusal(b" " * (64 * 2**20 + 1)) == "message: 67108865 bytes does not fit; the limit is 67108864"


TOO_MANY = {str(n): "" for n in range(65)}
REFUSED: list[tuple[dict[str, Any], str]] = [
    ({}, 'task is missing; give the name of the task to run, such as "task": "report"'),
    ({"task": ""}, 'task: "" does not fit; give a string of 1 to 255 characters'),
    ({"task": 7}, "task: 7 does not fit; give a string of 1 to 255 characters"),
    ({"task": "a\tb"}, 'task: "a\\tb" does not fit; give a string without control characters'),
    ({"queue": "q" * 256}, "give a string of 1 to 255 characters"),
    ({"key": "k" * 513}, "give a string of 1 to 512 characters"),
    ({"key": "a\0b"}, 'key: "a\\u0000b" does not fit; give a string without NUL characters'),
    ({"tenant": "a\x1fb"}, 'tenant: "a\\u001fb" does not fit; give a string without control characters'),
    ({"tenant": ["acme"]}, 'tenant: ["acme"] does not fit; give a string of 1 to 512 characters'),
    ({"ordering_key": ""}, 'ordering_key: "" does not fit; give a string of 1 to 512 characters'),
    ({"id": "-x"}, "id: \"-x\" does not fit; give 1 to 64 letters, digits, '.', '_' or '-', the first a letter or digit"),
    ({"id": "x\n"}, 'id: "x\\n" does not fit; give 1 to 64 letters'),
    ({"id": "x" * 65}, "does not fit; give 1 to 64 letters"),
    ({"priority": True}, "priority: true does not fit; give a whole number from -1000000 to 1000000"),
    ({"priority": 1_000_001}, "priority: 1000001 does not fit; give a whole number from -1000000 to 1000000"),
    ({"priority": 0.5}, "priority: 0.5 does not fit; give a whole number from -1000000 to 1000000"),
    ({"priority": "7"}, 'priority: "7" does not fit; give a whole number from -1000000 to 1000000'),
    ({"max_attempts": 0}, "max_attempts: 0 does not fit; give a whole number from 1 to 1000000"),
    ({"timeout_s": 0}, "timeout_s: 0 does not fit; give seconds, a number over 0 and under 253370764800"),
    ({"timeout_s": False}, "timeout_s: false does not fit; give seconds, a number over 0 and under 253370764800"),
    ({"due_at": "tomorrow"}, 'due_at: "tomorrow" does not fit; give Unix seconds, a number over 0 and under 253370764800'),
    ({"due_at": 1_767_225_600_000}, "due_at: 1767225600000 does not fit; give Unix seconds"),
    ({"deadline": -1}, "deadline: -1 does not fit; give Unix seconds"),
    ({"submitted_at": 10**300}, "does not fit; give Unix seconds"),
    ({"tags": []}, "tags: [] does not fit; give an object of at most 64 strings"),
    ({"tags": TOO_MANY}, "give an object of at most 64 strings"),
    ({"tags": {"n": 1}}, "tags.n: 1 does not fit; give a string of 1 to 1024 characters"),
    ({"tags": {"": "x"}}, 'a name in tags: "" does not fit; give a string of 1 to 255 characters'),
    ({"args": []}, 'args: [] does not fit; give a JSON object, parameter name to value: {"topic": "k8s"}'),
    ({"args": "{}"}, 'args: "{}" does not fit; give a JSON object'),
    ({"args": False}, "args: false does not fit; give a JSON object"),
    ({"args_hash": ""}, 'args_hash: "" does not fit; give a string of 1 to 128 characters'),
    ({"v": 2}, "v: 2 does not fit; this agentq reads 1: upgrade the workers, and replay the letter after the upgrade"),
    ({"v": 2, "task": {"new": "form"}}, "replay the letter after the upgrade"),
    ({"v": 0}, "v: 0 does not fit"),
    ({"v": "1"}, 'v: "1" does not fit'),
    ({"v": True}, "v: true does not fit"),
    ({"parcel": 1}, "parcel: 1 does not fit; give an object of sha256, bytes, place"),
    ({"parcel": {"sha256": SHA, "bytes": 1}}, "parcel.place is missing; give an object of sha256, bytes, place"),
    ({"parcel": {"sha256": SHA.upper(), "bytes": 1, "place": "store"}}, "does not fit; give 64 lowercase hex digits"),
    (
        {"parcel": {"sha256": SHA, "bytes": 2**26 + 1, "place": "store"}},
        "parcel.bytes: 67108865 does not fit; give",
    ),
    ({"parcel": {"sha256": SHA, "bytes": 1, "place": "file:///etc/passwd"}}, 'parcel.place: "file:///etc/passwd" does not fit'),
    ({"parcel": {"sha256": SHA, "bytes": 1, "place": "store"}, "args": {}}, "there are args as well: give only one of the two"),
]


@pytest.mark.parametrize(("fields", "words"), REFUSED, ids=[words[:40] for _, words in REFUSED])
def test_a_refusal_names_the_field_the_value_and_the_remedy(fields, words):
    assert words in refusal(fields if "task" in fields or not fields else {"task": "t", **fields})


@pytest.mark.parametrize(
    ("body", "words"),
    [
        (
            b"",
            "message: (empty) does not fit; send one JSON object in UTF-8 without a byte order mark; ",
        ),
        (b"hello there", "message: hello there does not fit; send one JSON object"),
        (b'{"task": "\\ud800"}', "(half of a surrogate pair is no text)"),
        (b'{"task": "t"', "(Input data was truncated)"),
        (b"\xff\x00", "message: \\xff\\u0000 does not fit"),
    ],
)
def test_what_is_no_message_is_shown_as_it_came(body, words):
    said = refusal(body)
    assert words in said
    assert ("truncated" in said) == ("truncated" in words)


def test_numbers_that_are_out_of_range_in_arguments_are_refused_there():
    assert refusal(b'{"task":"t","args":{"a":1e400}}').startswith('args: {"a":1e400} does not fit; ')


def nested(depth: int) -> bytes:
    return b'{"a":' + b"[" * (depth - 1) + b"]" * (depth - 1) + b"}"


def test_arguments_may_be_nested_as_deep_as_every_reader_can_follow():
    assert read(b'{"task":"t","args":' + nested(200) + b"}").args == nested(200)
    assert "nest it at most 200 levels deep" in refusal(b'{"task":"t","args":' + nested(201) + b"}")
    assert read({"task": "t", "args": {"a": [[]] * 300, "b": "[{" * 300}}).args
    assert wire.write(envelope(args=nested(200)))
    with pytest.raises(InvalidArgument, match="nest it at most 200 levels deep"):
        wire.write(envelope(args=nested(201)))


@pytest.mark.parametrize("depth", [500, 900, *range(940, 1010)])
def test_near_the_end_of_the_stack_too_they_are_refused(depth):
    assert refusal(b'{"task":"t","args":' + nested(depth) + b"}")
    assert refusal(b'{"task":"t","priority":' + nested(depth) + b"}")
    came = arrived({"task": "t", "parcel": msgspec.structs.asdict(wire.parcel_of(nested(depth), "store"))})
    with pytest.raises(wire.Unreadable):
        wire.filled(came, nested(depth))


def test_a_hostile_attribute_is_a_refusal_too():
    assert refusal({"task": "t"}, attributes={"tenant": "\ud800"}).endswith("half of a surrogate pair is none")
    assert refusal({"task": "t"}, attributes={"tenant": "a\0"}).endswith("give a string without control characters")
    assert read({"task": "t"}, attributes={"tenant": ""}).tenant is None


def test_a_refusal_is_short_and_shows_no_secret():
    secret = "hunter2" * 100
    text = refusal({"task": "t", "key": f"postgresql://me:{secret}@host/db"})
    assert "hunter2" not in text
    assert len(refusal({"task": "t", "tags": [secret]})) < 300
    assert "hunter2" not in refusal(b'{"password": "hunter2"')
    assert len(refusal(b'{"task":"t","priority":' + b"9" * 4000 + b"}")) < 300


def test_a_value_that_cannot_be_shown_is_still_refused():
    deep: list[Any] = []
    for _ in range(100_000):
        deep = [deep]
    assert str(misfit("priority", deep, "give a number")) == "priority: this array does not fit; give a number"


def test_a_parcel_travels_in_the_place_of_arguments_and_is_filled():
    args = b'{"topic":"k8s"}'
    parcel = wire.parcel_of(args, "s3://bucket/prefix/key")
    body = wire.write(envelope(args=args), parcel=parcel)
    assert b"topic" not in body
    came = arrived(body)
    assert came.parcel == parcel
    assert came.envelope == envelope(args=b"")
    assert wire.filled(came, args) == envelope(args=args)
    assert wire.filled(arrived(wire.write(envelope())), args) == envelope(args=args)


def test_a_foreign_parcel_needs_no_hash_and_other_bytes_are_refused():
    args = b'{"b":1,"a":2}'
    came = arrived({"task": "t", "parcel": msgspec.structs.asdict(wire.parcel_of(args, "store"))})
    assert came.envelope.args_hash == ""
    assert wire.filled(came, args).args_hash == wire.args_hash(b'{"a":2,"b":1}')
    with pytest.raises(wire.Unreadable, match=r"7 bytes of sha256 [0-9a-f]{64} lie there: write them once"):
        wire.filled(came, b"changed")
    nothing = arrived({"task": "t", "parcel": msgspec.structs.asdict(wire.parcel_of(b"[]", "store"))})
    with pytest.raises(wire.Unreadable, match="give a JSON object, parameter name to value"):
        wire.filled(nothing, b"[]")


def test_what_no_reader_would_take_is_refused_before_it_is_sent():
    with pytest.raises(InvalidArgument, match=r"key: .* give a string of 1 to 512 characters"):
        wire.write(envelope(key="k" * 513))
    with pytest.raises(InvalidArgument, match=r"tags.n: .* give a string without NUL"):
        wire.write(envelope(tags={"n": "\0"}))


def test_arguments_are_the_same_however_they_are_written():
    one, other = b'{"a": "\xc3\xa9", "b": [1, {"d": 1, "c": 2}]}', b'{"b":[1,{"c":2,"d":1}],"a":"\\u00e9"}'
    assert wire.args_hash(one) == wire.args_hash(other)
    assert wire.same_args(one, other)
    assert not wire.same_args(one, b'{"a":1}')
    assert not wire.same_args(b'{"a":18446744073709551617}', b'{"a":18446744073709551618}')
    assert not wire.same_args(b"\xff", b"{}")
    assert wire.same_args(b"\xff", b"\xff")


def test_every_field_is_documented_by_an_example_that_fits():
    schema = wire.schema()
    jsonschema.Draft202012Validator.check_schema(schema)
    assert set(schema["properties"]) == {*FIELDS, "v", "args", "traceparent"}
    for name, about in schema["properties"].items():
        assert about["description"].endswith(".")
        for sample in about["examples"]:
            jsonschema.Draft202012Validator(about).validate(sample)
            assert arrived({"task": "t", name: sample}, app="shop")
    assert read(wire.example()).task == "report"


@pytest.mark.parametrize("off_s", [-3600.0, 0.0, 3600.0])
def test_a_delay_is_counted_by_the_clock_of_the_broker_and_not_of_the_sender(off_s: float) -> None:
    sent = wire.write(
        Envelope(
            id="r1", app="shop", task="t", queue="q", args=b"{}", args_hash="h", submitted_at=NOW + off_s,
            due_at=NOW + off_s + 300, delay_s=300, deadline=NOW + off_s + 900, deadline_s=900,
        )
    )  # fmt: skip
    arrived = wire.read(body=sent, app="shop", queue="q", delivery_id="d", attributes={}, sent_at=NOW, now=NOW + 1)
    assert (arrived.envelope.due_at, arrived.envelope.deadline) == (NOW + 300, NOW + 900)


def test_a_moment_that_was_given_stays_where_it_is() -> None:
    body = b'{"task": "t", "due_at": 1800000000, "deadline": 1800000900}'
    arrived = wire.read(body=body, app="shop", queue="q", delivery_id="d", attributes={}, sent_at=NOW, now=NOW)
    assert (arrived.envelope.due_at, arrived.envelope.deadline) == (1_800_000_000, 1_800_000_900)

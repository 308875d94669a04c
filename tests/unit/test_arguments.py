from __future__ import annotations

import datetime as dt
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec
import pydantic
import pytest

from agentq.codec import Arguments, digest, result_codec
from agentq.errors import DeclarationError, InvalidArgument, PayloadTooLarge

if TYPE_CHECKING:
    from agentq import Context


@dataclass
class Topic:
    name: str
    depth: int = 1


class Client:
    pass


async def report(ctx: Context, topic: Topic, since: dt.date | None = None, *, pages: int = 3) -> list[Topic]:
    raise NotImplementedError


def loose(head, /, second: int = 2, *files: Path, k=None, **extra: float):  # type: ignore[no-untyped-def]
    return head, second, files, k, extra


REPORT = Arguments(report, skip=1)
LOOSE = Arguments(loose)


def test_a_call_becomes_an_object_without_defaults_and_comes_back_typed() -> None:
    raw = REPORT.encode((Topic("k8s"),), {"pages": 5})
    assert raw == b'{"topic":{"name":"k8s","depth":1},"pages":5}'
    assert REPORT.decode(raw) == {"topic": Topic("k8s"), "pages": 5}


def test_the_same_call_is_written_the_same_way_however_it_is_made() -> None:
    day = dt.date(2026, 1, 2)
    assert REPORT.encode((Topic("a"), day), {}) == REPORT.encode((), {"since": day, "topic": Topic("a")})


@pytest.mark.parametrize(
    ("args", "kwargs", "message"),
    [
        ((), {}, r"^topic is missing; report\(topic, since, pages\) requires it"),
        (("k8s",), {}, "^topic: 'k8s' does not fit; expected Topic, got str"),
        ((Topic(5),), {}, r"^topic\.name: .*expected `str`, got `int`"),  # type: ignore[arg-type]
        ((Topic("a"),), {"pagse": 1}, "^pagse: 1 .*no parameter of this name"),
        ((Topic("a"), None, 3), {}, "^argument 3: 3 .*takes 2 by position"),
        ((Topic("a"),), {"topic": Topic("b")}, "^topic: .*given twice"),
        ((Topic("a"),), {"pages": float("nan")}, "^pages: nan .*no JSON number"),
    ],
)
def test_a_call_that_does_not_fit_is_refused_by_the_name_of_the_argument(
    args: tuple[Any, ...], kwargs: dict[str, Any], message: str
) -> None:
    with pytest.raises(InvalidArgument, match=message):
        REPORT.encode(args, kwargs)


@pytest.mark.parametrize(
    ("raw", "message"),
    [
        (b"[1]", "^arguments: .*JSON object"),
        (b"{", "^arguments: .*JSON object"),
        (b"{}", "^topic is missing; .*requires it"),
        (b'{"topic":{"name":1}}', r"^topic\.name: .*expected `str`, got `int`"),
        (b'{"topic":{"name":"a"},"x":1}', "^x: .*no parameter"),
    ],
)
def test_what_another_program_sent_is_checked_too(raw: bytes, message: str) -> None:
    with pytest.raises(InvalidArgument, match=message):
        REPORT.decode(raw)


def test_arguments_over_the_limit_are_refused_one_by_one_and_together(monkeypatch: pytest.MonkeyPatch) -> None:
    def two(a: str, b: str) -> None: ...

    monkeypatch.setattr("agentq.codec.typed.MAX_PAYLOAD_BYTES", 1000)
    monkeypatch.setattr("agentq.codec.arguments.MAX_PAYLOAD_BYTES", 1000)
    arguments = Arguments(two)
    with pytest.raises(PayloadTooLarge, match=r"^b: "):
        arguments.encode(("x", "x" * 1001), {})
    with pytest.raises(PayloadTooLarge, match=r"^arguments: "):
        arguments.encode(("x" * 600, "x" * 600), {})


@pytest.mark.parametrize(
    ("args", "kwargs"),
    [
        ((1,), {}),
        ((1, 2, Path("a"), Path("b")), {"k": [1]}),
        ((1,), {"second": 5, "z": 2.5}),
        ((1, 7), {"y": 1.0}),
    ],
)
def test_every_kind_of_parameter_makes_the_whole_way(args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
    values = LOOSE.decode(LOOSE.encode(args, kwargs))
    args_again, kwargs_again = LOOSE.spread(values)
    assert loose(*args_again, **kwargs_again) == loose(*args, **kwargs)


def test_a_gap_before_positional_arguments_is_filled_with_the_default() -> None:
    args, kwargs = LOOSE.spread(LOOSE.decode(b'{"head":1,"files":["a"]}'))
    assert loose(*args, **kwargs) == (1, 2, (Path("a"),), None, {})


def test_text_is_read_as_the_annotation_says() -> None:
    def task(name: str, count: int, day: dt.date, anything=None, maybe: str | None = None) -> None: ...  # type: ignore[no-untyped-def]

    arguments = Arguments(task)
    texts = {"name": "5", "count": "5", "day": "2026-01-02", "anything": "[1]", "maybe": "null"}
    values = {"name": "5", "count": 5, "day": dt.date(2026, 1, 2), "anything": [1], "maybe": None}
    assert arguments.parse(texts) == values
    assert arguments.parse({**texts, "anything": "k8s news", "maybe": "x"}) == {**values, "anything": "k8s news", "maybe": "x"}
    with pytest.raises(InvalidArgument, match=r"^count: 'many' .*expected `int`"):
        arguments.parse({**texts, "count": "many"})


def ask(prompt: str, model: str = "m", client: Client | None = None, options: Any = None) -> str:
    raise NotImplementedError


def test_a_digest_is_of_the_call_not_of_how_it_is_written() -> None:
    arguments = Arguments(ask, ignore=("client",))
    one = arguments.digest(("hi",), {"model": "x"})
    assert len(one) == 16
    assert one == arguments.digest((), {"model": "x", "prompt": "hi"})
    assert one == arguments.digest(("hi", "x", Client()), {}), "ignored"
    assert one != arguments.digest(("hi", "y"), {})
    assert one != arguments.digest(("x",), {"model": "hi"})
    plain = Arguments(ask)
    assert plain.digest(("hi", "x"), {}) == one, "on the fast path too"


def test_the_order_of_a_dict_or_a_set_does_not_change_a_digest_nor_a_hash() -> None:
    arguments = Arguments(ask)
    assert arguments.digest(("p",), {"options": {"a": 1, "b": 2}}) == arguments.digest(("p",), {"options": {"b": 2, "a": 1}})
    one, two = ({"a": 1, "b": [{"c": 1, "d": 2}]}, {"b": [{"d": 2, "c": 1}], "a": 1})
    (raw_one, hash_one), (raw_two, hash_two) = (arguments.pack(("p",), {"options": each}) for each in (one, two))
    assert hash_one == hash_two
    assert list(arguments.decode(raw_two)["options"]) == ["b", "a"], "but the order itself is kept"
    assert raw_one != raw_two
    assert hash_one != arguments.pack(("q",), {"options": one})[1]


def test_the_hash_is_of_the_value_that_is_seen_not_of_how_it_was_given() -> None:
    def task(tags: set[str], share: float) -> None: ...

    arguments = Arguments(task)
    assert arguments.pack((["b", "a"], 1), {})[1] == arguments.pack(({"a", "b"}, 1.0), {})[1]


def test_the_hash_of_a_set_is_the_same_in_every_process() -> None:
    program = (
        "from agentq.codec import Arguments\n"
        "def f(tags: set[str]): ...\n"
        "print(Arguments(f).pack(({'a', 'b', 'c', 'd', 'e'},), {})[1])"
    )
    hashes = {
        subprocess.run(
            [sys.executable, "-c", program], env={"PYTHONHASHSEED": str(seed)}, capture_output=True, text=True, check=True
        ).stdout
        for seed in (1, 2, 3)
    }
    assert len(hashes) == 1


class Model(pydantic.BaseModel):
    a: int


def test_a_digest_takes_any_value_that_has_a_form_whatever_the_annotation() -> None:
    arguments = Arguments(ask)
    calls = [Model(a=1), Model(a=2), Topic("x"), b"x", {1, 2}, dt.date(2026, 1, 1), Path("x"), 2**70]
    assert len({arguments.digest((each,), {}) for each in calls}) == len(calls)


def test_a_value_that_cannot_be_told_from_others_is_refused_with_the_remedy() -> None:
    with pytest.raises(InvalidArgument, match=r'^client: .*Client has no JSON form.*ignore=\("client",\)'):
        Arguments(ask).digest(("hi",), {"client": Client()})
    with pytest.raises(InvalidArgument, match=r"^options: .*secrets") as caught:
        Arguments(ask).digest(("hi",), {"options": [pydantic.SecretStr("hunter2")]})
    assert "hunter2" not in str(caught.value)


def test_ignoring_what_is_not_there_is_refused() -> None:
    with pytest.raises(DeclarationError, match="'clint', which is no parameter"):
        Arguments(ask, ignore=("clint",))


def test_local_classes_in_postponed_annotations_are_found() -> None:
    @dataclass
    class Local:
        a: int

    def declare(fn: Any) -> Arguments:
        arguments = Arguments(fn)
        arguments.check()
        return arguments

    @declare
    def task(one: Local, many: list[Local] | None = None) -> Local:
        raise NotImplementedError

    assert task.decode(task.encode((Local(1),), {"many": [Local(2)]})) == {"one": Local(1), "many": [Local(2)]}

    def gives() -> Local:
        raise NotImplementedError

    assert result_codec(gives).roundtrip(Local(3))[1] == Local(3)


def test_local_classes_that_a_function_closes_over_are_found_later_too() -> None:
    def factory() -> Any:
        @dataclass
        class Closed:
            a: int

        def task(one: Closed) -> Any:
            return Closed(one.a)

        return task

    assert Arguments(factory()).encode(({"a": 1},), {}) == b'{"one":{"a":1}}'


def test_an_annotation_that_cannot_be_resolved_names_the_parameter_when_it_is_needed() -> None:
    def task(ok: int, odd: Missing = None) -> Missing:  # type: ignore[name-defined] # noqa: F821
        raise NotImplementedError

    arguments = Arguments(task)
    assert arguments.digest((1,), {}), "a hash needs no annotation"
    with pytest.raises(DeclarationError, match=r"parameter 'odd' of .*task\(\).*Missing"):
        arguments.check()
    with pytest.raises(DeclarationError, match=r"the result of .*task\(\).*Missing"):
        result_codec(task)


def test_an_annotation_without_a_form_names_the_parameter() -> None:
    def task(client: Client) -> Client:
        raise NotImplementedError

    with pytest.raises(DeclarationError, match=r"parameter 'client' of .*task\(\): Client: neither"):
        Arguments(task).check()
    with pytest.raises(DeclarationError, match=r"the result of .*task\(\): Client: neither"):
        result_codec(task)


def test_skipped_parameters_may_be_annotated_with_what_only_a_type_checker_sees() -> None:
    REPORT.check()
    assert result_codec(report).encode([Topic("a")]) == b'[{"name":"a","depth":1}]'


def test_results_none_is_nothing_and_no_annotation_is_anything() -> None:
    def nothing() -> None: ...

    def anything():  # type: ignore[no-untyped-def]
        ...

    assert result_codec(nothing).encode(None) == b"null"
    with pytest.raises(ValueError, match="expected None, got str"):
        result_codec(nothing).encode("x")
    assert result_codec(anything).encode({"a": [1]}) == b'{"a":[1]}'


def test_digest_of_bytes() -> None:
    assert digest(b"") == "e4a6a0577479b2b4"


def test_a_foreign_object_may_spell_the_same_values_otherwise() -> None:
    raw = msgspec.json.encode({"pages": 5, "topic": {"depth": 1, "name": "k8s"}})
    ours = REPORT.pack((Topic("k8s"),), {"pages": 5})
    assert REPORT.pack((), REPORT.decode(raw)) == ours


def test_mappings_with_keys_that_are_no_text_tell_calls_apart() -> None:
    def fn(table: dict[int, str]) -> None: ...

    arguments = Arguments(fn)
    one, same, other = {1: "a", 2: "b"}, {2: "b", 1: "a"}, {1: "a", 2: "c"}
    assert arguments.digest((one,), {}) == arguments.digest((same,), {}) != arguments.digest((other,), {})
    raw, sign = arguments.pack((one,), {})
    assert arguments.decode(raw) == {"table": one}
    assert sign == arguments.pack((same,), {})[1]


def test_what_another_program_wrote_is_shown_as_a_value() -> None:
    def fn(n: int) -> None: ...

    with pytest.raises(InvalidArgument, match=r'^n: "x" does not fit'):
        Arguments(fn).decode(b'{"n":"x"}')
    with pytest.raises(InvalidArgument, match=r'^n: \{"a":\[null,true\]\} does not fit'):
        Arguments(fn).decode(b'{"n": {"a": [null, true]}}')
    with pytest.raises(InvalidArgument, match=r'^arguments: \["a:b:3"\] does not fit'):
        Arguments(fn).decode(b'["a:b:3"]')


def test_a_name_that_is_no_parameters_is_shown_with_its_value_and_the_one_that_was_meant() -> None:
    def process(document: str, needs_person: str = "no") -> None: ...

    said = r"process\(document, needs_person\) has no parameter of this name"
    with pytest.raises(InvalidArgument, match=rf"^extra: 5 does not fit; {said}$"):
        Arguments(process).decode(b'{"document": "x", "extra": 5}')
    with pytest.raises(InvalidArgument, match=rf"^need_person: true does not fit; {said}; did you mean needs_person\?$"):
        Arguments(process).decode(b'{"document": "x", "need_person": true}')


def test_a_default_spelt_out_is_the_same_call() -> None:
    def fn(topic: str, depth: int = 2) -> None: ...

    arguments = Arguments(fn)
    assert arguments.pack(("k8s",), {})[1] == arguments.pack(("k8s",), {"depth": 2})[1]
    assert arguments.pack(("k8s",), {})[1] != arguments.pack(("k8s",), {"depth": 3})[1]

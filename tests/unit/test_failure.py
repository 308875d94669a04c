import traceback

import pytest

from agentq import errors
from agentq.failure import MAX_MESSAGE_BYTES, MAX_TRACEBACK_BYTES, failure_from
from agentq.message import Failure
from agentq.retry import Retry


def raised(error: BaseException, cause: BaseException | None = None) -> BaseException:
    try:
        raise error from cause  # noqa: TRY301 - a traceback is what is wanted
    except BaseException as caught:  # noqa: BLE001 - whatever was given
        return caught


class Mine(Exception):
    pass


class Mute(Exception):
    def __str__(self) -> str:
        raise ZeroDivisionError


def test_type_is_qualified_unless_built_in() -> None:
    assert failure_from(ValueError("x")).type == "ValueError"
    assert failure_from(Mine("x")).type == f"{__name__}.Mine"
    main = type("Boom", (Exception,), {"__module__": "__main__"})
    assert failure_from(main()).type == "Boom", "a script and a module of the same code agree"


def test_message_notes_and_traceback_are_kept() -> None:
    error = Mine("went wrong")
    error.add_note("while reading page 3")
    failure = failure_from(raised(error, cause=KeyError("page")))
    assert failure.message == "went wrong\nwhile reading page 3"
    assert "KeyError: 'page'" in failure.traceback
    assert "The above exception was the direct cause" in failure.traceback
    assert "in raised" in failure.traceback


def test_frames_of_this_package_are_left_out_wherever_they_are() -> None:
    def through_the_package() -> BaseException:
        try:
            Retry(max_attempts=0)
        except errors.DeclarationError as error:
            return error
        raise AssertionError

    for error in (through_the_package(), raised(ExceptionGroup("g", [through_the_package()])),
                  raised(Mine(), cause=through_the_package())):  # fmt: skip
        assert "agentq/retry.py" in "".join(traceback.format_exception(error)), "else this proves nothing"
        shown = failure_from(error).traceback
        assert "agentq/retry.py" not in shown
        assert "test_failure.py" in shown


def test_long_texts_keep_both_ends_within_the_limits() -> None:
    failure = failure_from(raised(Mine("first " + "é" * 100_000 + " last")))
    assert len(failure.message.encode()) <= MAX_MESSAGE_BYTES
    assert failure.message.startswith("first ")
    assert failure.message.endswith(" last")
    assert len(failure.traceback.encode()) <= MAX_TRACEBACK_BYTES
    assert failure.traceback.startswith("Traceback")
    assert failure.traceback.rstrip().endswith(" last")


def test_an_error_that_cannot_say_what_it_is_is_recorded_all_the_same() -> None:
    failure = failure_from(raised(Mute()))
    assert failure.type.endswith("Mute")
    assert "ZeroDivisionError" in failure.message
    assert "Mute" in failure.traceback


def test_lone_surrogates_do_not_break_the_record() -> None:
    assert failure_from(Mine("\ud800")).message.encode()


@pytest.mark.parametrize(
    ("error", "permanent"),
    [
        (ValueError(), False),
        (errors.PermanentError(), True),
        (errors.BudgetExceeded(), True),
        (errors.CodecError(), True),
        (errors.InvalidArgument("a", 1, "b"), True),
        (errors.TemporaryError(), False),
        (errors.StepFailed("s", Failure(type="T", message="m", permanent=True)), True),
        (errors.StepFailed("s", Failure(type="T", message="m")), False),
        (errors.ChildFailed("r", "t", Failure(type="T", message="m", permanent=True)), True),
        (ExceptionGroup("g", [ValueError(), ExceptionGroup("h", [errors.PermanentError()])]), True),
        (ExceptionGroup("g", [ValueError()]), False),
    ],
)
def test_what_cannot_be_helped_by_another_try_is_permanent(error: BaseException, *, permanent: bool) -> None:
    assert failure_from(error).permanent is permanent


def test_retry_after_is_kept_through_steps_and_groups() -> None:
    assert failure_from(errors.TemporaryError(retry_after=7)).retry_after_s == 7.0
    assert failure_from(errors.StepFailed("s", Failure(type="T", message="m", retry_after_s=3.0))).retry_after_s == 3.0
    group = ExceptionGroup("g", [errors.TemporaryError(retry_after=2), errors.TemporaryError(retry_after=9), ValueError()])
    assert failure_from(group).retry_after_s == 9.0
    assert failure_from(ValueError()).retry_after_s is None


def test_members_of_a_group_are_shown() -> None:
    failure = failure_from(raised(ExceptionGroup("both", [ValueError("a"), Mine("b")])))
    assert failure.type == "ExceptionGroup"
    assert "ValueError: a" in failure.message
    assert "Mine: b" in failure.message
    assert "ValueError: a" in failure.traceback


def test_the_caller_says_where() -> None:
    failure = failure_from(ValueError(), step="ask", seq=4)
    assert (failure.step, failure.seq) == ("ask", 4)


def test_credentials_in_an_error_are_hidden() -> None:
    error = RuntimeError("GET https://user:hunter2@host/x?api_key=zzz: Authorization: Bearer sk-live-0123456789abcdef")
    failure = failure_from(error)
    for secret in ("hunter2", "zzz", "sk-live"):
        assert secret not in failure.message
        assert secret not in failure.traceback

from datetime import timedelta

import pytest

from agentq.errors import DeclarationError, PermanentError, TemporaryError
from agentq.failure import failure_from
from agentq.message import Failure
from agentq.retry import Retry, decide

PATIENT = Retry(max_attempts=100, initial=timedelta(seconds=2), factor=3.0, maximum=timedelta(seconds=60), jitter=0.5)


class RateLimited(Exception):
    pass


class VeryRateLimited(RateLimited):
    pass


def decided(policy: Retry, error: BaseException, attempt: int = 1, random: float = 0.0) -> float | None:
    return decide(policy, attempt, failure_from(error), error, random)


@pytest.mark.parametrize(("attempt", "delay"), [(1, 2.0), (2, 6.0), (3, 18.0), (4, 54.0), (5, 60.0), (99, 60.0)])
def test_the_delay_grows_by_the_factor_up_to_the_maximum(attempt: int, delay: float) -> None:
    assert decided(PATIENT, ValueError(), attempt) == delay


def test_jitter_only_shortens_and_by_its_share_at_most() -> None:
    assert decided(PATIENT, ValueError(), 1, random=0.5) == 1.5
    assert decided(PATIENT, ValueError(), 1, random=0.999999) == pytest.approx(1.0, abs=1e-5)


def test_a_delay_too_large_for_a_float_is_the_maximum() -> None:
    policy = Retry(max_attempts=10**6, factor=10.0)
    assert decided(policy, ValueError(), 10**5) == 300.0


def test_the_last_attempt_gives_up() -> None:
    policy = Retry(max_attempts=3, jitter=0)
    assert decided(policy, ValueError(), 2) == 2.0
    assert decided(policy, ValueError(), 3) is None
    assert decided(policy, ValueError(), 4) is None, "a budget of attempts that was lowered meanwhile"


def test_one_attempt_is_no_retry() -> None:
    assert decided(Retry(max_attempts=1), TemporaryError()) is None


def test_permanent_errors_give_up_also_when_only_their_record_is_left() -> None:
    assert decided(PATIENT, PermanentError("no")) is None
    assert decide(PATIENT, 1, Failure(type="x", message="", permanent=True), None, 0.0) is None


def test_what_the_error_asks_for_overrides_the_delay_unjittered_and_beyond_the_maximum() -> None:
    assert decided(PATIENT, TemporaryError(retry_after=3600), random=0.9) == 3600.0
    assert decided(PATIENT, TemporaryError(retry_after=-5)) == 0.0
    assert decided(Retry(max_attempts=2), TemporaryError(retry_after=1), attempt=2) is None, "attempts still count"


def test_give_up_on_matches_subclasses_and_names() -> None:
    by_class = Retry(give_up_on=(RateLimited,))
    assert decided(by_class, VeryRateLimited()) is None
    assert decided(by_class, ValueError()) is not None
    by_name = Retry(give_up_on=(f"{__name__}.RateLimited",))
    assert decided(by_name, RateLimited()) is None
    assert decided(by_name, VeryRateLimited()) is not None, "a name is exact"


def test_only_on_excludes_all_else_but_temporary_errors_which_ask_for_it() -> None:
    policy = Retry(only_on=(RateLimited, "OSError"))
    assert decided(policy, VeryRateLimited()) is not None
    assert decided(policy, OSError()) is not None
    assert decided(policy, ValueError()) is None
    assert decided(policy, TemporaryError()) is not None


def test_give_up_on_is_stronger_than_only_on() -> None:
    policy = Retry(only_on=(RateLimited,), give_up_on=(VeryRateLimited,))
    assert decided(policy, VeryRateLimited()) is None
    assert decided(policy, RateLimited()) is not None


@pytest.mark.parametrize(
    ("policy", "error", "retried"),
    [
        (Retry(give_up_on=(RateLimited,)), RateLimited(), False),
        (Retry(only_on=(RateLimited,)), RateLimited(), True),
        (Retry(only_on=(RateLimited,)), ValueError(), False),
        (Retry(only_on=(RateLimited,)), TemporaryError(), True),
        (Retry(), ValueError(), True),
    ],
)
def test_an_exception_that_died_with_its_process_is_judged_by_its_recorded_name(
    policy: Retry, error: Exception, *, retried: bool
) -> None:
    assert (decide(policy, 1, failure_from(error), None, 0.0) is not None) is retried


def test_a_group_is_judged_by_its_members() -> None:
    mixed = ExceptionGroup("two", [RateLimited(), ExceptionGroup("inner", [ValueError()])])
    assert decided(Retry(), mixed) is not None
    assert decided(Retry(give_up_on=(ValueError,)), mixed) is None
    assert decided(Retry(only_on=(RateLimited,)), mixed) is None, "only_on must cover every member"
    assert decided(Retry(only_on=(RateLimited, ValueError)), mixed) is not None
    assert decided(Retry(), ExceptionGroup("hopeless", [RateLimited(), PermanentError()])) is None


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("max_attempts", 0),
        ("max_attempts", 1.5),
        ("initial", timedelta(seconds=-1)),
        ("maximum", 60),
        ("factor", 0.5),
        ("factor", float("nan")),
        ("jitter", 1.1),
        ("give_up_on", ValueError),
        ("only_on", (ValueError(),)),
    ],
)
def test_a_policy_that_can_never_work_is_refused_by_the_name_of_its_field(field: str, value: object) -> None:
    with pytest.raises(DeclarationError, match=field):
        Retry(**{field: value})

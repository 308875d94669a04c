from decimal import Decimal

import pytest

from agentq.budget import Budget, Usage, exceeded, from_nanos, to_nanos
from agentq.errors import DeclarationError, InvalidArgument

BUDGET = Budget(steps=10, tokens=1000, cost_usd=Decimal("0.5"))


def test_using_a_budget_up_exactly_is_within_it() -> None:
    assert exceeded(BUDGET, Usage(10, 1000, 500_000_000)) is None


@pytest.mark.parametrize(
    ("usage", "message"),
    [
        (Usage(steps=11), "steps: 11 used, 10 allowed"),
        (Usage(tokens=1001), "tokens: 1001 used, 1000 allowed"),
        (Usage(cost_nanos=500_000_001), "cost_usd: 0.500000001 used, 0.5 allowed"),
    ],
)
def test_one_more_is_over_and_the_message_names_limit_and_use(usage: Usage, message: str) -> None:
    assert exceeded(BUDGET, usage) == message


def test_a_limit_of_zero_allows_nothing_and_no_limit_allows_everything() -> None:
    assert exceeded(Budget(steps=0), Usage(steps=1)) is not None
    assert exceeded(Budget(), Usage(10**9, 10**12, 10**18)) is None


def test_usage_adds_up_field_by_field() -> None:
    assert Usage(1, 2, 3) + Usage(10, 20, 30) == Usage(11, 22, 33)


@pytest.mark.parametrize(
    ("amount", "nanos"),
    [
        (Decimal("0.01"), 10_000_000),
        (0.1, 100_000_000),
        ("1.5", 1_500_000_000),
        (3, 3_000_000_000),
        (Decimal("0.0000000005"), 1),
        (Decimal("0.00000000049"), 0),
        (0, 0),
        (Decimal("999999999.999999999"), 999_999_999_999_999_999),
    ],
)
def test_money_becomes_whole_nano_dollars(amount: Decimal | float | str, nanos: int) -> None:
    assert to_nanos(amount) == nanos


def test_a_thousand_tenths_of_a_cent_are_exactly_a_dollar() -> None:
    assert from_nanos(sum(to_nanos(0.001) for _ in range(1000))) == 1


@pytest.mark.parametrize("amount", [-1, "x", float("nan"), float("inf"), Decimal("1e9"), Decimal("1e999999"), None])
def test_what_is_no_amount_is_refused(amount: float) -> None:
    with pytest.raises(InvalidArgument, match="cost_usd"):
        to_nanos(amount)


@pytest.mark.parametrize(("nanos", "text"), [(0, "0"), (1, "1E-9"), (10**9, "1"), (1_500_000_000, "1.5"), (10**11, "100")])
def test_nano_dollars_are_shown_without_trailing_zeros(nanos: int, text: str) -> None:
    assert str(from_nanos(nanos)) == text


@pytest.mark.parametrize(
    ("field", "value"), [("steps", -1), ("tokens", 1.5), ("cost_usd", Decimal(-1)), ("cost_usd", Decimal("NaN"))]
)
def test_a_limit_that_is_no_amount_is_refused_by_the_name_of_its_field(field: str, value: object) -> None:
    with pytest.raises(DeclarationError, match=field):
        Budget(**{field: value})

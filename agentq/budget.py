"""What a run may use and has used: steps, tokens and money, counted exactly."""

from __future__ import annotations

from dataclasses import dataclass
from decimal import ROUND_HALF_UP, Decimal, InvalidOperation

from agentq.errors import DeclarationError, InvalidArgument

NANOS = 10**9
_MAX_EXPONENT = 8
"""Under a billion dollars: sums of nano-dollars stay within the 64 bits of a database's integer."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Budget:
    """The most that a run may use over all its attempts; None is without limit."""

    steps: int | None = None
    """Steps executed, replays not counted."""
    tokens: int | None = None
    cost_usd: Decimal | None = None

    def __post_init__(self) -> None:
        """Refuse limits that are no amounts.

        Raises:
            DeclarationError: naming the field.
        """
        for name in ("steps", "tokens"):
            value = getattr(self, name)
            if value is not None and (not isinstance(value, int) or value < 0):
                raise DeclarationError(f"Budget.{name}: {value!r} must be a whole number of zero or more, or None")
        if self.cost_usd is not None:
            try:
                to_nanos(self.cost_usd)
            except InvalidArgument as error:
                raise DeclarationError(f"Budget.{error}") from None


@dataclass(frozen=True, slots=True)
class Usage:
    """What was used; add up with ``+``."""

    steps: int = 0
    tokens: int = 0
    cost_nanos: int = 0
    """Nano-dollars (1e-9 USD)."""

    def __add__(self, other: Usage) -> Usage:
        """Sum field by field."""
        return Usage(self.steps + other.steps, self.tokens + other.tokens, self.cost_nanos + other.cost_nanos)


def exceeded(budget: Budget, usage: Usage) -> str | None:
    """Name the first limit that ``usage`` is over, and both numbers; None when within the budget.

    Using up a budget exactly is within it, so before a step ask with ``usage + Usage(steps=1)``.
    """
    if budget.steps is not None and usage.steps > budget.steps:
        return f"steps: {usage.steps} used, {budget.steps} allowed"
    if budget.tokens is not None and usage.tokens > budget.tokens:
        return f"tokens: {usage.tokens} used, {budget.tokens} allowed"
    if budget.cost_usd is not None and usage.cost_nanos > to_nanos(budget.cost_usd):
        return f"cost_usd: {from_nanos(usage.cost_nanos)} used, {budget.cost_usd} allowed"
    return None


def to_nanos(amount: Decimal | float | str) -> int:
    """Whole nano-dollars of an amount in USD, halves rounded up. A float counts as what it prints (0.1 is a tenth).

    Raises:
        InvalidArgument: not a number, negative, not finite, or a billion dollars and more.
    """
    try:
        exact = amount if isinstance(amount, Decimal) else Decimal(str(amount))
    except InvalidOperation:
        raise InvalidArgument("cost_usd", amount, 'give an amount such as Decimal("0.01")') from None
    if not exact.is_finite() or exact < 0 or (exact and exact.adjusted() > _MAX_EXPONENT):
        raise InvalidArgument("cost_usd", amount, "give an amount from 0 to under 1,000,000,000 USD")
    return int((exact * NANOS).to_integral_value(rounding=ROUND_HALF_UP))


def from_nanos(nanos: int) -> Decimal:
    """The exact amount in USD, without trailing zeros."""
    whole, rest = divmod(nanos, NANOS)
    text = f"{whole}.{rest:09d}".rstrip("0").rstrip(".")
    return Decimal(text)

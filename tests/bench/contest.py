"""What a measurement is: named contenders, each run in a fresh process with an empty folder, several times; medians count."""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path

ROOT = Path(__file__).parents[2]
LIMIT_S = 300.0
"""No single repetition takes longer; one that does counts as failed."""

Numbers = dict[str, float]
Contender = Callable[[Path], Numbers]
"""Measures once. Gets an empty folder on a real disk, answers its numbers by name."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """A figure that agentq wants to reach."""

    number: str
    label: str
    bound: float
    unit: str
    at_least: bool = False
    """Whether more is better."""

    def met(self, value: float) -> bool:
        """Whether ``value`` reaches the bound."""
        return value >= self.bound if self.at_least else value <= self.bound

    @property
    def shown(self) -> str:
        """The bound as the table shows it."""
        return f"{'≥' if self.at_least else '≤'} {plain(self.bound)} {self.unit}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Measurement:
    """One question, asked of several contenders. The first contender is agentq."""

    name: str
    shape: str
    """What is measured and how, in one line."""
    contenders: dict[str, Contender]
    targets: tuple[Target, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Score:
    """What one contender reached: per number the values of all repetitions, or why there are none."""

    contender: str
    values: dict[str, list[float]] = field(default_factory=dict)
    error: str | None = None

    def median(self, number: str) -> float | None:
        """The middle of the repetitions; None if it was not measured."""
        values = self.values.get(number)
        return statistics.median(values) if values else None


def hold(measurement: Measurement, *, repeat: int, only: Iterable[str] | None = None) -> list[Score]:
    """Run the contenders in turn, ``repeat`` times, so that a slow minute of the machine hits all of them."""
    names = [name for name in measurement.contenders if only is None or name in only]
    values: dict[str, dict[str, list[float]]] = {name: {} for name in names}
    errors: dict[str, str] = {}
    for _ in range(repeat):
        for name in names:
            if name in errors:
                continue
            try:
                numbers = once(measurement.name, name)
            except ContestError as error:
                errors[name] = str(error)
                continue
            for number, value in numbers.items():
                values[name].setdefault(number, []).append(value)
    return [Score(contender=name, values=values[name], error=errors.get(name)) for name in names]


class ContestError(Exception):
    """A contender did not finish."""


def once(measurement: str, contender: str) -> Numbers:
    """Measure once in a fresh process.

    Raises:
        ContestError: the process failed or took too long; the message ends with what it said last.
    """
    with tempfile.TemporaryDirectory(prefix="bench-", dir=os.environ.get("BENCH_FOLDER")) as folder:
        command = [sys.executable, "-m", "tests.bench.once", measurement, contender, folder]
        environment = {name: value for name, value in os.environ.items() if not name.startswith("AGENTQ_")}
        environment["AGENTQ_STORE"] = f"sqlite:///{folder}/bench.db"
        try:
            done = subprocess.run(
                command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=LIMIT_S, check=False
            )
        except subprocess.TimeoutExpired:
            raise ContestError(f"took longer than {LIMIT_S:g} s") from None
    if done.returncode:
        raise ContestError((done.stderr or done.stdout).strip()[-600:] or f"exit {done.returncode}")
    numbers: Numbers = json.loads(done.stdout.strip().splitlines()[-1])
    return numbers


def quantile(values: list[float], share: float) -> float:
    """The value below which ``share`` of ``values`` lies (nearest rank)."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, round(share * (len(ordered) - 1)))]


def plain(value: float) -> str:
    """A number with the digits that mean something: 12,345 / 12.3 / 0.123."""
    if abs(value) >= 100:
        return f"{value:,.0f}"
    return f"{value:.3g}"

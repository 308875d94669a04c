"""The benchmark judges and prints what it was given; whether the figures are reached is for the benchmark itself."""

from pathlib import Path

import pytest

from tests.bench import contest
from tests.bench.__main__ import _document, _markdown
from tests.bench.measurements import ALL

RATE = contest.Target(number="rate", label="rate", bound=100, unit="/s", at_least=True)
DELAY = contest.Target(number="delay", label="delay", bound=5, unit="ms")


def measurement(**contenders: contest.Contender) -> contest.Measurement:
    return contest.Measurement(name="m", shape="how", contenders=contenders, targets=(RATE, DELAY))


def test_every_measurement_has_its_own_name_and_starts_with_agentq():
    assert len({each.name for each in ALL}) == len(ALL)
    assert all(next(iter(each.contenders)) == "agentq" for each in ALL)


@pytest.mark.parametrize(("target", "met", "missed"), [(RATE, 100, 99.9), (DELAY, 5, 5.1)])
def test_a_target_is_met_at_its_bound(target: contest.Target, met: float, missed: float):
    assert target.met(met)
    assert not target.met(missed)


def test_the_table_says_met_and_missed_and_why_a_contender_failed():
    scores = [
        contest.Score(contender="agentq", values={"rate": [90.0, 130.0, 120.0], "delay": [6.0]}),
        contest.Score(contender="peer", error="no server"),
    ]
    table = _markdown({"CPU": "one"}, [(measurement(), scores)])
    assert "| rate | ≥ 100 /s | 120 | met |" in table
    assert "| delay | ≤ 5 ms | 6 | MISSED |" in table
    assert "| agentq | 120 (90 to 130) | 6 |" in table
    assert "peer failed: no server" in table


def test_a_failed_contender_stays_out_of_later_rounds(monkeypatch: pytest.MonkeyPatch):
    asked: list[str] = []

    def once(measurement: str, contender: str) -> contest.Numbers:
        asked.append(contender)
        if contender == "broken":
            raise contest.ContestError("no")
        return {"rate": float(len(asked))}

    monkeypatch.setattr(contest, "once", once)

    def never(folder: Path) -> contest.Numbers:
        raise AssertionError

    scores = contest.hold(measurement(agentq=never, broken=never), repeat=3)
    assert asked == ["agentq", "broken", "agentq", "agentq"]
    assert scores[0].median("rate") == 3.0
    assert scores[1].error == "no"
    assert scores[1].median("rate") is None


def test_json_holds_every_repetition():
    document = _document({}, [(measurement(), [contest.Score(contender="agentq", values={"rate": [1.0, 2.0]})])])
    assert document["targets"][0] == {"figure": "rate", "target": "≥ 100 /s", "agentq": 1.5, "met": False}
    assert document["targets"][1]["met"] is None


def test_quantile_is_the_nearest_rank():
    values = [float(value) for value in range(101)]
    assert contest.quantile(values, 0.5) == 50
    assert contest.quantile(values, 0.99) == 99
    assert contest.quantile([7.0], 0.99) == 7

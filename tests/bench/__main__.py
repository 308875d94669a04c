"""``python -m tests.bench``: every figure beside its target and its peers, measured in one go on this machine."""

from __future__ import annotations

import argparse
import json
import sys
import time

from tests.bench.conditions import conditions
from tests.bench.contest import Measurement, Score, hold, plain
from tests.bench.measurements import ALL


def main() -> int:
    """Measure, print, and answer the exit code: 0 when every target that was measured is met."""
    options = _options()
    begin = time.monotonic()
    where = conditions()
    results: list[tuple[Measurement, list[Score]]] = []
    for measurement in ALL:
        if options.only and measurement.name not in options.only:
            continue
        print(f"measuring {measurement.name} …", file=sys.stderr, flush=True)
        results.append((measurement, hold(measurement, repeat=options.repeat, only=options.contenders)))
    where["taken"] = f"{options.repeat} repetitions, medians (min to max); {time.monotonic() - begin:.0f} s in all"
    if options.json:
        print(json.dumps(_document(where, results), indent=2))
    else:
        print(_markdown(where, results))
    return 0 if all(met is not False for *_, met in _verdicts(results)) else 1


def _options() -> argparse.Namespace:
    names = [measurement.name for measurement in ALL]
    parser = argparse.ArgumentParser(prog="python -m tests.bench", description=__doc__)
    parser.add_argument("--repeat", type=int, default=3, metavar="N", help="repetitions of each measurement (default 3)")
    parser.add_argument("--only", action="append", choices=names, help="measure only this (may be repeated)")
    parser.add_argument("--contenders", action="append", metavar="NAME", help="only this contender (may be repeated)")
    parser.add_argument("--json", action="store_true", help="print JSON instead of a table")
    return parser.parse_args()


def _verdicts(results: list[tuple[Measurement, list[Score]]]) -> list[tuple[Measurement, str, str, float | None, bool | None]]:
    rows = []
    for measurement, scores in results:
        ours = next((score for score in scores if score.contender == "agentq"), None)
        for target in measurement.targets:
            value = ours.median(target.number) if ours else None
            met = None if value is None else target.met(value)
            rows.append((measurement, target.label, target.shown, value, met))
    return rows


def _markdown(where: dict[str, str], results: list[tuple[Measurement, list[Score]]]) -> str:
    lines = ["## Conditions", ""]
    lines += [f"- {name}: {value}" for name, value in where.items()]
    lines += ["", "## Targets", "", "| figure | target | agentq | |", "|---|---|---|---|"]
    for _, label, shown, value, met in _verdicts(results):
        verdict = {True: "met", False: "MISSED", None: "not measured"}[met]
        lines.append(f"| {label} | {shown} | {_cell(None if value is None else [value])} | {verdict} |")
    for measurement, scores in results:
        lines += ["", f"## {measurement.name}", "", measurement.shape, ""]
        numbers = list(dict.fromkeys(number for score in scores for number in score.values))
        lines += [f"| | {' | '.join(numbers)} |", "|---" * (len(numbers) + 1) + "|"]
        for score in scores:
            cells = [_cell(score.values.get(number)) for number in numbers]
            lines.append(f"| {score.contender} | {' | '.join(cells)} |")
        lines += [f"\n{score.contender} failed: {score.error}" for score in scores if score.error]
    return "\n".join(lines)


def _cell(values: list[float] | None) -> str:
    if not values:
        return "none"
    middle = plain(sorted(values)[len(values) // 2])
    return middle if len(values) == 1 else f"{middle} ({plain(min(values))} to {plain(max(values))})"


def _document(where: dict[str, str], results: list[tuple[Measurement, list[Score]]]) -> dict[str, object]:
    return {
        "conditions": where,
        "targets": [
            {"figure": label, "target": shown, "agentq": value, "met": met}
            for _, label, shown, value, met in _verdicts(results)
        ],
        "measurements": {
            measurement.name: {
                "shape": measurement.shape,
                "contenders": {score.contender: {"values": score.values, "error": score.error} for score in scores},
            }
            for measurement, scores in results
        },
    }


if __name__ == "__main__":
    sys.exit(main())

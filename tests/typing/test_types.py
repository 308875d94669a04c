"""Type checkers accept the API as it is meant, and refuse what the marks in ``bad.py`` say, line by line."""

import json
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

HERE = Path(__file__).parent
ROOT = HERE.parent.parent
BAD = HERE / "bad.py"


def mypy(path: Path) -> dict[int, str]:
    done = subprocess.run(
        [sys.executable, "-m", "mypy", "--strict", "--no-error-summary", "--hide-error-context", str(path)],
        cwd=ROOT, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode in {0, 1}, done.stdout + done.stderr
    found = re.findall(rf"^{re.escape(str(path.relative_to(ROOT)))}:(\d+): error: (.*)$", done.stdout, re.MULTILINE)
    return {int(line): message for line, message in found}


def pyright(path: Path) -> dict[int, str]:
    done = subprocess.run(
        [sys.executable, "-m", "pyright", "--outputjson", "--pythonpath", sys.executable, str(path)],
        cwd=ROOT, capture_output=True, text=True, check=False,
    )  # fmt: skip
    if not done.stdout.startswith("{"):
        pytest.skip("pyright fetches itself when it is used first, and could not: " + done.stderr[-200:])
    found = [each for each in json.loads(done.stdout)["generalDiagnostics"] if each["severity"] == "error"]
    return {each["range"]["start"]["line"] + 1: each["message"] for each in found}


CHECKERS = pytest.mark.parametrize("check", [mypy, pyright], ids=["mypy", "pyright"])


@CHECKERS
def test_nothing_is_found_in_correct_code(check: Callable[[Path], dict[int, str]]) -> None:
    assert check(HERE / "good.py") == {}


@CHECKERS
def test_each_mistake_is_found_on_its_line(check: Callable[[Path], dict[int, str]]) -> None:
    marked = {n: line for n, line in enumerate(BAD.read_text().splitlines(), 1) if "# E: " in line}
    found = check(BAD)
    missed = {n: line.strip() for n, line in marked.items() if n not in found}
    unexpected = {n: message for n, message in found.items() if n not in marked}
    assert (missed, unexpected) == ({}, {})

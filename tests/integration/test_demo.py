"""``agentq demo`` tells the truth: its numbers are held against its own store and effects file."""

import json
import os
import re
import subprocess
import sys
from collections import Counter
from pathlib import Path

ROOT = Path(__file__).parents[2]
PATIENCE_S = 120.0


def agentq(tmp_path: Path, *words: str) -> "subprocess.CompletedProcess[str]":
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("AGENTQ_", "OPENAI_"))}
    return subprocess.run(
        [sys.executable, "-m", "agentq", *words],
        cwd=tmp_path,
        env={**kept, "PYTHONPATH": str(ROOT), "TMPDIR": str(tmp_path), "COLUMNS": "160"},
        capture_output=True,
        text=True,
        timeout=PATIENCE_S,
        check=False,
    )


def number(output: str, what: str) -> int:
    """The number in the tally's line that is called ``what``."""
    found = re.search(rf"^ *([\d,]+)  {what}\b", output, re.MULTILINE)
    assert found, f"no line {what!r} in:\n{output}"
    return int(found[1].replace(",", ""))


def test_the_demo_kills_drains_loses_nothing_and_counts_right(tmp_path):
    done = agentq(tmp_path, "demo", "--plain", "--keep")
    output = done.stdout
    assert done.returncode == 0, output + done.stderr
    assert "Traceback" not in done.stderr
    assert re.search(
        r"worker \d killed \(SIGKILL\) in the middle of (think|search|read|list|count|rank|digest)( \(\d\))? of run", output
    )
    assert re.search(r"worker \d drained \(SIGTERM\)", output)
    assert re.search(r"run [\d.]+ resumed by worker \d after its \d+ finished steps", output)
    assert "local planner, no language model" in output
    assert re.search(r"^  asyncio/\w+\.py:\d+|^  \w+(/\w+)*\.py:\d+", output, re.MULTILINE)
    for zero in ("runs lost", "steps committed twice", "steps unaccounted for"):
        assert number(output, zero) == 0

    (folder,) = tmp_path.glob("agentq-demo-*")
    effects = [json.loads(line) for line in (folder / "effects.jsonl").read_text().splitlines()]
    began = Counter((e["run"], e["key"]) for e in effects if e["what"] == "began")
    assert number(output, "steps executed") == began.total()
    assert number(output, "steps executed again") == began.total() - len(began)
    assert len({e["pid"] for e in effects}) >= 3
    listed = agentq(tmp_path, "runs", "list", "--limit", "1000", "--json", "--store", f"sqlite:///{folder / 'agentq.db'}")
    runs = json.loads(listed.stdout)
    assert Counter(run["state"] for run in runs) == {"succeeded": number(output, "runs")}
    assert number(output, "runs") > 8
    assert f"--store sqlite:///{folder}" in output


def test_the_help_says_what_leaves_the_machine(tmp_path):
    done = agentq(tmp_path, "demo", "--help")
    assert done.returncode == 0
    assert "AGENTQ_DEMO_MODEL" in done.stdout
    assert list(tmp_path.iterdir()) == []

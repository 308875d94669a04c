"""`agentq run` while something is wrong with the store."""

import pytest

from agentq.cli.run import _store_trouble
from agentq.telemetry import emit


def test_trouble_with_the_store_is_said_once_for_each_kind(capsys: pytest.CaptureFixture[str]):
    with _store_trouble():
        for error in ("no such column: claimed_at", "no such column: claimed_at", "disk full"):
            emit("store.unavailable", error=error)
        emit("run.claimed", run_id="x")
    emit("store.unavailable", error="later")
    said = [line for line in capsys.readouterr().err.splitlines() if line.startswith("warning: ")]
    assert [line.partition("does not answer: ")[2] for line in said] == ["no such column: claimed_at", "disk full"]

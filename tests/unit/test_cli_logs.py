import json
import logging
import sys

import pytest

from agentq.cli import logs
from agentq.settings import LogSettings
from agentq.telemetry import emit


@pytest.fixture
def logged(capsys):
    """Configure logging as the worker does, and put it back."""
    root, ours = logging.getLogger(), logging.getLogger("agentq")
    before = (root.handlers[:], root.level, ours.level)

    def configure(**settings):
        logs.configure(LogSettings(**settings))
        return lambda: capsys.readouterr().err

    yield configure
    root.handlers[:], level, our_level = before
    root.setLevel(level)
    ours.setLevel(our_level)


def test_events_are_json_lines_where_nobody_looks(logged):
    read = logged(format="auto")
    emit("run.claimed", run_id="r1", task="report", attempt=1, key=None)
    line = json.loads(read())
    assert line["event"] == "run.claimed"
    assert (line["level"], line["run_id"], line["attempt"]) == ("info", "r1", 1)
    assert line["timestamp"].endswith("Z")
    assert "key" not in line


def test_the_console_shows_short_ids_and_rounded_numbers(logged):
    read = logged(format="console")
    emit("run.succeeded", run_id="06h05h7fbmekv4at5hvuf50mm4", duration_s=1.23456)
    out = read()
    assert "run.succeeded" in out
    assert "06h05h7fbmek" in out
    assert "06h05h7fbmekv" not in out
    assert "1.23" in out
    assert "1.2345" not in out


def test_the_level_is_that_of_agentq_and_others_are_heard_from_warning_on(logged):
    read = logged(format="json", level="info")
    emit("step.done", step="ask")
    logging.getLogger("somebody").info("chatter")
    assert read() == ""
    logging.getLogger("somebody").warning("look: %s", "postgres://u:hunter2@db/x")
    line = json.loads(read())
    assert line["logger"] == "somebody"
    assert "hunter2" not in line["event"]


def test_a_traceback_is_part_of_the_line(logged):
    read = logged(format="json")
    logging.getLogger("somebody").error("it failed", exc_info=ValueError("no"))
    assert "ValueError: no" in json.loads(read())["exception"]


def test_unknown_values_do_not_break_a_line(logged):
    read = logged(format="json")
    emit("run.failed", error=object(), error_type=ValueError, reason=sys)
    assert json.loads(read())["event"] == "run.failed"

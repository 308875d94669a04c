import ast
import json
import logging
import subprocess
import sys
import threading
from pathlib import Path

import pytest

import agentq
from agentq import telemetry
from agentq.message import Census, QueueStats, Worker, WorkerState
from agentq.redact import redact, redact_fields
from agentq.telemetry import add_sink, emit, remove_sink
from agentq.telemetry.events import CATALOGUE
from agentq.telemetry.metrics import MAX_STEP_NAMES, MetricsSink

SOURCES = sorted(Path(next(iter(agentq.__path__))).rglob("*.py"))


def emitted():
    """Every literal call of ``emit("a.b", field=…)`` in the package: (place, event, fields)."""
    for path in SOURCES:
        for node in ast.walk(ast.parse(path.read_text())):
            if not isinstance(node, ast.Call) or not node.args or not isinstance(node.args[0], ast.Constant):
                continue
            name = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
            if name == "emit" and isinstance(node.args[0].value, str) and "." in node.args[0].value:
                yield f"{path.name}:{node.lineno}", node.args[0].value, [k.arg for k in node.keywords if k.arg]


def test_every_event_that_the_package_emits_is_in_the_catalogue_with_its_fields():
    wrong = [
        f"{place}: {event} {field}"
        for place, event, fields in emitted()
        for field in ([None] if event not in CATALOGUE else fields)
        if field is None or field not in CATALOGUE[event].fields
    ]
    assert wrong == []


def test_the_catalogue_is_flat_and_says_what_each_event_means():
    for name, event in CATALOGUE.items():
        assert name == event.name
        assert name.count(".") == 1
        assert event.help
        assert not {"args", "value", "result", "payload"} & set(event.fields)


@pytest.fixture
def seen():
    events = []

    def sink(event, fields):
        events.append((event, fields))

    add_sink(sink)
    yield events
    remove_sink(sink)


def test_sinks_see_every_event_until_they_are_removed(seen):
    emit("step.done", run_id="r", step="ask")
    assert seen == [("step.done", {"run_id": "r", "step": "ask"})]


def test_a_sink_added_twice_is_called_once():
    calls = []

    def sink(event, _fields):
        calls.append(event)

    add_sink(sink)
    add_sink(sink)
    try:
        emit("worker.ready")
    finally:
        remove_sink(sink)
    emit("worker.ready")
    remove_sink(sink)
    assert calls == ["worker.ready"]


def test_a_broken_sink_is_reported_once_and_stops_neither_the_caller_nor_other_sinks(seen, caplog):
    def broken(_event, _fields):
        raise RuntimeError("no")

    add_sink(broken)
    try:
        with caplog.at_level(logging.WARNING, "agentq"):
            emit("step.done", run_id="r")
            emit("step.done", run_id="r")
    finally:
        remove_sink(broken)
    assert len(seen) == 2
    assert len([r for r in caplog.records if "telemetry sink" in r.getMessage()]) == 1


def test_an_event_is_a_record_of_the_logger_agentq_with_flat_fields(caplog):
    with caplog.at_level(logging.DEBUG, "agentq"):
        emit("run.failed", run_id="r1", task="report", error="it's over", duration_s=1.25, step=None)
    (record,) = caplog.records
    assert (record.name, record.levelno) == ("agentq", logging.ERROR)
    assert record.getMessage() == """run.failed run_id=r1 task=report error="it's over" duration_s=1.25"""
    assert record.agentq["event"] == "run.failed"
    assert record.agentq["task"] == "report"


def test_nothing_is_formatted_below_the_level_that_is_enabled(caplog):
    class Loud:
        def __str__(self):
            raise AssertionError("formatted")

    with caplog.at_level(logging.INFO, "agentq"):
        emit("step.done", step=Loud())
    assert caplog.records == []


def test_the_library_configures_no_logging_and_imports_neither_structlog_nor_prometheus():
    program = (
        "import logging, sys, agentq.telemetry, agentq.telemetry.metrics as m; from agentq.telemetry import emit, add_sink;"
        "add_sink(m.MetricsSink()); emit('step.done', task='t', duration_s=1.0);"
        "root, ours = logging.getLogger(), logging.getLogger('agentq');"
        "assert not root.handlers and not ours.handlers and ours.level == 0 and ours.propagate;"
        "print([n for n in ('structlog', 'prometheus_client', 'rich') if n in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


@pytest.mark.parametrize(
    ("text", "hidden"),
    [
        ("postgresql://app:s3cret@db:5432/q", "s3cret"),
        ("https://hooks.example/x?token=abcdef&run=1", "abcdef"),
        ("host=db password=hunter2 dbname=q", "hunter2"),
        ("401 for Authorization: Bearer abcdefgh1234", "abcdefgh1234"),
        ("Incorrect API key provided: sk-proj-abcdefghijklmnop", "sk-proj-abcdefghijklmnop"),
        ('{"api_key": "abc123"}', "abc123"),
        ("redis://:p@ss@host/0", "p@ss"),
    ],
)
def test_credentials_in_texts_are_hidden(text, hidden):
    assert hidden not in redact(text)
    assert "***" in redact(text)


@pytest.mark.parametrize(
    "text", ["tokens=812 signal=approved", "https://example.org/a?page=2#x", "mail bob@example.org", "sqlite:///srv/agentq.db"]
)
def test_what_is_no_credential_stays(text):
    assert redact(text) == text


def test_fields_named_like_secrets_are_hidden_and_bytes_are_not_shown():
    cleaned = redact_fields(
        {"api_key": "k", "openai_token": "t", "tokens": 12, "error": ValueError("password=x"), "raw": b"abc"}
    )
    assert cleaned == {
        "api_key": "***",
        "openai_token": "***",
        "tokens": 12,
        "error": "ValueError: password=***",
        "raw": "<3 bytes>",
    }


def test_a_secret_in_an_error_does_not_reach_the_log(caplog):
    with caplog.at_level(logging.DEBUG, "agentq"):
        emit("store.unavailable", error="cannot reach postgresql://u:hunter2@db/x")
    assert "hunter2" not in caplog.text
    assert "hunter2" not in json.dumps(caplog.records[0].agentq)


def lines(sink):
    body, kind = sink.render()
    assert kind.startswith("text/plain")
    return dict(line.rsplit(" ", 1) for line in body.decode().splitlines() if not line.startswith("#"))


def test_metrics_count_runs_steps_retries_losses_takeovers_and_drains():
    sink = MetricsSink(status=lambda: {"slots": 8, "busy": 3})
    run = {"task": "report", "queue": "q"}
    sink("run.claimed", run)
    sink("run.taken_over", run)
    sink("run.retrying", {**run, "duration_s": 2.0})
    sink("run.lost", run)
    sink("run.succeeded", {**run, "duration_s": 70.0})
    sink("step.done", {"task": "report", "step": "ask", "duration_s": 0.3})
    sink("step.failed", {"task": "report", "step": "ask", "duration_s": 0.2})
    sink("step.replayed", {"task": "report", "step": "ask"})
    sink("worker.draining", {})
    got = lines(sink)
    assert got['agentq_runs_total{outcome="succeeded",queue="q",task="report"}'] == "1.0"
    assert got['agentq_runs_total{outcome="retried",queue="q",task="report"}'] == "1.0"
    assert got['agentq_takeovers_total{queue="q",task="report"}'] == "1.0"
    assert got['agentq_run_retries_total{queue="q",task="report"}'] == "1.0"
    assert got['agentq_leases_lost_total{queue="q",task="report"}'] == "1.0"
    assert got["agentq_drains_total"] == "1.0"
    assert {k: v for k, v in got.items() if k.startswith("agentq_steps_total")} == {
        'agentq_steps_total{outcome="done",task="report"}': "1.0",
        'agentq_steps_total{outcome="failed",task="report"}': "1.0",
        'agentq_steps_total{outcome="replayed",task="report"}': "1.0",
    }
    assert got['agentq_run_duration_seconds_bucket{le="60",outcome="succeeded",queue="q",task="report"}'] == "0.0"
    assert got['agentq_run_duration_seconds_bucket{le="300",outcome="succeeded",queue="q",task="report"}'] == "1.0"
    assert got['agentq_step_duration_seconds_count{step="ask",task="report"}'] == "2.0"
    assert (got["agentq_worker_slots"], got["agentq_worker_busy"]) == ("8.0", "3.0")


def test_metrics_show_the_queues_and_pools_of_the_census():
    census = Census(
        queues=(QueueStats(queue="q", runnable=5, delayed=2, running=3, waiting=4, oldest_age_s=1.5),),
        workers=(Worker(id="a", slots=8, busy=2), Worker(id="b", slots=8, busy=8, state=WorkerState.CORDONED)),
    )
    got = lines(MetricsSink(census=lambda: census))
    assert got['agentq_queue_backlog{queue="q"}'] == "5.0"
    assert got['agentq_queue_oldest_age_seconds{queue="q"}'] == "1.5"
    assert got['agentq_queue_in_flight{queue="q"}'] == "3.0"
    assert got['agentq_queue_delayed{queue="q"}'] == "2.0"
    assert got['agentq_queue_waiting{queue="q"}'] == "4.0"
    assert got['agentq_pool_busy{pool="default",state="cordoned"}'] == "8.0"


def test_when_the_census_cannot_be_read_the_last_one_stands_and_shows_its_age():
    answers = [Census(queues=(QueueStats(queue="q", runnable=5),)), None]
    sink = MetricsSink(census=lambda: answers.pop(0))
    lines(sink)
    got = lines(sink)
    assert got['agentq_queue_backlog{queue="q"}'] == "5.0"
    assert float(got["agentq_census_age_seconds"]) >= 0


def test_made_up_step_names_do_not_grow_the_metrics_without_end():
    sink = MetricsSink()
    for n in range(MAX_STEP_NAMES + 50):
        sink("step.done", {"task": "t", "step": f"ask {n}", "duration_s": 0.1})
    got = lines(sink)
    assert got['agentq_step_duration_seconds_count{step="other",task="t"}'] == "50.0"
    assert got['agentq_steps_total{outcome="done",task="t"}'] == str(float(MAX_STEP_NAMES + 50))


def test_counting_from_many_threads_loses_nothing():
    sink = MetricsSink()

    def work():
        for _ in range(2000):
            sink("step.done", {"task": "t", "step": "s", "duration_s": 0.1})

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert lines(sink)['agentq_steps_total{outcome="done",task="t"}'] == "8000.0"


def test_the_public_names_of_telemetry():
    assert sorted(telemetry.__all__) == ["Sink", "add_sink", "emit", "remove_sink"]

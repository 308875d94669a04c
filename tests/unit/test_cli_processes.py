import signal
import sys
import time

import pytest

from agentq.cli import processes
from agentq.cli.processes import Child, Family
from agentq.cli.reading import given_urls
from agentq.cli.worker import worker
from agentq.settings import WorkerSettings
from agentq.telemetry import add_sink, remove_sink
from agentq.telemetry.merge import merged
from agentq.telemetry.metrics import MetricsSink
from agentq.testing.wait import wait_until_sync


@pytest.fixture
def family():
    made = []

    def start(program, count=1):
        one = Family([sys.executable, "-c", program], {}, probed=False, children=[Child(number) for number in range(count)])
        made.append(one)
        one.look()
        return one

    yield start
    for one in made:
        for child in one.children:
            if child.process is not None:
                child.process.kill()
                child.process.wait()
                child.process.stdin.close()


@pytest.fixture
def seen():
    events = []

    def sink(event, fields):
        events.append((event, fields))

    add_sink(sink)
    yield events
    remove_sink(sink)


def until(what, condition):
    wait_until_sync(what, condition, timeout_s=20)


def test_a_process_that_ends_in_order_is_not_started_again(family):
    one = family("pass", count=2)
    until("nobody is left", lambda: not one.look())
    assert all(child.over for child in one.children)


def test_a_process_that_dies_is_started_again_later_and_later(family, seen):
    one = family("import sys; sys.exit(3)")
    (child,) = one.children
    until("it died", lambda: not one.look() or child.failures == 1)
    assert child.start_at - time.monotonic() <= 1.0
    child.start_at = 0
    until("it died again", lambda: not one.look() or child.failures == 2)
    assert child.start_at - time.monotonic() > 1.0
    assert [(event, fields["code"], fields["delay_s"]) for event, fields in seen] == [
        ("worker.exited", 3, 1.0),
        ("worker.exited", 3, 2.0),
    ]


def test_one_that_lived_long_is_started_again_at_once(family, seen):
    one = family("import sys; sys.stdin.read()")
    (child,) = one.children
    child.born -= 60
    child.process.send_signal(signal.SIGKILL)
    until("there is another", lambda: one.look() and child.born > time.monotonic() - 30)
    assert [(event, fields["signal"], fields["delay_s"]) for event, fields in seen] == [("worker.exited", "SIGKILL", 0.0)]


def test_when_stopping_nobody_is_started_again(family, seen):
    one = family("import sys; sys.stdin.read()", count=2)
    one.tell(signal.SIGTERM)
    until("nobody is left", lambda: not one.look())
    assert one.ready() == (False, "draining")
    assert seen == []


def test_a_process_that_just_started_counts_as_alive_and_not_as_ready():
    one = Family([], {}, probed=True, children=[Child(0, port=processes._free_port(), born=time.monotonic())])
    assert one.alive() == (True, "1 processes")
    assert one.ready() == (False, "not ready: [0]")
    one.children[0].process = object()
    one.children[0].born -= 60
    good, why = one.alive()
    assert not good
    assert "process 0: no answer" in why


def test_metrics_of_several_processes_are_told_apart_and_shared_ones_are_there_once():
    sinks = {str(number): MetricsSink(status=lambda: {"slots": 2, "busy": 1}) for number in range(2)}
    for sink in sinks.values():
        sink("step.done", {"task": "t", "step": "s", "duration_s": 0.1})
    texts = {number: sink.render()[0].decode() + 'agentq_queue_backlog{queue="q"} 5.0\n' for number, sink in sinks.items()}
    body, kind = merged(texts)
    lines = body.decode().splitlines()
    assert kind.startswith("text/plain")
    assert 'agentq_worker_slots{process="0"} 2.0' in lines
    assert 'agentq_worker_slots{process="1"} 2.0' in lines
    assert 'agentq_steps_total{outcome="done",process="1",task="t"} 1.0' in lines
    assert lines.count('agentq_queue_backlog{queue="q"} 5.0') == 1
    assert sum(line.startswith("# TYPE agentq_worker_slots ") for line in lines) == 1


def test_urls_reach_the_processes_by_their_environment_and_by_no_command_line(monkeypatch):
    made = []

    class Seen(Family):
        def look(self):
            made.append(self)
            return False

    monkeypatch.setattr(processes, "Family", Seen)
    urls = given_urls("postgresql://u:hush@db/x", "kafka://u:hush@broker:9092")
    assert processes.supervise("hello:aq", WorkerSettings(processes=2), urls, words=["--pool", "a"]) == 0
    assert "hush" not in " ".join(made[0].command)
    assert {name: made[0].environ[name] for name in urls} == urls
    context = worker.make_context("worker", ["hello:aq"], resilient_parsing=True)
    assert context.params["store_url"] is None
    monkeypatch.setenv("_AGENTQ_STORE", urls["_AGENTQ_STORE"])
    monkeypatch.setenv("_AGENTQ_BROKER", urls["_AGENTQ_BROKER"])
    context = worker.make_context("worker", ["hello:aq"])
    assert context.params["store_url"] == "postgresql://u:hush@db/x"
    assert context.params["broker_url"] == "kafka://u:hush@broker:9092"

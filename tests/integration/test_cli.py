"""The command line as people and platforms use it: real processes, real signals, one SQLite file."""

import json
import os
import signal
import socket
import subprocess
import sys
import textwrap
import urllib.error
import urllib.request
from pathlib import Path

import pytest

from agentq.testing.wait import wait_until_sync

ROOT = Path(__file__).parents[2]
PATIENCE_S = 30.0

HELLO = """
    import asyncio, os, time
    from datetime import timedelta
    from pathlib import Path

    from agentq import AgentQ, Context, Retry, Signal

    aq = AgentQ("hello")
    approved = Signal("approved", bool)


    def note(text):
        with open("notes.txt", "a") as file:
            file.write(f"{text} {os.getpid()}\\n")


    @aq.step
    async def hold(n: int) -> int:
        \"\"\"Say that it began, and end when somebody makes the file.\"\"\"
        note(f"begin {n}")
        while not Path(f"go{n}").exists():
            await asyncio.sleep(0.01)
        note(f"end {n}")
        return n


    @aq.task
    async def agent(ctx: Context, goal: str, steps: int = 3) -> str:
        for n in range(steps):
            await hold(n)
        return f"done: {goal}"


    @aq.task(retry=Retry(max_attempts=1))
    async def failing(ctx: Context) -> None:
        raise ValueError("always")


    @aq.task(retry=Retry(max_attempts=2, initial=timedelta(minutes=5)))
    async def stumbling(ctx: Context) -> None:
        raise ValueError("this time")


    @aq.task
    async def review(ctx: Context) -> bool:
        return await ctx.wait_for(approved, ask="Publish?")


    @aq.task
    async def child(ctx: Context, n: int) -> int:
        return n * n


    @aq.task
    async def parent(ctx: Context) -> int:
        outcomes = await ctx.call_many([child.bind(n) for n in range(4)])
        return sum(outcome.value for outcome in outcomes)


    @aq.task
    async def blocker(ctx: Context) -> str:
        note("blocking")
        while not Path("unblock").exists():
            time.sleep(0.01)
        return "unblocked"
"""


class Machine:
    """A folder with a module and a store, and the processes that a test starts there."""

    def __init__(self, folder):
        self.folder = folder
        self.started = []
        (folder / "hello.py").write_text(textwrap.dedent(HELLO))
        path = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH", "")]))
        self.environ = {**os.environ, "PYTHONPATH": path, "AGENTQ_HEARTBEAT": "300ms"}

    def start(self, *words):
        log = (self.folder / f"log{len(self.started)}.txt").open("w+b")
        process = subprocess.Popen(
            [sys.executable, "-m", "agentq", *words], cwd=self.folder, env=self.environ, stdout=log, stderr=subprocess.STDOUT
        )
        process.log = log
        self.started.append(process)
        return process

    def call(self, *words, code=0):
        done = subprocess.run(
            [sys.executable, "-m", "agentq", *words],
            cwd=self.folder,
            env=self.environ,
            capture_output=True,
            text=True,
            timeout=PATIENCE_S,
            check=False,
        )
        assert done.returncode == code, done.stdout + done.stderr
        return done.stdout.strip()

    def run_of(self, run_id="last"):
        return json.loads(self.call("runs", "show", run_id, "--json"))

    def notes(self, word=""):
        path = self.folder / "notes.txt"
        return [line for line in path.read_text().splitlines() if line.startswith(word)] if path.exists() else []

    def go(self, *numbers):
        for number in numbers:
            (self.folder / f"go{number}").touch()

    def until(self, what, condition):
        wait_until_sync(what, condition, timeout_s=PATIENCE_S)

    def until_begun(self, n):
        self.until(f"step {n} has begun", lambda: self.notes(f"begin {n}"))

    def end(self, process, code):
        assert process.wait(PATIENCE_S) == code, output(process)

    def close(self):
        for process in self.started:
            if process.poll() is None:
                process.kill()
            process.wait()
            process.log.close()


def output(process):
    process.log.flush()
    return Path(process.log.name).read_text()


def events(process):
    return [json.loads(line) for line in output(process).splitlines() if line.startswith("{")]


def event_names(process):
    return [line["event"] for line in events(process)]


@pytest.fixture
def machine(tmp_path):
    made = Machine(tmp_path)
    yield made
    made.close()


def ask(port, path):
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}{path}", timeout=5) as answer:
            return answer.status, answer.read().decode()
    except urllib.error.HTTPError as error:
        with error:
            return error.code, error.read().decode()
    except OSError:
        return 0, ""


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def test_a_drained_worker_hands_its_run_to_the_next_one_which_repeats_no_step(machine):
    machine.call("enqueue", "hello:agent", "goal=one")
    first = machine.start("worker", "hello:aq")
    machine.go(0)
    machine.until_begun(1)
    first.send_signal(signal.SIGTERM)
    machine.until("it drains", lambda: "worker.draining" in event_names(first))
    machine.go(1)
    machine.end(first, 0)
    assert machine.run_of()["state"] == "queued"
    second = machine.start("worker", "hello:aq")
    machine.go(2)
    machine.until("the run is done", lambda: machine.run_of()["state"] == "succeeded")
    second.send_signal(signal.SIGINT)
    machine.end(second, 0)
    assert [note.rsplit(" ", 1)[0] for note in machine.notes("begin")] == ["begin 0", "begin 1", "begin 2"]
    assert "run.released" in event_names(first)
    assert "run.resumed" in event_names(second)


def test_the_second_signal_stops_in_the_middle_of_a_step(machine):
    machine.call("enqueue", "hello:agent", "goal=one")
    worker = machine.start("worker", "hello:aq")
    machine.until_begun(0)
    worker.send_signal(signal.SIGTERM)
    machine.until("it drains", lambda: "worker.draining" in event_names(worker))
    worker.send_signal(signal.SIGTERM)
    machine.end(worker, 128 + signal.SIGTERM)
    assert not machine.notes("end")
    assert machine.run_of()["state"] == "queued"


def test_run_goes_on_at_once_after_a_kill_and_prints_its_result_again(machine):
    words = ("run", "hello:agent", "goal=read the docs", "--key", "g1")
    first = machine.start(*words)
    machine.go(0)
    machine.until_begun(1)
    first.kill()
    first.wait()
    machine.go(1, 2)
    done = machine.start(*words)
    machine.end(done, 0)
    assert "1 step done before" in output(done)
    assert output(done).rstrip().endswith("done: read the docs")
    assert [note.rsplit(" ", 1)[0] for note in machine.notes("begin")] == ["begin 0", "begin 1", "begin 1", "begin 2"]
    assert machine.run_of()["takeovers"] == 1
    assert machine.call(*words) == "done: read the docs"
    assert len(machine.notes("begin")) == 4


def test_run_hands_back_on_interrupt_and_says_so(machine):
    words = ("run", "hello:agent", "goal=x", "--key", "g1")
    process = machine.start(*words)
    machine.go(0)
    machine.until_begun(1)
    process.send_signal(signal.SIGINT)
    machine.go(1)
    machine.end(process, 128 + signal.SIGINT)
    assert "the same command goes on there" in output(process)
    machine.go(2)
    assert machine.call(*words) == "done: x"


def test_run_serves_the_children_of_its_run_and_no_other_run(machine):
    machine.call("enqueue", "hello:child", "n=7")
    assert machine.call("run", "hello:parent") == "14"
    runs = json.loads(machine.call("runs", "list", "--json", "--task", "child"))
    assert [run["state"] for run in runs if run["parent_id"] is None] == ["queued"]
    assert [run["state"] for run in runs if run["parent_id"]] == ["succeeded"] * 4


def test_run_fails_with_one_line_and_the_commands_that_help(machine):
    machine.call("run", "hello:failing", code=1)
    assert machine.run_of()["state"] == "failed"
    failed = machine.start("run", "hello:failing")
    machine.end(failed, 1)
    assert "ValueError: always" in output(failed)
    assert 'hello.py", line' in output(failed)
    assert "agentq runs retry" in output(failed)
    assert "--retry" not in output(failed), "without a key, the same command begins another run"
    assert "Traceback" not in output(failed)


def test_run_asks_its_question_and_takes_the_answer_from_another_terminal(machine):
    process = machine.start("run", "hello:review")
    machine.until("it asks", lambda: "Publish?" in output(process))
    machine.call("runs", "signal", "last", "approved", "true")
    machine.end(process, 0)
    assert output(process).rstrip().endswith("true")


def test_run_that_is_stopped_names_the_command_that_goes_on(machine):
    for key, said in (["--key", "k"], "the same command goes on there"), ([], "`agentq worker hello:aq --store mine.db`"):
        process = machine.start("run", "hello:review", "--store", "mine.db", *key)
        machine.until("it asks", lambda process=process: "Publish?" in output(process))
        process.send_signal(signal.SIGTERM)
        machine.end(process, 128 + signal.SIGTERM)
        assert said in output(process)
        assert "approved true --store mine.db" in output(process)


def test_run_says_what_a_first_interrupt_waits_for(machine):
    process = machine.start("run", "hello:agent", "goal=x", "--key", "k")
    machine.until_begun(0)
    process.send_signal(signal.SIGINT)
    machine.until("it says so", lambda: "once more stops at once" in output(process))
    machine.go(0)
    machine.end(process, 130)
    assert "stopped after 1 step; the same command goes on there" in output(process)


def test_an_answer_that_does_not_fit_is_said_and_asked_for_again(machine):
    process = machine.start("run", "hello:review")
    machine.until("it asks", lambda: "Publish?" in output(process))
    machine.call("runs", "signal", "last", "approved", "perhaps")
    machine.until("it asks again", lambda: output(process).count("Publish?") == 2)
    assert "signal 'approved' does not fit: $: expected `bool`, got `str`" in output(process)
    machine.call("runs", "signal", "last", "approved", "true")
    machine.end(process, 0)


def test_enqueue_says_that_nobody_will_work_on_it(machine):
    done = machine.start("enqueue", "hello:review")
    machine.end(done, 0)
    assert "no worker serves queue default now; start one: agentq worker hello:aq" in output(done)


def test_a_worker_for_queues_that_no_task_uses_is_warned(machine):
    worker = machine.start("worker", "hello:aq", "--queue", "default", "--queue", "raports")
    machine.until("it is ready", lambda: "worker.ready" in event_names(worker))
    assert "no task of hello:aq uses queue raports; its queues: default" in output(worker)
    worker.terminate()
    machine.end(worker, 0)


def test_a_worker_that_lacks_a_task_says_what_it_leaves_alone(machine):
    machine.call("enqueue", "hello:review")
    source = machine.folder / "hello.py"
    source.write_text(source.read_text().replace("async def review(", "async def another("))
    worker = machine.start("worker", "hello:aq")
    machine.until("it is ready", lambda: "worker.ready" in event_names(worker))
    assert "1 queued run of task review, which this code does not have" in output(worker)
    worker.terminate()
    machine.end(worker, 0)


def test_enqueue_waits_and_tells_keys_apart(machine):
    machine.go(0, 1, 2)
    worker = machine.start("worker", "hello:aq", "--log", "json")
    assert machine.call("enqueue", "hello:agent", "goal=hi", "--wait") == "done: hi"
    first = json.loads(machine.call("enqueue", "hello:agent", "goal=hi", "--key", "k", "--json"))
    again = json.loads(machine.call("enqueue", "hello:agent", "goal=hi", "--key", "k", "--json"))
    assert (first["created"], again["created"], again["id"]) == (True, False, first["id"])
    machine.call("enqueue", "hello:agent", "goal=other", "--key", "k", code=1)
    worker.terminate()
    machine.end(worker, 0)


def test_job_exit_codes_tell_done_failed_nothing_and_hand_me_back(machine):
    machine.call("job", "hello:aq", "--wait", "0s", code=66)
    machine.go(0, 1, 2)
    machine.call("enqueue", "hello:agent", "goal=x")
    machine.call("job", "hello:aq", code=0)
    machine.call("enqueue", "hello:failing")
    machine.call("job", "hello:aq", code=1)
    machine.call("enqueue", "hello:stumbling")
    machine.call("job", "hello:aq", code=75)
    review = machine.call("enqueue", "hello:review")
    machine.call("job", "hello:aq", "--run", review, code=75)
    machine.call("runs", "signal", review, "approved", "true")
    machine.call("job", "hello:aq", "--run", review, code=0)
    machine.call("job", "hello:aq", "--run", review, code=0)


def test_a_job_that_is_drained_is_handed_back(machine):
    machine.call("enqueue", "hello:agent", "goal=x")
    job = machine.start("job", "hello:aq", "--drain", "100ms")
    machine.until_begun(0)
    job.send_signal(signal.SIGTERM)
    machine.end(job, 75)
    assert "run.released" in event_names(job)
    assert machine.run_of()["state"] == "queued"


def test_a_job_takes_exactly_one_run(machine):
    machine.go(0, 1, 2)
    for _ in range(3):
        machine.call("enqueue", "hello:agent", "goal=x")
    machine.call("job", "hello:aq")
    states = sorted(run["state"] for run in json.loads(machine.call("runs", "list", "--json")))
    assert states == ["queued", "queued", "succeeded"]


def test_health_is_answered_while_a_run_blocks_the_event_loop(machine):
    port = free_port()
    worker = machine.start("worker", "hello:aq", "--health-port", str(port), "--health-host", "127.0.0.1")
    machine.until("it is ready", lambda: ask(port, "/readyz")[0] == 200)
    machine.call("enqueue", "hello:blocker")
    machine.until("the loop is blocked", lambda: machine.notes("blocking"))
    assert ask(port, "/healthz")[0] == 200
    assert ask(port, "/readyz")[0] == 200
    assert json.loads(ask(port, "/status")[1])["busy"] == 1
    assert "agentq_worker_busy 1.0" in ask(port, "/metrics")[1]
    assert 'agentq_queue_in_flight{queue="default"} 1.0' in ask(port, "/metrics")[1]
    (machine.folder / "unblock").touch()
    machine.until("the run is done", lambda: machine.run_of()["state"] == "succeeded")
    worker.terminate()
    machine.end(worker, 0)


def test_a_draining_worker_is_alive_and_not_ready(machine):
    port = free_port()
    machine.call("enqueue", "hello:agent", "goal=x")
    worker = machine.start("worker", "hello:aq", "--health-port", str(port), "--health-host", "127.0.0.1")
    machine.until_begun(0)
    worker.terminate()
    machine.until("it is not ready", lambda: ask(port, "/readyz")[0] == 503)
    assert ask(port, "/healthz")[0] == 200
    machine.go(0)
    machine.end(worker, 0)


def test_several_processes_are_one_worker_that_replaces_its_dead(machine):
    port = free_port()
    parent = machine.start(
        "worker", "hello:aq", "--processes", "2", "--concurrency", "2", "--health-port", str(port), "--health-host", "127.0.0.1"
    )
    machine.until("all are ready", lambda: ask(port, "/readyz")[0] == 200)
    status = json.loads(ask(port, "/status")[1])
    assert status["slots"] == 4
    metrics = ask(port, "/metrics")[1]
    assert 'agentq_worker_slots{process="1"} 2.0' in metrics
    pids = {child["pid"] for child in status["processes"]}
    victim = pids.pop()
    os.kill(victim, signal.SIGKILL)
    machine.until("it was replaced", lambda: "worker.exited" in event_names(parent) and ask(port, "/readyz")[0] == 200)
    assert ask(port, "/healthz")[0] == 200
    parent.terminate()
    machine.end(parent, 0)
    assert event_names(parent).count("worker.stopped") == 2


def test_processes_drain_when_their_parent_is_killed(machine):
    machine.call("enqueue", "hello:agent", "goal=x")
    parent = machine.start("worker", "hello:aq", "--processes", "2")
    machine.until_begun(0)
    parent.kill()
    parent.wait()
    machine.until("both drain", lambda: event_names(parent).count("worker.draining") == 2)
    machine.go(0)
    machine.until("both have ended", lambda: event_names(parent).count("worker.stopped") == 2)
    assert "the parent process has ended" in output(parent)
    assert machine.run_of()["state"] == "queued"


def test_a_recycled_worker_begins_anew_in_the_same_process(machine):
    machine.go(0, 1, 2)
    worker = machine.start("worker", "hello:aq", "--max-runs", "1", "--log", "json")
    for goal in ("a", "b"):
        assert machine.call("enqueue", "hello:agent", f"goal={goal}", "--wait") == f"done: {goal}"
    started = [line for line in events(worker) if line["event"] == "worker.started"]
    machine.until("it began anew", lambda: event_names(worker).count("worker.ready") >= 2)
    assert {line["pid"] for line in started} == {worker.pid}
    assert len({line["worker"] for line in events(worker) if line["event"] == "worker.started"}) >= 2
    worker.terminate()
    machine.end(worker, 0)


def test_dev_begins_anew_when_the_code_changes(machine):
    dev = machine.start("dev", "hello:aq", "--log", "json")
    machine.until("it works", lambda: "worker.ready" in event_names(dev))
    source = machine.folder / "hello.py"
    source.write_text(source.read_text().replace("done: {goal}", "changed: {goal}"))
    machine.until("it began anew", lambda: event_names(dev).count("worker.ready") == 2)
    machine.go(0, 1, 2)
    assert machine.call("enqueue", "hello:agent", "goal=x", "--wait") == "changed: x"
    dev.send_signal(signal.SIGINT)
    machine.end(dev, 130)


def test_commands_beside_a_worker_take_nothing_away_from_it(machine):
    machine.go(0, 1, 2)
    machine.call("run", "hello:child", "n=1")  # the store is there before the worker
    worker = machine.start("worker", "hello:aq", "--log", "json")
    machine.until("it is ready", lambda: "worker.ready" in event_names(worker))
    for n in range(3):
        machine.call("runs", "list")
        machine.call("doctor")
        assert machine.call("enqueue", "hello:agent", f"goal={n}", "--wait") == f"done: {n}"
    assert (machine.folder / "agentq.db-wal").exists(), "the log of a store that is in use is gone"
    worker.terminate()
    machine.end(worker, 0)
    assert [run["state"] for run in json.loads(machine.call("runs", "list", "--json"))] == ["succeeded"] * 4


def test_a_worker_says_what_is_wrong_with_its_target_in_one_line(machine):
    done = machine.start("worker", "helo:aq")
    machine.end(done, 1)
    assert output(done).startswith("error: no module named 'helo'")
    assert "did you mean hello?" in output(done)


def test_cordon_reaches_a_worker_and_uncordon_lets_it_claim_again(machine):
    worker = machine.start("worker", "hello:aq", "--log", "json")
    machine.until("it is ready", lambda: "worker.ready" in event_names(worker))
    machine.go(0, 1, 2)
    machine.call("workers", "cordon", "--all")
    machine.until("it is cordoned", lambda: "worker.cordoned" in event_names(worker))
    machine.call("enqueue", "hello:agent", "goal=x")
    machine.call("workers", "uncordon", "--all")
    machine.until("the run is done", lambda: machine.run_of()["state"] == "succeeded")
    machine.call("workers", "drain", "--all")
    machine.end(worker, 0)


def test_a_port_that_is_taken_is_one_line(machine):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        port = str(taken.getsockname()[1])
        for more in ([], ["--processes", "2"]):
            worker = machine.start("worker", "hello:aq", "--health-host", "127.0.0.1", "--health-port", port, *more)
            machine.end(worker, 1)
            assert f"cannot serve health on 127.0.0.1:{port}" in output(worker)


def test_a_store_of_this_process_alone_is_no_place_to_enqueue(machine):
    done = machine.start("enqueue", "hello:review", "--store", "memory:")
    machine.end(done, 1)
    assert "gone when this command ends" in output(done)


def test_a_job_with_nothing_to_do_may_be_fine(machine):
    machine.call("job", "hello:aq", "--wait", "0s", "--idle-ok")

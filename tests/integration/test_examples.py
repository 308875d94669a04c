"""Every example runs, as the first lines of its file say, in processes of its own."""

import json
import os
import signal
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from agentq.testing.wait import wait_until_sync
from tests.helpers.llm import endpoint

ROOT = Path(__file__).parents[2]
EXAMPLES = ROOT / "examples"
PATIENCE_S = 60.0


class Place:
    """A store of its own, and the folder of an example."""

    def __init__(self, tmp_path: Path, folder: Path) -> None:
        kept = {name: value for name, value in os.environ.items() if not name.startswith(("AGENTQ_", "OPENAI_"))}
        path = os.pathsep.join([str(folder), str(ROOT)])
        self.store = f"sqlite:///{tmp_path / 'agentq.db'}"
        self.environment = {**kept, "PYTHONPATH": path, "AGENTQ_STORE": self.store}
        self.cwd = tmp_path

    def start(self, *words: str) -> "subprocess.Popen[str]":
        return subprocess.Popen(
            [sys.executable, *words],
            cwd=self.cwd,
            env=self.environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def agentq(self, *words: str) -> str:
        """Run a command to its end; what it printed."""
        with self.start("-m", "agentq", *words) as process:
            output, errors = process.communicate(timeout=PATIENCE_S)
        assert process.returncode == 0, errors
        return output

    @contextmanager
    def running(self, *words: str) -> "Iterator[subprocess.Popen[str]]":
        """A command that runs until the block ends; then it is drained and must exit with 0."""
        with self.start("-m", "agentq", *words) as process:
            try:
                yield process
                process.send_signal(signal.SIGTERM)
                _, errors = process.communicate(timeout=PATIENCE_S)
                assert process.returncode == 0, errors
            finally:
                process.kill()

    def runs(self) -> list[dict[str, Any]]:
        """What the store holds; nothing while it is not there yet."""
        with self.start("-m", "agentq", "runs", "list", "--json") as process:
            output, _ = process.communicate(timeout=PATIENCE_S)
        return json.loads(output) if process.returncode == 0 else []


@pytest.fixture
def place(tmp_path: Path) -> Place:
    return Place(tmp_path, EXAMPLES)


def test_hello(tmp_path):
    place = Place(tmp_path, EXAMPLES / "hello")

    def script(prompt: str) -> str:
        return "30 seconds." if "lease of 30 seconds" in prompt else "READ leases.md steps.md"

    with endpoint(script) as llm:
        place.environment |= llm.environment
        assert "30 seconds." in place.agentq("run", "hello:agent", "goal=How long is a lease?", "--key", "g1")
    assert "leases.md steps.md" in llm.answered[0]
    assert len(llm.answered) == 2


def test_approval(place):
    with place.start("-m", "agentq", "run", "approval:article", "topic=bees") as process:
        wait_until_sync("the run waits", lambda: [r for r in place.runs() if r["state"] == "waiting"], timeout_s=PATIENCE_S)
        assert not (place.cwd / "published.txt").exists()
        place.agentq("runs", "signal", place.runs()[0]["id"], "approved", "true")
        output, errors = process.communicate(timeout=PATIENCE_S)
    assert process.returncode == 0, errors
    assert "published as" in output
    assert (place.cwd / "published.txt").read_text().endswith("All there is to know about bees.\n")


def test_fanout(place):
    documents = place.cwd / "documents"
    documents.mkdir()
    for n in range(6):
        (documents / f"{n}.txt").write_text("word " * n)
    (documents / "broken.txt").write_bytes(b"\xff\xff")
    answer = json.loads(place.agentq("run", "fanout:survey", f"folder={documents}", "--json"))["result"]
    assert [size["words"] for size in answer["sizes"]] == [5, 4, 3, 2, 1, 0]
    assert answer["failed"] == 1
    assert len([run for run in place.runs() if run["task"] == "measure"]) == 7


def test_django_like(place):
    server = "import threading, django_like as d; from wsgiref.simple_server import make_server as m\n"
    server += "s = m('127.0.0.1', 0, d.application); print(s.server_port, flush=True); s.serve_forever()"
    with place.running("worker", "django_like:aq"), place.start("-c", server) as web:
        try:
            base = f"http://127.0.0.1:{web.stdout.readline().strip()}/reports"
            with urllib.request.urlopen(base, data=b"k8s", timeout=PATIENCE_S) as reply:
                assert reply.status == 202
                run_id = json.load(reply)["id"]

            def shown() -> dict[str, Any]:
                with urllib.request.urlopen(f"{base}/{run_id}", timeout=PATIENCE_S) as reply:  # noqa: S310 - loopback
                    return json.load(reply)

            wait_until_sync("the report is there", lambda: shown()["state"] == "succeeded", timeout_s=PATIENCE_S)
            assert shown()["result"] == "k8s is large; k8s is deep"
        finally:
            web.kill()
            web.communicate()


def test_research_survives_the_kill_of_its_worker(tmp_path):
    place = Place(tmp_path, EXAMPLES / "research")
    place.environment |= {"AGENTQ_DEMO_THINK_S": "0.3"}
    question = "Where does asyncio handle task cancellation, and how is it documented?"
    asking = [str(EXAMPLES / "research" / "research.py"), question]
    with place.start(*asking) as asked:
        with place.start("-m", "agentq", "worker", "research:aq") as first:
            wait_until_sync(
                "the run has done some steps", lambda: any(run["steps"] >= 3 for run in place.runs()), timeout_s=PATIENCE_S
            )
            first.kill()
            first.communicate()
        assert asked.poll() is None
        with place.running("worker", "research:aq"):
            output, errors = asked.communicate(timeout=PATIENCE_S)
    assert asked.returncode == 0, errors
    assert "asyncio.tasks.Task.cancel" in output
    assert "local planner, no language model" in output
    (run,) = place.runs()
    assert run["takeovers"] == 1
    assert run["attempt"] == 1

"""The command line before a real SQS-compatible server: from no queue at all to dead letters brought home."""

import asyncio
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from agentq.brokers import open_broker
from agentq.brokers.base import Outgoing
from agentq.message import new_run_id
from agentq.testing.wait import wait_until_sync

ROOT = Path(__file__).parents[2]
CODE = """
from agentq import AgentQ, Context

aq = AgentQ("{app}")

@aq.task
async def agent(ctx: Context, goal: str) -> str:
    return goal
"""


class Shell:
    """A folder with a module, a store, and the environment that names both it and the broker."""

    def __init__(self, folder, endpoint):
        self.folder = folder
        self.app = f"cli{new_run_id()[-8:]}"
        self.url = f"sqs://elasticmq?endpoint={endpoint}&wait=1"
        (folder / "shop.py").write_text(CODE.format(app=self.app))
        self.environ = {
            **os.environ,
            "PYTHONPATH": str(ROOT),
            "AGENTQ_STORE": "sqlite:./shop.db",
            "AGENTQ_BROKER": self.url,
            "COLUMNS": "160",
            "AWS_ACCESS_KEY_ID": "x",
            "AWS_SECRET_ACCESS_KEY": "x",
        }

    def call(self, *words, code=0):
        done = subprocess.run(
            [sys.executable, "-m", "agentq", *words],
            cwd=self.folder, env=self.environ, capture_output=True, text=True, timeout=60, check=False,
        )  # fmt: skip
        assert done.returncode == code, done.stdout + done.stderr
        return done.stdout

    def worker(self):
        return subprocess.Popen(
            [sys.executable, "-m", "agentq", "worker", "shop:aq"], cwd=self.folder, env=self.environ, stderr=subprocess.DEVNULL
        )

    def send(self, template, body):
        """Put a message into the queue of that name, as anybody might."""

        async def inside():
            url = self.url.replace("?", f"/{self.app}-{template}?")
            async with open_broker(url, app=self.app) as broker:
                return await broker.send([Outgoing(id=new_run_id(), queue="default", body=body)])

        assert asyncio.run(inside()) == [None]


@pytest.fixture
def shell(tmp_path, elasticmq_url, monkeypatch):
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "x")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "x")
    return Shell(tmp_path, elasticmq_url)


def test_from_no_queue_at_all_to_dead_letters_brought_home(shell):
    assert "there is no such queue" in shell.call("doctor", "shop:aq", code=1)
    assert "--fix: made" in shell.call("doctor", "shop:aq", "--fix")
    assert f"{shell.app}-default" in shell.call("doctor", "shop:aq")
    policy = json.loads(shell.call("doctor", "shop:aq", "--iam"))
    assert any(f":{shell.app}-default" in arn for statement in policy["Statement"] for arn in statement["Resource"])

    run_id, cancelled = (shell.call("enqueue", "shop:agent", "goal=bees").strip() for _ in range(2))
    shell.send("{queue}", b'{"task": ""}')
    assert "submitted" in shell.call("runs", "show", run_id)
    shell.call("runs", "cancel", cancelled)
    (queue,) = json.loads(shell.call("queues", "shop:aq", "--json"))
    assert (queue["broker"]["ready"], queue["broker"]["approximate"], queue["runnable"]) == (3, True, 0)
    assert "~3" in shell.call("queues", "shop:aq")

    worker = shell.worker()
    try:
        shown = lambda one: json.loads(shell.call("runs", "show", one, "--json"))["state"]  # noqa: E731 - twice, in lambdas
        wait_until_sync("one is done", lambda: shown(run_id) == "succeeded", timeout_s=60, every_s=0.2)
        wait_until_sync("the other is not", lambda: shown(cancelled) == "cancelled", timeout_s=60, every_s=0.2)
        letters = lambda: json.loads(shell.call("dead", "list", "--json"))  # noqa: E731 - as above
        wait_until_sync("the third is a dead letter", letters, timeout_s=60, every_s=0.2)
    finally:
        worker.terminate()
        assert worker.wait(60) == 0
    (letter,) = letters()
    assert 'task: ""' in letter["reason"]
    assert "DEAD" in shell.call("queues")

    shell.send("{queue}-dead", b'{"task": "agent", "args": {"goal": "late"}}')
    assert "gave up lies in its own dead-letter queue" in shell.call("queues")
    assert "default  1 dead letter collected" in shell.call("dead", "collect")
    assert "the broker has given nothing up" in shell.call("dead", "collect")
    (other,) = [one for one in letters() if one["id"] != letter["id"]]
    assert "gave it up after" in other["reason"]
    assert "queued" in shell.call("dead", "replay", other["id"])
    assert "1 dead letter dropped" in shell.call("dead", "drop", "--all", "--yes")

"""A task or a queue with a typing error in it: whoever looks is told, with what was meant, and nothing is made for it."""

import asyncio
import json
import time

import pytest
from click.testing import CliRunner

from agentq.brokers.base import Finding
from agentq.cli.main import cli
from agentq.message import Worker
from agentq.stores import open_store
from tests.helpers.cli_broker import stand_in
from tests.helpers.stores import envelope

URL = "kafka://h:9092"
CODE = """
from agentq import AgentQ, Context

aq = AgentQ("billing")

@aq.task(queue="invoices")
async def process(ctx: Context) -> None: ...
"""


@pytest.fixture
def made(tmp_path, monkeypatch):
    """Runs of a task and in queues that are none, and a worker of their app; returns how to call the command line there."""
    monkeypatch.setenv("COLUMNS", "200")
    monkeypatch.chdir(tmp_path)
    (tmp_path / "strange.py").write_text(CODE)
    path = tmp_path / "x.db"
    runs = [
        envelope("proces", "invoices", app="billing"),
        envelope("process", "invoces", app="billing"),
        envelope("process", "nosuch", app="billing"),
        envelope("process", "elsewhere", app="shop"),
    ]

    async def fill():
        async with open_store(str(path)) as store:
            await store.submit(runs)
            worker = Worker(id="w", app="billing", slots=2, queues=("invoices",), tasks=("process",), seen_at=time.time())
            await store.beat(worker, [], 30)

    asyncio.run(fill())
    for lock in (tmp_path / "x.db-live").glob("*.lock"):
        lock.unlink()  # a worker without one is of another machine

    def call(*words, code=0):
        result = CliRunner().invoke(cli, [*words, "--store", str(path)])
        assert result.exit_code == code, result.output
        return result.output

    call.runs = [run.id for run in runs]
    return call


def test_show_says_why_nobody_takes_a_run(made):
    assert "no worker knows task 'proces'; did you mean process?" in made("runs", "show", made.runs[0])
    assert "nobody serves queue 'invoces'; did you mean invoices?" in made("runs", "show", made.runs[1])
    for run in made.runs[2:]:
        assert "nobody" not in made("runs", "show", run), "its workers may just be away"


def test_queues_says_it_once_for_all(made):
    out = made("queues")
    assert "1 queued run: no worker knows task 'proces'; did you mean process?" in out
    assert "1 queued run: nobody serves queue 'invoces'; did you mean invoices?" in out
    assert "1 queued run: nobody serves queue 'nosuch'" in made("queues", "strange:aq")
    assert len(json.loads(made("queues", "--json"))) == 4


def test_doctor_guesses_and_offers_no_worker_of_another_app(made):
    found = json.loads(made("doctor", "strange:aq", "--json"))
    (tasks,) = [one for one in found if one["what"] == "tasks"]
    assert tasks["said"] == "queued, but known to no worker: proces (did you mean process?)"
    queues = {one["said"].split()[0]: one for one in found if one["what"] == "queue"}
    assert queues["invoces"]["remedy"].startswith("no task of billing uses it (did you mean invoices?): cancel the runs")
    assert queues["elsewhere"]["said"] == "elsewhere has 1 run of shop and no worker that serves it"
    assert "strange:aq" not in queues["elsewhere"]["remedy"]


@pytest.mark.parametrize("target", [[], ["strange:aq"]])
def test_nothing_is_asked_of_the_broker_about_a_queue_that_is_none(made, monkeypatch, target):
    asked = set()
    broker = stand_in(monkeypatch)

    async def inspect(_self, queues, *, fix=False):
        del fix
        asked.update(queues)
        return [Finding(what="cluster", ok=True, text="answers")]

    monkeypatch.setattr(type(broker), "inspect", inspect)
    made("doctor", *target, "--broker", URL, "--fix")
    assert asked - {"elsewhere"} == {"invoices"}, "of the other app, runs alone tell"
    if target:
        assert asked == {"invoices"}
        (row,) = [one for one in json.loads(made("queues", *target, "--broker", URL, "--json")) if one["queue"] == "nosuch"]
        assert row["broker"] == {"error": "not asked: no app has this queue"}

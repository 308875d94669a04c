"""`agentq queues`, `top` and their kin before a broker: one in memory stands for every url."""

import asyncio
import json
import time

import pytest
from click.testing import CliRunner

from agentq import brokers
from agentq.cli.main import cli
from agentq.clock import SystemClock
from agentq.message import Admission, DeadLetter, Envelope, Worker, new_run_id
from agentq.stores import open_store
from tests.helpers.cli_broker import give_up, send, stand_in
from tests.helpers.stores import envelope, fill

URL = "sqs://eu-central-1"
REAL = brokers.open_broker


@pytest.fixture
def broker(monkeypatch):
    return stand_in(monkeypatch)


@pytest.fixture(scope="module")
def original(tmp_path_factory):
    return fill(tmp_path_factory.mktemp("store") / "agentq.db")


@pytest.fixture
def agentq(original, broker, monkeypatch):
    """Call the command line on a store that the test must not change; returns the output."""
    monkeypatch.setenv("COLUMNS", "120")

    def call(*words, code=0, store=original.path):
        result = CliRunner().invoke(cli, [*words, "--store", str(store)])
        assert result.exit_code == code, result.output
        return result.output

    return call


class Before(SystemClock):
    """A little more than a lease ago."""

    def steady(self):
        return super().steady() - 31


def columns(out):
    return out.splitlines()[0].split()


def test_without_a_broker_only_columns_with_figures_are_shown(agentq):
    assert columns(agentq("queues")) == ["QUEUE", "BACKLOG", "OLDEST", "RUNNING", "DELAYED", "WAITING", "SLOTS"]


def test_what_lies_in_the_broker_stands_beside_what_lies_in_the_store(agentq, broker):
    send(broker, "default", 1204)
    send(broker, "default", 3, delay_s=60.0)
    send(broker, "fresh", 2)
    out = agentq("queues", "--broker", URL)
    assert columns(out)[:3] == ["QUEUE", "INBOX", "BACKLOG"]
    (default,) = [line.split() for line in out.splitlines() if line.startswith("default")]
    assert default[1] == "1,204"
    assert default[5] == "4"  # three there and one here come later
    assert "fresh" not in out, "nobody told of that queue"


def test_a_broker_in_the_environment_counts_too(agentq, broker, monkeypatch):
    monkeypatch.setenv("AGENTQ_BROKER", URL)
    send(broker, "default", 7)
    (default,) = [one for one in json.loads(agentq("queues", "--json")) if one["queue"] == "default"]
    assert default["broker"]["ready"] == 7
    assert default["broker"]["approximate"] is False


def test_figures_that_cannot_be_read_are_never_0_and_never_hide_the_others(agentq, broker):
    broker.trouble.blind = "AccessDenied for password=hush"
    out = agentq("queues", "--broker", URL)
    (reports,) = [line.split() for line in out.splitlines() if line.startswith("reports ")]
    assert reports[1:3] == ["?", "1"]
    assert "the broker's backlog is unknown: AccessDenied for password=***" in out
    for one in json.loads(agentq("queues", "--broker", URL, "--json")):
        assert one["broker"] == {"error": "AccessDenied for password=***"}


def test_a_broker_that_cannot_even_be_opened_hides_nothing(agentq, monkeypatch):
    monkeypatch.setattr(brokers, "open_broker", REAL)
    out = agentq("queues", "--broker", "carrier-pigeon://loft")
    assert "reports" in out
    assert "carrier-pigeon" in out
    assert "use sqs://" in out


def test_the_name_of_the_app_comes_from_its_code_where_nobody_else_tells_it(agentq, broker, tmp_path, monkeypatch):
    async def make():
        async with open_store(str(tmp_path / "new.db")):
            pass

    asyncio.run(make())
    out = agentq("queues", "--broker", URL, store=tmp_path / "new.db")
    assert "backlog is unknown" in out
    assert "MODULE:AQ" in out
    code = "from agentq import AgentQ, Context\naq = AgentQ('other')\n@aq.task\nasync def t(ctx: Context) -> None: ...\n"
    (tmp_path / "queued.py").write_text(code)
    monkeypatch.chdir(tmp_path)
    send(broker, "default", 5)
    out = agentq("queues", "queued:aq", "--broker", URL, store=tmp_path / "new.db")
    (default,) = [line.split() for line in out.splitlines() if line.startswith("default")]
    assert default[1] == "5"
    assert default[-1] == "none", "five wait there and nobody serves them"


def test_what_the_broker_gave_up_is_counted_and_where_to_go_is_said(agentq, broker):
    send(broker, "default", 1)
    give_up(broker, "default")
    out = agentq("queues", "--broker", URL)
    assert "DEAD" in columns(out)
    assert "1 message that the broker gave up lies in its own dead-letter queue: agentq dead collect" in out


def test_a_queue_that_is_served_and_empty_is_shown_with_its_slots(agentq, tmp_path):
    async def make():
        async with open_store(str(tmp_path / "new.db")) as store:
            await store.beat(Worker(id="w", app="a", queues=("invoices", "mail"), slots=2, seen_at=time.time()), [], 30)

    asyncio.run(make())
    for lock in (tmp_path / "new.db-live").glob("*.lock"):
        lock.unlink()  # a worker without one is of another machine
    out = agentq("queues", store=tmp_path / "new.db")
    assert [line.split() for line in out.splitlines()[1:]] == [["invoices", "0", "0", "2"], ["mail", "0", "0", "2"]]
    assert [one["slots"] for one in json.loads(agentq("queues", "--json", store=tmp_path / "new.db"))] == [2, 2]


def test_a_worker_that_was_not_seen_for_its_lease_has_no_slots_and_is_lost(agentq, tmp_path):
    async def make():
        async with open_store(str(tmp_path / "new.db"), clock=Before()) as store:
            await store.beat(Worker(id="w", app="a", queues=("mail",), slots=2, seen_at=time.time()), [], 30)
            await store.submit([envelope("t", "mail")])

    asyncio.run(make())
    for lock in (tmp_path / "new.db-live").glob("*.lock"):
        lock.unlink()  # a worker without one is of another machine
    (row,) = agentq("queues", store=tmp_path / "new.db").splitlines()[1:]
    assert row.split()[0] == "mail"
    assert row.split()[-1] == "none"
    row = agentq("workers", "list", store=tmp_path / "new.db").splitlines()[1].split()
    assert row[:3] == ["w", "lost", "none"]


def test_dead_letters_and_runs_behind_a_key_have_their_columns(agentq, tmp_path):
    async def make():
        async with open_store(str(tmp_path / "new.db")) as store:
            same = {"app": "a", "task": "t", "queue": "q", "args": b"{}", "args_hash": "x", "submitted_at": 1.0}
            envelopes = tuple(Envelope(id=new_run_id(), ordering_key="k", **same) for _ in range(3))
            letter = DeadLetter(id="l" * 26, queue="q", body=b"?", reason="no JSON", received_at=1.0)
            await store.admit(Admission(envelopes=envelopes, letters=(letter,)))

    asyncio.run(make())
    out = agentq("queues", store=tmp_path / "new.db")
    assert columns(out) == ["QUEUE", "BACKLOG", "OLDEST", "RUNNING", "ORDERED", "DEAD", "SLOTS"]
    assert out.splitlines()[1].split()[-3:] == ["2", "1", "none"]
    assert "1 dead letter: agentq dead list" in out


def test_top_shows_the_inbox(agentq, broker):
    send(broker, "default", 12)
    out = agentq("top", "--once", "--broker", URL)
    assert "inbox 12" in out
    assert "INBOX" in out
    assert "inbox" not in agentq("top", "--once")

"""Commands that send through a broker, steer what may still lie in it, and look after it."""

import asyncio
import json

import click
import pytest
from click.testing import CliRunner

from agentq import brokers
from agentq.brokers.base import Finding
from agentq.cli import checks
from agentq.cli.checks import Level
from agentq.cli.main import cli
from agentq.cli.reading import told
from agentq.errors import BrokerError
from agentq.message import Admission, Envelope, RunQuery, new_run_id
from agentq.stores import open_store
from tests.helpers.cli_broker import stand_in
from tests.helpers.stores import fill

URL = "sqs://eu-central-1"
CODE = """
from agentq import AgentQ, Context

aq = AgentQ("hello")

@aq.task
async def agent(ctx: Context, goal: str) -> str:
    return goal

@aq.task(queue="reports")
async def report(ctx: Context) -> str:
    return "done"
"""


@pytest.fixture
def broker(monkeypatch):
    return stand_in(monkeypatch)


@pytest.fixture
def store(tmp_path):
    return str(fill(tmp_path / "agentq.db").path)


@pytest.fixture
def agentq(broker, store, tmp_path, monkeypatch):
    """Call the command line with a broker and a store of the test's own; returns the result."""
    del broker
    monkeypatch.setenv("COLUMNS", "120")
    (tmp_path / "brokered.py").write_text(CODE)
    monkeypatch.chdir(tmp_path)

    def call(*words, code=0, url=URL):
        more = ["--broker", url] if url else []
        result = CliRunner().invoke(cli, [*words, "--store", store, *more])
        assert result.exit_code == code, result.output
        return result

    return call


def do(url, action):
    async def inside():
        async with open_store(url) as store:
            return await action(store)

    return asyncio.run(inside())


def admit(url, run_id):
    envelope = Envelope(id=run_id, app="hello", task="agent", queue="q", args=b"{}", args_hash="x", submitted_at=1.0)
    do(url, lambda store: store.admit(Admission(envelopes=(envelope,))))
    (run,) = do(url, lambda store: store.runs(RunQuery(ids=(run_id,))))
    return run


def test_enqueue_sends_to_the_broker_and_says_where(agentq, broker, store):
    done = agentq("enqueue", "brokered:agent", "goal=x")
    run_id = done.stdout.strip()
    assert f"sent to {broker.where} · agent · agentq runs show {run_id}" in done.stderr
    assert do(store, lambda one: one.runs(RunQuery(ids=(run_id,)))) == []
    assert asyncio.run(broker.backlog(["default"]))[0].ready == 1
    told = json.loads(agentq("enqueue", "brokered:agent", "goal=x", "--json").stdout)
    assert told["broker"] == broker.where


def test_enqueue_names_the_queue_itself_where_the_broker_can(agentq, broker, monkeypatch):
    monkeypatch.setattr(type(broker), "place", lambda _self, queue: f"hello-{queue} (SQS eu-central-1)", raising=False)
    assert "sent to hello-reports (SQS eu-central-1) · report" in agentq("enqueue", "brokered:report").stderr


def test_the_hint_to_start_a_worker_names_the_app_and_the_store(agentq, store):
    agentq("workers", "cordon", "--all", url=None)
    said = agentq("enqueue", "brokered:report", url=None).stderr
    assert f"start one: agentq worker brokered:aq --store {store}" in said


def test_of_a_url_with_a_secret_the_option_alone_is_repeated():
    with click.Context(click.Command("show"), info_name="show") as context:
        context.params["store_url"] = "postgresql://me:hush@h/db"
        assert told("runs retry 06cknh") == "agentq runs retry 06cknh --store …"


def test_an_ordering_key_may_be_given(agentq, store):
    queued = agentq("enqueue", "brokered:agent", "goal=x", "--ordering-key", "acme", url=None).stdout.strip()
    (run,) = do(store, lambda one: one.runs(RunQuery(ids=(queued,))))
    assert run.ordering_key == "acme"


@pytest.mark.parametrize("option", ["--deadline", "--timeout"])
def test_a_span_of_nothing_is_refused_in_words_of_the_command_line(agentq, option):
    out = agentq("enqueue", "brokered:agent", "goal=x", option, "0", code=2).output
    assert f"Invalid value for {option}: give a time longer than zero, such as 5m" in " ".join(out.split())


def test_a_key_used_again_with_other_arguments_is_refused_before_it_is_sent(agentq, broker):
    agentq("run", "brokered:agent", "goal=x", "--key", "k", url=None)
    run_id = agentq("enqueue", "brokered:agent", "goal=x", "--key", "k").stdout.strip()
    assert "there already" in agentq("enqueue", "brokered:agent", "goal=x", "--key", "k").stderr
    before = asyncio.run(broker.backlog(["default"]))[0].ready
    out = agentq("enqueue", "brokered:agent", "goal=y", "--key", "k", code=1).output
    assert f"'k' already names run {run_id}" in out
    assert asyncio.run(broker.backlog(["default"]))[0].ready == before


def test_run_goes_past_the_broker(agentq, broker, monkeypatch):
    monkeypatch.setenv("AGENTQ_BROKER", URL)
    assert agentq("run", "brokered:agent", "goal=x", url=None).stdout.strip() == "x"
    assert asyncio.run(broker.backlog(["default"]))[0].ready == 0
    assert "past the broker" in " ".join(CliRunner().invoke(cli, ["run", "--help"]).output.split())


def test_a_run_that_the_store_does_not_know_is_submitted(agentq):
    run_id = new_run_id()
    assert f"{run_id}  submitted: in the broker, or never heard of" in agentq("runs", "show", run_id).stdout
    assert json.loads(agentq("runs", "show", run_id, "--json").stdout) == {"id": run_id, "state": "submitted"}
    assert f"there is no run {run_id}" in agentq("runs", "show", run_id, code=1, url=None).output
    out = agentq("runs", "show", run_id[:12], code=1).output
    assert f"no run's id starts with '{run_id[:12]}'; one that is still in the broker is known by its whole id" in out


def test_a_cancel_may_come_before_the_run(agentq, store):
    run_id = new_run_id()
    assert "if it arrives, it will be cancelled" in agentq("runs", "cancel", run_id).stdout
    assert json.loads(agentq("runs", "cancel", run_id, "--json").stdout)[0]["state"] == "submitted"
    assert admit(store, run_id).state == "cancelled"


def test_a_pause_may_come_before_the_run_and_be_taken_back(agentq, store):
    held, freed = new_run_id(), new_run_id()
    assert "if it arrives, it will be held" in agentq("runs", "pause", held, freed).stdout
    assert "it will not be held" in agentq("runs", "resume", freed).stdout
    assert admit(store, held).paused
    assert not admit(store, freed).paused


def test_a_signal_may_come_before_the_run(agentq, store):
    run_id = new_run_id()
    assert "if it arrives, it has the signal" in agentq("runs", "signal", run_id, "approved", "true").stdout
    assert "submitted" in agentq("runs", "signal", run_id).stdout
    assert admit(store, run_id).state == "queued"


def test_without_a_broker_nothing_is_remembered(agentq):
    for words in (("cancel",), ("pause",), ("signal",)):
        assert (
            "there is no run"
            in agentq("runs", *words, new_run_id(), *(["a", "1"] * (words[0] == "signal")), code=1, url=None).output
        )


def test_retry_knows_nothing_of_brokers(agentq):
    assert "--broker" not in CliRunner().invoke(cli, ["runs", "retry", "--help"]).output


def test_show_tells_the_ordering_key(agentq, store):
    envelope = Envelope(
        id=new_run_id(), app="hello", task="t", queue="q", args=b"{}", args_hash="x", submitted_at=1.0, ordering_key="acme-7"
    )
    do(store, lambda one: one.admit(Admission(envelopes=(envelope,))))
    assert "ordering key acme-7" in agentq("runs", "show", envelope.id).stdout


def doctor(agentq, *words, code=0, **more):
    return {
        (one["what"], one["level"]): one for one in json.loads(agentq("doctor", "--json", *words, code=code, **more).stdout)
    }


def test_doctor_shows_what_the_broker_lacks_and_mends_it_when_asked(agentq, broker, monkeypatch):
    async def inspect(_self, queues, *, fix=False):
        assert queues == ("default", "reports")
        return [
            Finding(what="hello-default", ok=True, text="it is there"),
            Finding(what="hello-reports", ok=fix, text="made" if fix else "there is no such queue", fixed=fix),
        ]

    monkeypatch.setattr(type(broker), "inspect", inspect)
    found = doctor(agentq, "brokered:aq", code=1)
    assert found["hello-default", "ok"]["said"] == "it is there"
    assert found["hello-reports", "broken"]["said"] == "there is no such queue"
    found = doctor(agentq, "brokered:aq", "--fix")
    assert found["hello-reports", "ok"]["said"] == "--fix: made"
    assert ("broker", "ok") in found


def test_the_remedy_for_what_a_broker_lacks_names_the_module_that_was_given(agentq, broker, store, monkeypatch):
    said = "there is no queue hello-default here; `agentq doctor --fix` makes it"
    whole = f"agentq doctor brokered:aq --fix --store {store} --broker {URL}"

    async def inspect(_self, queues, *, fix=False):
        del queues, fix
        return [Finding(what="hello-default", ok=False, text=said)]

    monkeypatch.setattr(type(broker), "inspect", inspect)
    assert f"`{whole}` makes it" in doctor(agentq, "brokered:aq", code=1)["hello-default", "broken"]["said"]
    assert f"`agentq doctor --fix --store {store}" in doctor(agentq, code=1)["hello-default", "broken"]["said"]
    broker.trouble.blind = said
    assert f"`{whole}` makes it" in agentq("queues", "brokered:aq").output

    async def send(_self, messages):
        return [BrokerError(said)] * len(messages)

    monkeypatch.setattr(type(broker), "send", send)
    assert f"`{whole.replace(':aq', ':agent')}` makes it" in agentq("enqueue", "brokered:agent", "goal=x", code=1).output


def test_fix_that_could_fix_nothing_fails_and_says_what_to_type(broker, tmp_path):
    del broker
    words = ["doctor", "--fix", "--json", "--store", str(tmp_path / "new.db"), "--broker", URL]
    done = CliRunner().invoke(cli, words)
    assert done.exit_code == 1
    (finding,) = [one for one in json.loads(done.stdout) if one["what"] == "broker"]
    assert finding["said"].startswith("nothing was fixed: ")
    assert finding["remedy"] == f"agentq doctor MODULE:AQ --fix --store {tmp_path / 'new.db'} --broker {URL}"


def test_doctor_learns_the_app_from_the_store(agentq):
    assert ("default", "ok") in doctor(agentq)


def test_a_broker_that_is_down_or_misspelt_is_broken(agentq, broker, monkeypatch):
    broker.trouble.down = True
    assert ("default", "broken") in doctor(agentq, code=1)
    monkeypatch.setattr(brokers, "open_broker", REAL)
    found = doctor(agentq, code=1, url="carrier-pigeon://loft")
    assert "carrier-pigeon" in found["broker", "broken"]["said"]


def test_a_broker_before_the_default_store_is_explained(broker, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("AGENTQ_BROKER", URL)
    done = CliRunner().invoke(cli, ["doctor", "--json"])
    found = {(one["what"], one["level"]): one for one in json.loads(done.stdout)}
    assert done.exit_code == 1
    assert "AGENTQ_STORE" in found["store", "broken"]["remedy"]
    assert "MODULE:AQ" in found["broker", "warning"]["said"]


def test_fix_without_a_broker_says_so(agentq):
    assert ("broker", "warning") in doctor(agentq, "--fix", url=None)


def test_the_policy_is_printed_alone_and_only_where_there_are_policies(agentq, broker, monkeypatch):
    assert "--iam writes policies for SQS" in agentq("doctor", "brokered:aq", "--iam", code=2).output
    monkeypatch.setattr(
        type(broker), "policy", lambda _self, queues: {"Version": "2012-10-17", "queues": queues}, raising=False
    )
    told = json.loads(agentq("doctor", "brokered:aq", "--iam").stdout)
    assert told == {"Version": "2012-10-17", "queues": ["default", "reports"]}
    assert json.loads(agentq("doctor", "--iam").stdout)["queues"] == ["default", "reports"]
    assert "no broker is named" in agentq("doctor", "--iam", code=2, url=None).output


@pytest.mark.parametrize(("apart", "level"), [(0.0, Level.GOOD), (-3600.0, Level.ODD), (3600.0, Level.ODD)])
async def test_the_clock_of_the_stores_server_is_compared(apart, level):
    class Server:
        async def now(self):
            return checks.time.time() + apart

    (found,) = await checks._server_clock(Server())
    assert found.level is level
    assert await checks._server_clock(object()) == []


REAL = brokers.open_broker

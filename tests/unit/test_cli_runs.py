import asyncio
import json
import time

import click
import pytest
from click.testing import CliRunner

from agentq.cli.main import cli
from agentq.cli.reading import RunId
from agentq.message import RunQuery, WorkerState
from agentq.stores import open_store
from tests.helpers.stores import envelope, fill


@pytest.fixture(scope="module")
def original(tmp_path_factory):
    return fill(tmp_path_factory.mktemp("store") / "agentq.db")


@pytest.fixture
def agentq(original, monkeypatch):
    """Call the command line on a store that the test must not change; returns the result."""
    monkeypatch.setenv("COLUMNS", "160")

    def call(*words, code=0):
        result = CliRunner().invoke(cli, [*words, "--store", str(original.path)])
        assert result.exit_code == code, result.output
        return result

    call.store = original
    return call


@pytest.fixture
def mine(tmp_path, monkeypatch):
    """Call the command line on a store of the test's own."""
    monkeypatch.setenv("COLUMNS", "160")
    made = fill(tmp_path / "agentq.db")

    def call(*words, code=0):
        result = CliRunner().invoke(cli, [*words, "--store", str(made.path)])
        assert result.exit_code == code, result.output
        return result

    call.store = made
    return call


def one_run(made, run_id):
    async def look():
        async with open_store(str(made.path)) as store:
            return (await store.runs(RunQuery(ids=(run_id,))))[0]

    return asyncio.run(look())


def test_list_shows_every_run_with_its_state_and_what_it_does(agentq):
    out = agentq("runs", "list").output
    for word in ("running", "waiting", "succeeded", "failed", "queued", "60%", "drafting", "ValueError: no such page", "in "):
        assert word in out


def test_list_filters_by_state_queue_task_and_tenant(agentq):
    def ids(*words):
        return {run["id"] for run in json.loads(agentq("runs", "list", "--json", *words).output)}

    made = agentq.store
    assert ids("--state", "failed") == {made.failed}
    assert ids("--state", "failed", "--state", "running") == {made.failed, made.running}
    assert ids("--queue", "reports") == {made.waiting, made.succeeded, made.queued}
    assert ids("--task", "summarise") == {made.queued}
    assert ids("--tenant", "acme") == {made.waiting}
    assert len(ids("--limit", "2")) == 2


@pytest.mark.parametrize("words", [("runs", "list"), ("top", "--once"), ("workers", "list"), ("queues",)])
def test_tables_fit_80_columns_and_cut_neither_ids_nor_numbers(mine, monkeypatch, words):
    monkeypatch.setenv("COLUMNS", "80")

    async def crowd():
        async with open_store(str(mine.store.path)) as store:
            long = "a_task_with_quite_a_long_name"
            await store.submit([envelope(long, queue=long, due_at=time.time() + 3600) for _ in range(3)])

    asyncio.run(crowd())
    lines = mine(*words).output.splitlines()
    assert max(map(len, lines)) <= 80
    heads = [line.split() for line in lines if line.startswith(("RUN ", "ENDED", "QUEUE ", "WORKER"))]
    assert heads
    assert not [word for words in heads for word in words if "…" in word]
    shown = [line.split()[0] for line in lines if line.startswith("06")]
    assert not [word for word in shown if "…" in word]


def test_list_says_when_nothing_matches(agentq):
    assert agentq("runs", "list", "--task", "nope").output == "no runs match\n"


def test_json_of_a_run_embeds_payloads_and_writes_times_in_rfc_3339(agentq):
    (run,) = json.loads(agentq("runs", "list", "--json", "--task", "report", "--state", "succeeded").output)
    assert run["args"] == {"topic": "sqs"}
    assert run["result"] == {"pages": 3}
    assert run["submitted_at"][10] == "T"
    assert run["cost_usd"] == 0


def test_show_draws_a_timeline_with_branches_tries_and_waits(agentq):
    out = agentq("runs", "show", agentq.store.running).output
    for word in (
        "● running",
        "ask #1",
        "read [0.1]",
        "try 1: httpx.ConnectError",
        "sleep",
        "1 m 00 s",
        "working",
        "60%",
        "worker-7c9",
    ):
        assert word in out
    assert "█" in out
    assert "\x1b[2J" not in out


def test_show_accepts_the_start_of_an_id(agentq):
    assert agentq.store.running in agentq("runs", "show", agentq.store.running[:20]).output


def test_show_names_the_question_and_the_command_that_answers_it(agentq):
    out = agentq("runs", "show", agentq.store.waiting).output
    assert "Publish the report?" in out
    assert f"agentq runs signal {agentq.store.waiting} approved VALUE" in out


def test_show_ends_with_the_result_or_the_failure_and_its_remedy(agentq):
    assert '  {\n    "pages": 3\n  }' in "\n".join(
        map(str.rstrip, agentq("runs", "show", agentq.store.succeeded).output.splitlines())
    )
    out = agentq("runs", "show", agentq.store.failed).output
    assert "failed in step publish" in out
    assert 'File "hello.py", line 30' in out
    assert f"agentq runs retry {agentq.store.failed} --store {agentq.store.path}" in out


def test_show_keeps_values_to_itself_unless_asked(agentq):
    assert "the page" not in agentq("runs", "show", agentq.store.running).output
    assert "the page" in agentq("runs", "show", agentq.store.running, "--values").output


def test_show_as_json_lists_steps_and_waits(agentq):
    shown = json.loads(agentq("runs", "show", agentq.store.running, "--json").output)
    assert [(s["step"], s["outcome"], s["tries"]) for s in shown["steps"]] == [
        ("ask", "done", 1),
        ("read", "done", 1),
        ("read", "done", 2),
        ("ctx.sleep", "waited", 1),
        ("ask", "done", 1),
    ]
    assert shown["worker"]["pod"] == "worker-7c9"
    assert json.loads(agentq("runs", "show", agentq.store.waiting, "--json").output)["waits"][0]["ask"] == "Publish the report?"


def test_an_ambiguous_start_of_an_id_lists_the_candidates(agentq):
    out = agentq("runs", "show", agentq.store.running[:4], code=1).output
    assert "start of several runs" in out
    assert agentq.store.failed in out


@pytest.mark.parametrize(("word", "said"), [("zzzzzz", "no run's id starts with"), ("06", "at least 4 characters")])
def test_a_run_that_is_not_there_is_one_clear_line(agentq, word, said):
    out = agentq("runs", "show", word, code=1).output
    assert said in out
    assert "Traceback" not in out


def test_cancel_settles_a_waiting_run_at_once(mine):
    assert "cancelled" in mine("runs", "cancel", mine.store.waiting).output
    assert one_run(mine.store, mine.store.waiting).state == "cancelled"


def test_cancel_and_pause_of_a_running_run_are_asked_of_its_worker(mine):
    out = mine("runs", "pause", mine.store.running).output
    assert "will pause at its next step" in out
    out = mine("runs", "cancel", mine.store.running, mine.store.queued).output
    assert [line.split("  ", 2)[2] for line in out.splitlines()] == [
        "will be cancelled: by its worker within a heartbeat, or by the next one",
        "cancelled",
    ]
    assert json.loads(mine("runs", "cancel", mine.store.waiting, "--json").output)[0]["state"] == "cancelled"


def test_cancel_of_a_final_run_is_refused(mine):
    assert "final already" in mine("runs", "cancel", mine.store.succeeded, code=1).output


def test_pause_and_resume(mine):
    mine("runs", "pause", mine.store.queued)
    assert [run["id"] for run in json.loads(mine("runs", "list", "--paused", "--json").output)] == [mine.store.queued]
    assert one_run(mine.store, mine.store.queued).paused
    mine("runs", "resume", mine.store.queued)
    assert not one_run(mine.store, mine.store.queued).paused


def test_retry_queues_a_failed_run_again(mine):
    assert "queued again" in mine("runs", "retry", mine.store.failed).output
    assert one_run(mine.store, mine.store.failed).state == "queued"


def test_signal_wakes_the_run_that_waits_for_it(mine):
    assert "signalled" in mine("runs", "signal", mine.store.waiting, "approved", "true").output
    assert one_run(mine.store, mine.store.waiting).state == "queued"


def test_signal_without_a_name_says_what_is_asked(mine):
    out = mine("runs", "signal", mine.store.waiting).output
    assert "approved  Publish the report?" in out


def test_signal_before_it_is_asked_for_is_kept(mine):
    out = mine("runs", "signal", mine.store.queued, "go", "now").output
    assert "kept until it asks" in out
    assert "warning" not in out


def test_signal_that_the_run_does_not_wait_for_is_kept_and_warned_about(mine):
    out = mine("runs", "signal", mine.store.waiting, "aproved", "true").output
    assert "kept until it asks" in out
    assert "it waits for approved, not for aproved" in out
    assert "did you mean approved?" in out


@pytest.mark.parametrize("value", ['{"ok":true by}', "[1", '"yes', "'true'"])
def test_signal_refuses_what_was_meant_to_be_json_and_is_none(mine, value):
    out = mine("runs", "signal", mine.store.waiting, "approved", value, code=2).output
    assert "begins like JSON and is none" in out
    assert value in out
    assert one_run(mine.store, mine.store.waiting).state == "waiting"


def test_signal_to_a_final_run_is_refused(mine):
    assert "it is final already" in mine("runs", "signal", mine.store.succeeded, "approved", "true", code=1).output


def test_signal_without_a_value_shows_how_it_is_given(mine):
    out = mine("runs", "signal", mine.store.waiting, "approved", code=2).output
    assert f"agentq runs signal {mine.store.waiting} approved VALUE" in out


def test_fork_keeps_what_comes_before_the_step(mine):
    made = json.loads(mine("runs", "fork", mine.store.failed, "--from", "publish", "--json").output)
    assert made["kept"] == 1
    assert one_run(mine.store, made["id"]).fork_of == mine.store.failed


@pytest.mark.parametrize(
    ("place", "kept"),
    [
        ("ask", 0),
        ("ask #1", 5),
        ("ask#1", 5),
        ("read [0.1]", 2),
        ("read", 1),
        ("sleep", 4),
        ("ctx.sleep", 4),
        ("0", 0),
        ("6", 6),
    ],
)
def test_fork_takes_the_names_that_show_draws_and_the_entries_that_errors_count(mine, place, kept):
    assert json.loads(mine("runs", "fork", mine.store.running, "--at", place, "--json").output)["kept"] == kept


@pytest.mark.parametrize("place", ["nope", "ask #7", "read [0.7]", "7"])
def test_fork_from_a_step_that_is_not_there_lists_those_that_are(mine, place):
    out = mine("runs", "fork", mine.store.running, "--from", place, code=1).output
    assert "ask · read [0.0] · read [0.1] · sleep · ask #1" in out


def test_last_is_the_newest_run_that_no_other_run_called(mine):
    async def call_many():
        async with open_store(str(mine.store.path)) as store:
            await store.submit([envelope("child", parent_id=mine.store.running) for _ in range(120)])

    asyncio.run(call_many())
    assert json.loads(mine("runs", "list", "--json", "--limit", "1").output)[0]["task"] == "child"
    assert json.loads(mine("runs", "show", "last", "--json").output)["id"] == mine.store.delayed


def test_queues_show_backlog_and_who_serves_them(agentq):
    out = agentq("queues").output
    assert "default" in out
    (reports,) = [one for one in json.loads(agentq("queues", "--json").output) if one["queue"] == "reports"]
    assert (reports["runnable"], reports["waiting"], reports["slots"]) == (1, 1, 8)


def test_workers_list_and_cordon_by_the_start_of_an_id_or_by_pod(mine):
    assert "worker-7c9" in mine("workers", "list").output
    mine("workers", "cordon", mine.store.worker[:6])
    assert json.loads(mine("workers", "list", "--json").output)[0]["state"] == WorkerState.CORDONED
    mine("workers", "uncordon", "worker-7c9")
    assert json.loads(mine("workers", "list", "--json").output)[0]["state"] == WorkerState.ACTIVE
    mine("workers", "drain", "--all")
    assert json.loads(mine("workers", "list", "--json").output)[0]["state"] == WorkerState.DRAINING


def test_a_worker_that_is_not_there(mine):
    assert "no live worker" in mine("workers", "cordon", "nope", code=1).output


def test_top_shows_queues_workers_and_runs_once(agentq):
    out = agentq("top", "--once").output
    for word in ("1 worker", "BACKLOG", "■□□□□□□□", "drafting", "report"):
        assert word in out
    assert {run["id"] for run in json.loads(agentq("top", "--json").output)["runs"]} == {
        agentq.store.running,
        agentq.store.waiting,
    }


def test_a_store_that_is_not_there_is_said_and_not_made(tmp_path):
    missing = tmp_path / "none.db"
    result = CliRunner().invoke(cli, ["runs", "list", "--store", str(missing)])
    assert result.exit_code == 66
    assert "there is no store at" in result.output
    assert not missing.exists()


def test_the_store_of_the_environment_and_the_default(original, monkeypatch, tmp_path):
    monkeypatch.setenv("AGENTQ_STORE", str(original.path))
    assert "running" in CliRunner().invoke(cli, ["runs", "list"]).output
    monkeypatch.delenv("AGENTQ_STORE")
    monkeypatch.chdir(tmp_path)
    assert f"{tmp_path / 'agentq.db'}" in CliRunner().invoke(cli, ["runs", "list"]).output.replace("\n", "")


def test_run_ids_are_completed_from_the_store(original):
    ctx = click.Context(cli)
    ctx.params["store_url"] = str(original.path)
    offered = {item.value: item.help for item in RunId().shell_complete(ctx, click.Argument(["run"]), original.failed[:8])}
    assert offered[original.failed] == "agent failed"
    ctx.params["store_url"] = str(original.path) + ".nope"
    assert RunId().shell_complete(ctx, click.Argument(["run"]), "") == []

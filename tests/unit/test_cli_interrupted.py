"""Retrying a run that failed because an at-most-once step was interrupted: nobody does the step again by accident."""

import asyncio
import json
import time

import pytest
from click.testing import CliRunner

from agentq.cli import interrupted
from agentq.cli.main import cli
from agentq.message import Cancel, ClaimRequest, EntryKind, Failed, Failure, RunQuery, Worker, Write
from agentq.stores import open_store
from agentq.worker.steps import step_key
from tests.helpers.stores import entry, envelope

SAID = "step 'pay' was begun at most once and its worker died in the middle: it may have happened"


@pytest.fixture
def made(tmp_path, monkeypatch):
    """A failed run, and how to call the command line on its store."""
    monkeypatch.setenv("COLUMNS", "200")
    one = asyncio.run(fill(tmp_path / "agentq.db"))

    def call(*words, code=0, given=""):
        result = CliRunner().invoke(cli, [*words, "--store", str(tmp_path / "agentq.db")], input=given)
        assert result.exit_code == code, result.output
        return result.output

    call.run, call.path = one, str(tmp_path / "agentq.db")
    return call


async def fill(path):
    one = envelope("process", args={"document": "a"})
    async with open_store(str(path)) as store:
        await store.submit([one])
        await store.beat(Worker(id="w", app="hello", queues=("default",), tasks=("process",), seen_at=time.time()), [], 30)
        request = ClaimRequest(worker="w", app="hello", queues=("default",), tasks=("process",), limit=1, lease_s=30)
        (claim,) = (await store.claim(request)).claims
        inner = Failure(type="StepInterrupted", message=SAID, permanent=True, step="pay")
        outer = Failure(type="agentq.errors.StepFailed", message="…", step="book", seq=1)
        journal = (
            entry(claim, 0, "pay", kind=EntryKind.STARTED),
            entry(claim, 1, "pay", kind=EntryKind.FAILED, value=inner),
            entry(claim, 2, "book", kind=EntryKind.FAILED, value=outer),
        )
        why = Failure(
            type="agentq.errors.StepFailed", message=f"step 'pay' failed: StepInterrupted: {SAID}", step="book", seq=2
        )
        await store.write(Write(ref=claim.ref, entries=journal, settle=Failed(failure=why)))
    return one.id


def state_of(made):
    async def look():
        async with open_store(made.path) as store:
            return (await store.runs(RunQuery(ids=(made.run,))))[0].state.value

    return asyncio.run(look())


def test_show_says_what_to_look_at_and_the_command_for_either_answer(made):
    out = made("runs", "show", made.run)
    key = step_key(made.run, ("", "pay", 0))
    assert f"look whether 'pay' happened (idempotency key {key}); a retry executes it again" in out
    assert f"agentq runs retry {made.run} --again pay --store" in out
    assert f"agentq runs fork {made.run} --keep 2 --store" in out
    assert f"agentq runs retry {made.run} --store" not in out


def test_retry_is_refused_unless_the_step_is_named(made):
    for words in [(), ("--again", "extract"), ("--json",)]:
        out = made("runs", "retry", made.run, *words, code=1)
        assert f"not retried: step 'pay' of run {made.run} was interrupted and may have happened" in out
        assert f"agentq runs retry {made.run} --again pay" in out
        assert state_of(made) == "failed"
    assert "queued again" in made("runs", "retry", made.run, "--again", "pay")
    assert state_of(made) == "queued"


def test_on_a_terminal_retry_asks(made, monkeypatch):
    monkeypatch.setattr(interrupted, "_on_terminal", lambda: True)
    assert "execute it again?" in made("runs", "retry", made.run, code=1, given="n\n")
    assert state_of(made) == "failed"
    assert "queued again" in made("runs", "retry", made.run, given="y\n")


def test_one_doubtful_run_among_several_stops_them_all(made):
    other = asyncio.run(_cancelled(made.path))
    made("runs", "retry", other, made.run, code=1)
    shown = json.loads(made("runs", "show", other, "--json"))
    assert shown["state"] == "cancelled"


async def _cancelled(path):

    one = envelope("process")
    async with open_store(path) as store:
        await store.submit([one])
        await store.command(Cancel(run_id=one.id))
    return one.id

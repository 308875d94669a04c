import asyncio
import time
from datetime import timedelta

import msgspec
import pytest
from click.testing import CliRunner

from agentq import AgentQ, Context, Retry, Signal
from agentq.cli.code import Code
from agentq.cli.expected import NO_TYPE
from agentq.cli.follow import Moment, Progress, moments
from agentq.cli.main import cli
from agentq.message import Cancel, Chunk, Entry, EntryKind, Failure, Run, RunState, Wait, WaitKind
from agentq.stores import open_store
from tests.helpers.stores import fill

RUN = Run(
    id="06h05h7fbmekv4at5hvuf50mm4",
    app="hello",
    task="agent",
    queue="default",
    state=RunState.RUNNING,
    args=b"{}",
    args_hash="x",
    submitted_at=time.time(),
)


def entry(seq, step, *, kind=EntryKind.DONE, value="ok", **more):
    return Entry(seq=seq, kind=kind, step=step, started_at=1.0, ended_at=1.5, value=msgspec.json.encode(value), **more)


@pytest.fixture
def shown(capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "100")

    def lines(*told, journal=(), run=RUN, code=None, quiet=False):
        with Progress(code, quiet=quiet) as progress:
            progress.begin(run, list(journal))
            for moment in told:
                progress.show(moment)
        return capsys.readouterr().err.splitlines()

    return lines


def test_what_was_done_before_is_said_first(shown):
    (line,) = shown(journal=[entry(0, "ask"), entry(1, "ctx.sleep", kind=EntryKind.WAITED), entry(2, "read")])
    assert line.rstrip() == "↻ 2 steps and 1 wait done before, the last one read: going on there"


def test_each_step_is_a_line(shown):
    moment = Moment(
        RUN,
        [entry(0, "ask"), entry(1, "read", branch="/0.1"), entry(2, "ctx.now"), entry(3, "ctx.sleep", kind=EntryKind.WAITED)],
    )
    assert [line.rstrip() for line in shown(moment)] == ["✓ ask  500 ms", "✓ read [0.1]  500 ms", "◔ sleep"]


def test_failures_and_tries_say_why(shown):
    refused = Failure(type="ConnectError", message="refused")
    moment = Moment(
        RUN, [entry(0, "ask", kind=EntryKind.TRIED, value=refused), entry(1, "ask", kind=EntryKind.FAILED, value=refused)]
    )
    assert [line.rstrip() for line in shown(moment)] == ["↻ ask  try 1: ConnectError: refused", "✗ ask  ConnectError: refused"]


def test_a_new_attempt_says_why_the_last_one_failed(shown):
    again = msgspec.structs.replace(RUN, attempt=2, failure=Failure(type="ValueError", message="no"))
    assert [line.rstrip() for line in shown(Moment(again, []))] == ["↻ attempt 1: ValueError: no"]


def test_a_burst_of_steps_is_counted(shown):
    lines = shown(Moment(RUN, [entry(n, "ask", occurrence=n) for n in range(100)]))
    assert lines[0].strip() == "… 80 more"
    assert len(lines) == 21


def test_a_question_is_asked_once_with_the_command_that_answers_it(shown):
    wait = Wait(branch="", step="ctx.wait_for", occurrence=0, kind=WaitKind.SIGNAL, ref="approved", ask="Publish?")
    lines = shown(Moment(RUN, [], waits=[wait]), Moment(RUN, [], waits=[wait]))
    assert [line.strip() for line in lines] == ["? Publish?", f"agentq runs signal {RUN.id} approved VALUE", NO_TYPE]


def test_a_wait_that_is_over_is_what_the_run_goes_on_from(shown):
    (line,) = shown(journal=[entry(0, "ask"), entry(1, "ctx.wait_for:approved", kind=EntryKind.WAITED)])
    assert line.rstrip() == "↻ 1 step and 1 wait done before, the last one wait_for:approved: going on there"
    (line,) = shown(journal=[entry(0, "ask"), entry(1, "ctx.sleep", kind=EntryKind.WAITED, value={"abandoned": True})])
    assert line.rstrip() == "↻ 1 step done before, the last one ask: going on there"


def test_quiet_still_asks(shown):
    wait = Wait(branch="", step="ctx.wait_for", occurrence=0, kind=WaitKind.SIGNAL, ref="approved", ask="Publish?")
    lines = shown(Moment(RUN, [entry(0, "ask")], waits=[wait]), quiet=True)
    assert [line.strip() for line in lines] == ["? Publish?", f"agentq runs signal {RUN.id} approved VALUE", NO_TYPE]


def test_a_long_sleep_is_announced(shown):
    wait = Wait(branch="", step="ctx.sleep", occurrence=0, kind=WaitKind.TIMER, due_at=time.time() + 90)
    soon = Wait(branch="", step="ctx.sleep", occurrence=1, kind=WaitKind.TIMER, due_at=time.time() + 0.5)
    (line,) = shown(Moment(RUN, [], waits=[wait, soon]), Moment(RUN, [], waits=[wait]))
    assert line.startswith("◔ sleep  until ")
    assert line.rstrip().endswith("1 m 30 s more")


aq = AgentQ("hello")
approved = Signal("approved", bool)


class Model:
    @aq.step(name="ask", retry=Retry(max_attempts=4, initial=timedelta(seconds=1)))
    async def ask(self) -> str:
        return ""


@aq.task(retry=Retry(max_attempts=3))
async def agent(ctx: Context) -> bool:
    return await ctx.wait_for(approved, ask="Publish?")


def test_a_try_says_in_which_branch_which_of_how_many_and_when_the_next_comes(shown):
    refused = Failure(type="ConnectError", message="refused")
    tried = [
        entry(0, "ask", branch="/0.1", kind=EntryKind.TRIED, value=refused, attempt=2),
        entry(1, "ask", branch="/0.1", kind=EntryKind.FAILED, value=refused, attempt=4),
        entry(2, "ask", kind=EntryKind.TRIED, value=refused, attempt=5),
        entry(3, "other", kind=EntryKind.TRIED, value=refused),
    ]
    assert [line.rstrip() for line in shown(Moment(RUN, tried), code=Code(agent))] == [
        "↻ ask [0.1]  try 2 of 4, again in 2.0 s: ConnectError: refused",
        "✗ ask [0.1]  try 4 of 4: ConnectError: refused",
        "↻ ask  try 5: ConnectError: refused",  # a retried run has a new set of tries
        "↻ other  try 1: ConnectError: refused",
    ]


def test_a_new_attempt_says_when_it_begins(shown):
    due = {
        "attempt": 2,
        "state": RunState.QUEUED,
        "due_at": time.time() + 60,
        "failure": Failure(type="ValueError", message="no"),
    }
    (line,) = shown(Moment(msgspec.structs.replace(RUN, **due), []), code=Code(agent))
    assert line.rstrip() == "↻ attempt 1 of 3, again in 1 m 00 s: ValueError: no"


def test_a_question_shows_an_answer_of_its_signals_type_and_is_asked_again_after_one_that_does_not_fit(shown):
    wait = Wait(
        branch="", step="ctx.wait_for:approved", occurrence=0, kind=WaitKind.SIGNAL, ref="approved", ask="Publish?\x1b[2J"
    )
    unfit = Failure(type="UnfitSignal", message="signal 'approved' does not fit: $: expected `bool`, got `str`")
    tried = entry(0, "ctx.wait_for:approved", kind=EntryKind.TRIED, value=unfit)
    lines = shown(Moment(RUN, [], waits=[wait]), Moment(RUN, [tried], waits=[wait]), code=Code(agent))
    question = ["? Publish?[2J", f"agentq runs signal {RUN.id} approved true"]
    assert [line.strip() for line in lines] == [*question, f"↻ wait_for:approved  {unfit.message}", *question]


def test_the_line_about_now_shows_progress_and_what_is_streamed():
    progress = Progress(quiet=True)
    run = msgspec.structs.replace(RUN, progress=0.5, progress_note="drafting", steps=3)
    chunk = Chunk(topic="token", payload=b'"hel\\u001blo"', epoch=1, n=0, at=1.0)
    moment = Moment(run, [], chunks=[chunk])
    progress.show(moment)
    text = progress._now(moment).plain
    for word in ("running", "50%", "3 steps", "drafting", "hello"):
        assert word in text


async def test_moments_end_when_the_run_is_final(tmp_path):
    made = await asyncio.to_thread(fill, tmp_path / "agentq.db")
    async with open_store(str(made.path)) as store:
        seen = []
        async for moment in moments(store, made.waiting):
            seen.append(moment)
            if len(seen) == 1:
                await store.command(Cancel(run_id=made.waiting))
        assert seen[0].waits[0].ask == "Publish the report?"
        assert [entry.step for entry in seen[0].entries] == ["search"]
        assert seen[-1].run.state is RunState.CANCELLED
        assert not any(moment.entries for moment in seen[1:])


def test_show_follow_draws_until_the_end(tmp_path, monkeypatch):
    monkeypatch.setenv("COLUMNS", "120")
    made = fill(tmp_path / "agentq.db")
    result = CliRunner().invoke(cli, ["runs", "show", made.succeeded, "--follow", "--store", str(made.path)])
    assert result.exit_code == 0
    assert '"pages": 3' in result.output
    refused = CliRunner().invoke(cli, ["runs", "show", made.succeeded, "--follow", "--json", "--store", str(made.path)])
    assert refused.exit_code == 2

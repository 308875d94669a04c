"""The demo's own arithmetic: what it counts, whom it strikes, what it tells, without any process."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
from click.testing import CliRunner
from rich.console import Console

from agentq.cli import demo as command
from agentq.cli.demo_agent.effects import Effect
from agentq.cli.demo_agent.values import Finding, Report, Source
from agentq.cli.demo_stage.crew import Crew, Fate, Member, environment
from agentq.cli.demo_stage.director import Director, unfinished
from agentq.cli.demo_stage.ending import render_report, render_tally
from agentq.cli.demo_stage.screen import render
from agentq.cli.demo_stage.story import Look, Story
from agentq.cli.demo_stage.tally import Resumption, count
from agentq.message import Entry, EntryKind, Run, RunState, Worker


def a_run(run_id="r1", state=RunState.RUNNING, **more) -> Run:
    given = {"app": "a", "task": "research", "queue": "q", "args": b"{}", "args_hash": "", "submitted_at": 1.0, "epoch": 1}
    return Run(id=run_id, state=state, **{**given, **more})


def effect(what="began", *, run="r1", key="k1", pid=100) -> Effect:
    return Effect(run=run, key=key, step="think", epoch=1, pid=pid, at=0.0, what=what)


def done(seq: int, step="think", occurrence=0, epoch=1) -> Entry:
    return Entry(seq=seq, kind=EntryKind.DONE, step=step, occurrence=occurrence, epoch=epoch)


def tallied(**changes):
    given = {
        "enqueued": ["r1"],
        "runs": [a_run(state=RunState.SUCCEEDED)],
        "journals": {"r1": [done(0), done(1, "search")]},
        "effects": [effect(w, key=k) for k in ("k1", "k2") for w in ("began", "ended")],
        "resumptions": [],
        "killed": {},
    }
    return count(**{**given, **changes})


class Process:
    """A worker process that is not there."""

    def __init__(self, pid: int) -> None:
        self.pid, self.returncode, self.signals = pid, None, []

    def poll(self):
        return self.returncode

    def send_signal(self, number):
        self.signals.append(number.name)


@pytest.fixture
def crew(tmp_path, monkeypatch):
    crew = Crew(tmp_path, 2, {})
    crew.members = [Member(n, Process(pid), tmp_path / "log") for n, pid in ((1, 100), (2, 200))]
    monkeypatch.setattr(Crew, "start", lambda _: SimpleNamespace(name="worker 3"))
    return crew


def look(at_s: float, *runs: Run) -> Look:
    workers = (Worker(id="w1", pid=100, slots=2), Worker(id="w2", pid=200, slots=2))
    return Look(at_s=at_s, runs=list(runs), workers=workers, asks={})


def test_a_good_demo_tallies_true():
    tally = tallied()
    assert tally.true
    assert (tally.runs, tally.committed, tally.executed, tally.repeated, tally.lost) == (1, 2, 2, 0, 0)


def test_a_body_that_was_under_way_in_a_killed_process_may_run_again():
    again = [effect(key="k1"), *(effect(w, key=k, pid=200) for k in ("k1", "k2") for w in ("began", "ended"))]
    tally = tallied(effects=again, killed={100: 5.0}, resumptions=[Resumption(run_id="r1", cause="kill", at_step=3)])
    assert tally.true
    assert (tally.executed, tally.repeated, tally.by_kill, tally.resumed_after_kill, tally.kept) == (3, 1, 1, 1, 3)


@pytest.mark.parametrize(("killed_at", "true"), [(0.1, True), (5.0, False)])
def test_a_body_that_had_ended_in_a_killed_process_may_run_again_only_if_it_had_just_ended(killed_at, true):
    again = [effect(w, key=k, pid=pid) for k, pid in (("k1", 100), ("k1", 200), ("k2", 200)) for w in ("began", "ended")]
    assert tallied(effects=again, killed={100: killed_at}).true is true


def test_a_body_that_failed_may_run_again():
    again = [effect(), effect("failed"), *(effect(w, key=k) for k in ("k1", "k2") for w in ("began", "ended"))]
    tally = tallied(effects=again)
    assert tally.true
    assert tally.by_failure == 1


@pytest.mark.parametrize(
    ("field", "changes"),
    [
        ("lost", {"enqueued": ["r1", "r2"]}),
        ("lost", {"runs": [a_run(state=RunState.FAILED)]}),
        ("twice", {"journals": {"r1": [done(0), done(1), done(2, "search")]}}),
        ("gaps", {"journals": {"r1": [done(0), done(2, "search")]}}),
        ("unexplained", {"journals": {"r1": [done(0)]}}),
        ("repeated", {"effects": [effect(w, key=k) for k in ("k1", "k1", "k2") for w in ("began", "ended")]}),
    ],
)
def test_every_broken_promise_shows(field, changes):
    tally = tallied(**changes)
    assert getattr(tally, field) == 1
    assert not tally.true


def test_the_worker_that_is_inside_a_step_of_an_advanced_run_is_killed(crew):
    director = Director(crew, not_before_s=4.0)
    fresh, advanced = a_run("r1", owner="w1", steps=1), a_run("r2", owner="w2", steps=5)
    bodies = [effect(run="r1", pid=100), effect(run="r2", pid=200)]
    assert director.to_kill(look(3.9, fresh, advanced), bodies) is None
    assert director.to_kill(look(4.0, fresh, advanced), bodies[:1]) is None
    target = director.to_kill(look(4.1, fresh, advanced), bodies)
    assert target is not None
    assert (target.member.number, [run.id for run in target.runs]) == (2, ["r2"])
    assert director.to_kill(look(4.2, fresh, advanced), bodies) is None


def test_another_worker_is_drained_later_and_each_is_replaced(crew):
    director = Director(crew, not_before_s=0.0)
    runs = [a_run("r1", owner="w1", steps=3), a_run("r2", owner="w2", steps=5)]
    victim = director.to_kill(look(1.0, *runs), [effect(run="r2", pid=200)])
    assert victim is not None
    crew.kill(victim.member)
    assert victim.member.process.signals == ["SIGKILL"]
    assert director.to_drain(look(3.9, *runs), []) is None
    other = director.to_drain(look(4.0, *runs), [])
    assert other is not None
    assert other.member.number == 1
    assert len(director.replacements(1.9)) == 0
    assert len(director.replacements(5.0)) == 2


def test_bodies_that_ended_or_failed_are_not_unfinished():
    seen = [effect(key="k1"), effect("ended", key="k1"), effect(key="k2"), effect("failed", key="k2"), effect(key="k3")]
    assert [e.key for e in unfinished(seen)[100]] == ["k3"]


def test_a_resumed_run_is_told_with_the_steps_that_it_kept(crew):
    story = Story(crew)
    running = a_run(owner="w2", steps=2)
    assert story.gone_on(look(1.0, running)) == []
    story.see(look(1.0, running))
    story.strike(1.0, "kill", [running], "worker 2 killed")
    assert story.gone_on(look(1.1, running)) == []
    resumed = a_run(owner="w1", epoch=2)
    assert story.gone_on(look(1.2, resumed)) == [resumed]
    story.resumed(1.2, resumed, [done(0), done(1, "search"), done(2, "read", epoch=2)], look(0).workers[0])
    assert story.events[-1].text == "run 1 resumed by worker 1 after its 2 finished steps"
    assert story.resumptions == [Resumption(run_id="r1", cause="kill", at_step=2)]
    assert story.gone_on(look(1.3, resumed)) == []


def test_a_run_that_ended_before_the_signal_came_is_not_resumed(crew):
    story = Story(crew)
    story.strike(1.0, "drain", [a_run()], "drained")
    assert story.gone_on(look(1.1, a_run(state=RunState.SUCCEEDED))) == []
    assert story.struck == {}


def test_waiting_for_children_is_told_once_and_the_end_of_a_run_too(crew):
    story = Story(crew)
    child = a_run("c", RunState.QUEUED, parent_id="r1", args=b'{"module":"json"}')
    for state in (RunState.RUNNING, RunState.WAITING, RunState.RUNNING, RunState.WAITING, RunState.SUCCEEDED):
        story.see(look(1.0, a_run(state=state, steps=4), child))
    assert [event.text for event in story.events] == ["run 1 waits for 1 child and needs no slot", "run 1 finished: 4 steps"]
    assert story.goals["c"] == "research json"
    assert story.labels == {"r1": "1", "c": "1.1"}


def test_a_worker_that_ends_unasked_has_died(crew):
    drained, died = crew.members
    drained.fate, drained.process.returncode, died.process.returncode = Fate.DRAINING, 0, 70
    assert [(m.number, m.fate) for m in crew.look()] == [(1, Fate.DRAINED), (2, Fate.DIED)]
    assert crew.look() == []


def test_the_workers_get_no_settings_from_outside(monkeypatch, tmp_path):
    monkeypatch.setenv("AGENTQ_CONCURRENCY", "99")
    monkeypatch.setenv("AGENTQ_DEMO_MODEL", "m")
    given = environment("sqlite:///x", tmp_path, 0.5)
    assert given["AGENTQ_DEMO_MODEL"] == "m"
    assert given["AGENTQ_STORE"] == "sqlite:///x"
    assert "AGENTQ_CONCURRENCY" not in given


def printed(renderable, width=80) -> str:
    console = Console(width=width, record=True, file=None, quiet=False, force_terminal=False)
    with console.capture() as captured:
        console.print(renderable)
    return captured.get()


def test_the_screen_fits_and_shows_runs_workers_and_events(crew):
    story = Story(crew)
    story.goals["r1"] = "Which modules open sockets, and which of them are the largest of all?"
    now = look(7.0, a_run(owner="w1", steps=12, last_step="search", progress=0.5), a_run("r2", RunState.SUCCEEDED))
    story.see(now)
    assert story.steps == {"r1": "search"}
    story.marks["r1"] = 9
    for n in range(50):
        story.tell(n, f"event {n}")
    shown = printed(render(now, story, title="SQLite", width=80, height=24))
    assert len(shown.splitlines()) <= 24
    assert max(map(len, shown.splitlines())) <= 80
    for part in ("SQLite", "Which modules", "search", "● worker 1", "at 9", "✓ succeeded", "pid 200", "event 49"):
        assert part in shown


def test_the_ending_shows_numbers_and_sources():
    shown = printed(render_tally(tallied(), {"kill": 1, "drain": 1}), 120)
    assert "0  runs lost" in shown
    finding = Finding("tasks cancel", [Source("asyncio/tasks.py", 198, "def cancel(self):")])
    report = Report(goal="Where?", answer="There.", findings=[finding], model="m", turns=3, tool_calls=5)
    assert "asyncio/tasks.py:198  def cancel(self):" in printed(render_report(report))


@pytest.mark.parametrize(("words", "true", "code"), [([], True, 0), ([], False, 1), (["--keep"], True, 0)])
def test_the_folder_goes_unless_it_is_kept(tmp_path, monkeypatch, words, true, code):
    monkeypatch.setattr(command.tempfile, "mkdtemp", lambda prefix: str(tmp_path / prefix))
    monkeypatch.setattr(command, "_perform", lambda *_, **__: (tmp_path / "agentq-demo-").mkdir() or (true, "r1"))
    result = CliRunner().invoke(command.demo, words)
    assert result.exit_code == code
    assert (tmp_path / "agentq-demo-").exists() == bool(words)
    assert ("agentq runs list --store sqlite:///" in result.output) == bool(words)

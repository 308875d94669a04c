import io
import time

import msgspec
from rich.console import Console

from agentq.cli.shown import RunView, rows_of, view_json
from agentq.cli.text import reason
from agentq.cli.timeline import render
from agentq.message import Entry, EntryKind, Failure, Run, RunState, Wait, WaitKind

NOW = time.time()


def run(**more):
    given = {"state": RunState.RUNNING, "submitted_at": NOW - 100, "started_at": NOW - 99, "epoch": 1, "args": b"{}", **more}
    return Run(id="06h05h7fbmekv4at5hvuf50mm4", app="hello", task="agent", queue="default", args_hash="x", **given)


def entry(seq, step, *, kind=EntryKind.DONE, start=0.0, took=1.0, value="ok", **more):
    raw = msgspec.json.encode(value)
    return Entry(
        seq=seq, kind=kind, step=step, started_at=NOW - 90 + start, ended_at=NOW - 90 + start + took, value=raw, **more
    )


def page(shown, entries, **options):
    view = RunView(run=shown, rows=rows_of(entries), **options.pop("view", {}))
    out = io.StringIO()
    console = Console(file=out, width=110, highlight=False, emoji=False, markup=False)
    console.print(render(view, width=110, now=NOW, **options))
    return [line.rstrip() for line in out.getvalue().splitlines()]


def line_with(lines, word):
    (found,) = [line for line in lines if word in line]
    return found


def test_a_takeover_is_a_line_between_the_epochs():
    lines = page(run(epoch=2), [entry(0, "ask", epoch=1), entry(1, "read", epoch=2, start=13)])
    marks = [n for n, line in enumerate(lines) if "went on" in line]
    assert [lines[n].strip() for n in marks] == ["↻ went on 12.0 s later · epoch 2"]
    assert "ask" in lines[marks[0] - 1]
    assert "read" in lines[marks[0] + 1]


def test_a_run_that_was_woken_says_so():
    lines = page(
        run(epoch=2), [entry(0, "ask", epoch=1), entry(1, "ctx.sleep", kind=EntryKind.WAITED, epoch=2, start=60, took=0)]
    )
    assert line_with(lines, "woke up")
    assert "┊" in line_with(lines, "◔ sleep")


def test_a_superseded_failure_is_a_try_of_the_step_that_was_done_in_the_end():
    failed = msgspec.to_builtins(Failure(type="ValueError", message="empty"))
    entries = [
        entry(0, "write", kind=EntryKind.FAILED, value=failed),
        entry(1, "write", kind=EntryKind.SUPERSEDED, took=0),
        entry(2, "write", start=5, epoch=2, took=2),
    ]
    (row,) = rows_of(entries)
    assert (row.tries, row.failed, row.took_s) == (2, False, 3.0)
    lines = page(run(), entries)
    assert line_with(lines, "✓ write").split()[2] == "2"
    assert line_with(lines, "try 1: ValueError: empty")


def test_a_failure_that_was_superseded_and_not_tried_again_yet_is_open():
    failed = msgspec.to_builtins(Failure(type="ValueError", message="empty"))
    (row,) = rows_of([entry(0, "write", kind=EntryKind.FAILED, value=failed), entry(1, "write", kind=EntryKind.SUPERSEDED)])
    assert (row.open, row.failed) == (True, False)


def test_an_at_most_once_step_without_an_end_is_told():
    lines = page(run(), [entry(0, "pay", kind=EntryKind.STARTED, took=0)])
    assert line_with(lines, "begun, and its end is not recorded")
    (row,) = rows_of([entry(0, "pay", kind=EntryKind.STARTED), entry(1, "pay")])
    assert (row.tries, row.open) == (1, False)


def test_items_of_a_transcript_are_lines_of_their_own():
    entries = [entry(n, "transcript:notes", kind=EntryKind.APPENDED, occurrence=n) for n in range(3)]
    assert len(rows_of(entries)) == 3


def test_a_long_journal_is_cut_in_its_middle_unless_all_of_it_is_wanted():
    entries = [entry(n, "ask", occurrence=n, start=n / 10, took=0.1) for n in range(200)]
    lines = page(run(), entries)
    assert line_with(lines, "… 160 more (--all)")
    assert len([line for line in lines if "ask" in line]) == 40
    assert len([line for line in page(run(), entries, everything=True) if "ask" in line]) == 200
    assert len([line for line in page(run(), entries, rows=5) if "ask" in line]) == 5


def test_lines_fit_the_width_whatever_is_in_them():
    entries = [
        entry(0, "a_step_with_a_very_long_name_that_never_ends_and_goes_on" * 2, branch="/0.1/2.3"),
        entry(1, "x", kind=EntryKind.FAILED, value=msgspec.to_builtins(Failure(type="E", message="long " * 100))),
    ]
    lines = page(run(), entries, values=True, view={"values": {0: b'"' + b"v" * 500 + b'"'}})
    assert max(map(len, lines)) <= 110


def test_waits_for_time_children_and_people_are_told_apart():
    child = run(parent_id="x", state=RunState.QUEUED)
    waits = (
        Wait(branch="", step="s", occurrence=0, kind=WaitKind.TIMER, due_at=NOW + 3600),
        Wait(branch="", step="c", occurrence=0, kind=WaitKind.CHILD, ref=child.id),
        Wait(branch="", step="w", occurrence=0, kind=WaitKind.SIGNAL, ref="approved", ask="Publish?", due_at=NOW + 60),
    )
    lines = page(run(state=RunState.WAITING), [], view={"waits": waits, "children": (child,)})
    assert "for 1 h 00 m more" in line_with(lines, "a moment")
    assert f"agent {child.id}  ○ queued" in line_with(lines, "a child")
    assert "for 1 m 00 s more" in line_with(lines, "Publish?")


def test_code_that_no_longer_fits_names_the_fork_with_its_run():
    why = Failure(type="agentq.errors.JournalMismatch", message="step 'a': start over: `agentq runs fork RUN --keep 7`, or …")
    shown = run(state=RunState.FAILED, failure=why)
    assert line_with(page(shown, []), "runs fork 06h05") == f"agentq runs fork {shown.id} --keep 7"


def test_an_answer_that_does_not_fit_is_shown_and_the_question_stays():
    unfit = msgspec.to_builtins(Failure(type="UnfitSignal", message="signal 'approved' does not fit: $: expected `bool`"))
    ask = Wait(
        branch="", step="ctx.wait_for:approved", occurrence=0, kind=WaitKind.SIGNAL, ref="approved", ask='Go? {"ok": true}'
    )
    tried = entry(0, "ctx.wait_for:approved", kind=EntryKind.TRIED, value=unfit, took=0)
    lines = page(run(state=RunState.WAITING), [tried], view={"waits": (ask,)})
    assert line_with(lines, "does not fit").strip() == "signal 'approved' does not fit: $: expected `bool`"
    assert line_with(lines, "runs signal").endswith("""approved '{"ok": true}'""")


def test_a_run_whose_worker_is_gone_says_so():
    assert line_with(page(run(lease_s=-3.0, owner="w"), [entry(0, "ask")]), "● its worker is gone")


def test_reasons_do_not_repeat_our_own_wrapping():
    assert (
        reason(Failure(type="agentq.errors.StepFailed", message="step 'a' failed: ValueError: b"))
        == "step 'a' failed: ValueError: b"
    )
    assert reason(Failure(type="agentq.errors.RunTimeout", message="c")) == "RunTimeout: c"
    assert reason(Failure(type="httpx.ConnectError", message="d")) == "httpx.ConnectError: d"


def test_the_json_of_a_view_has_no_surprises_for_programs():
    view = RunView(run=run(), rows=rows_of([entry(0, "ask"), entry(1, "ask", occurrence=1)]), values={0: b'{"a": 1}'})
    shown = msgspec.json.decode(msgspec.json.encode(view_json(view), enc_hook=str))
    assert [step["value"] for step in shown["steps"]] == [{"a": 1}, None]
    assert shown["steps"][0]["took_s"] == 1.0

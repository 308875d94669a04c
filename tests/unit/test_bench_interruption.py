"""What the bench of interruptions says about a library rests on this tally of marks."""

import pytest

from tests.bench.interruption.tally import Performance, Tally, performances, tally

OLD, NEW = 100, 200
"""Process groups of two workers."""


def marks(execution: str, *, worker: int, units: range, begin: float, task: str = "t", unit_s: float = 3.0) -> list[str]:
    """The lines of units done one after another."""
    lines = []
    for place, number in enumerate(units):
        start = begin + place * unit_s
        lines.append(f"{task} {number} {execution} {worker} begin {start:.3f}")
        lines.append(f"{task} {number} {execution} {worker} done {start + unit_s:.3f}")
    return lines


def added(lines: list[str], *, ended: dict[int, float] | None = None, now: float = 1000.0, tasks: int = 1) -> Tally:
    return tally(performances(lines, ended or {}, now), tasks=tasks, units=4, unit_s=3.0)


def test_work_done_once_is_repeated_by_nobody():
    result = added(marks("a", worker=OLD, units=range(4), begin=10))
    expected = Tally(
        complete=1, never_done=0, done_again=0, repeated_s=0, lost_s=0, overlap_s=0, executions=1, finished_s=pytest.approx(12)
    )
    assert result == expected


def test_a_task_begun_anew_repeats_all_that_was_done_and_the_piece_that_was_cut():
    lines = marks("a", worker=OLD, units=range(2), begin=0)
    lines.append(f"t 2 a {OLD} begin 6.000")
    lines += marks("b", worker=NEW, units=range(4), begin=20)
    result = added(lines, ended={OLD: 7.5})
    assert (result.done_again, result.repeated_s, result.overlap_s) == (2, 7.5, 0)
    assert (result.complete, result.executions, result.finished_s) == (1, 2, 32)


def test_a_task_resumed_repeats_only_the_piece_that_was_cut():
    lines = marks("a", worker=OLD, units=range(2), begin=0)
    lines.append(f"t 2 a {OLD} begin 6.000")
    lines += marks("b", worker=NEW, units=range(2, 4), begin=8)
    result = added(lines, ended={OLD: 7.0})
    assert (result.done_again, result.repeated_s, result.complete) == (0, 1, 1)


def test_a_unit_that_its_library_interrupts_ends_there():
    lines = [f"t 0 a {OLD} begin 0.000", f"t 0 a {OLD} cut 2.000", *marks("b", worker=OLD, units=range(4), begin=2)]
    result = added(lines)
    assert (result.repeated_s, result.overlap_s, result.done_again) == (2, 0, 0)


def test_two_at_once_overlap_and_three_count_twice():
    lines = marks("a", worker=OLD, units=range(4), begin=0)
    lines += marks("b", worker=NEW, units=range(4), begin=6)
    assert added(lines).overlap_s == pytest.approx(6)
    lines += marks("c", worker=NEW, units=range(1), begin=6)
    assert added(lines).overlap_s == pytest.approx(9)


def test_tasks_side_by_side_do_not_overlap():
    lines = marks("a", worker=OLD, units=range(4), begin=0) + marks("b", worker=OLD, units=range(4), begin=0, task="u")
    result = added(lines, tasks=2)
    assert (result.overlap_s, result.complete) == (0, 2)


def test_a_lost_task_is_never_finished():
    result = added(marks("a", worker=OLD, units=range(4), begin=0), tasks=2)
    assert (result.complete, result.never_done, result.finished_s) == (1, 4, None)


def test_work_on_a_task_that_nobody_goes_on_with_is_lost():
    lines = marks("a", worker=OLD, units=range(3), begin=0) + marks("b", worker=NEW, units=range(4), begin=0, task="u")
    result = added(lines, tasks=2)
    assert (result.complete, result.lost_s, result.repeated_s) == (1, 9, 0)
    under_way = [*lines, f"t 3 c {NEW} begin 30.000"]
    assert added(under_way, tasks=2, now=31.0).lost_s == 0


def test_the_end_is_when_the_last_unit_was_first_done():
    lines = marks("a", worker=OLD, units=range(4), begin=0) + marks("b", worker=NEW, units=range(4), begin=100)
    result = added(lines)
    assert (result.finished_s, result.repeated_s) == (12, 12)


def test_a_unit_under_way_counts_only_where_it_was_done_before():
    fresh = [*marks("a", worker=OLD, units=range(3), begin=0), f"t 3 a {OLD} begin 9.000"]
    assert added(fresh, now=10.0).repeated_s == 0
    again = [*marks("a", worker=OLD, units=range(4), begin=0), f"t 3 b {NEW} begin 20.000"]
    assert added(again, now=21.0).repeated_s == 1


def test_what_a_killed_worker_had_begun_lasted_until_its_end():
    lines = [f"t 0 a {OLD} begin 5.000", f"t 1 b {NEW} begin 6.000"]
    assert performances(lines, {OLD: 7.0}, 8.0) == [
        Performance(task="t", number=0, execution="a", begin=5, end=7, ending="cut"),
        Performance(task="t", number=1, execution="b", begin=6, end=8, ending="open"),
    ]

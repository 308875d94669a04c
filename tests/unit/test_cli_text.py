import pytest

from agentq.cli.axis import Axis
from agentq.cli.text import age, bar, clean, count, duration, money, one_line, payload, short_ids


@pytest.mark.parametrize(
    ("seconds", "shown"),
    [
        (None, ""),
        (0, "0 ms"),
        (0.00005, "0.05 ms"),
        (0.0042, "4.2 ms"),
        (0.412, "412 ms"),
        (0.9996, "1.0 s"),
        (12.34, "12.3 s"),
        (200, "3 m 20 s"),
        (7500, "2 h 05 m"),
        (59.96, "1 m 00 s"),
        (3 * 86400 + 4 * 3600, "3 d 4 h"),
        (-5, "-5.0 s"),
    ],
)
def test_durations_read_in_two_units_at_most(seconds, shown):
    assert duration(seconds) == shown


@pytest.mark.parametrize(("seconds", "shown"), [(0.3, "now"), (12, "12 s"), (185, "3 m"), (7300, "2 h"), (500_000, "5 d")])
def test_ages_read_in_one_unit(seconds, shown):
    assert age(seconds) == shown


def test_money_shows_cents_of_large_and_fractions_of_small_amounts():
    assert [money(0), money(12_345_000), money(5_250_000_000)] == ["", "$0.0123", "$5.25"]


def test_counts_know_singular_and_plural():
    assert [count(1, "run"), count(2, "run"), count(1234, "run")] == ["1 run", "2 runs", "1,234 runs"]


def test_a_bar_fills_in_eighths_and_never_overflows():
    assert bar(0.5, 4) == "██  "
    assert bar(0.53125, 4) == "██▏ "
    assert bar(7, 3) == "███"
    assert bar(-1, 3) == "   "


def test_control_characters_do_not_reach_the_terminal():
    assert clean("a\x1b[2Jb\x07") == "a[2Jb"
    assert one_line("a\n  b\x1b", 80) == "a b"
    assert payload(b'"x\\u001b[31m"', 80) == "x[31m"


def test_payloads_are_cut_to_the_room_there_is():
    assert payload(b'"hello world"', 8) == "hello w…"
    assert payload(b'{"a": 1}', 80) == '{"a":1}'
    assert payload(b"\xff\xfe", 80) == "<2 bytes>"
    assert payload(None, 80) == ""


def test_ids_are_shortened_to_what_tells_them_apart():
    ids = ["06h05h7fbmekv4at5hvuf50mm4", "06h05h7fbmv3h5oq1eg59dloic"]
    assert list(short_ids(ids).values()) == ["06h05h7fbme", "06h05h7fbmv"]
    assert short_ids(["same", "same"]) == {"same": "same"}


def test_the_axis_gives_stretches_without_work_a_sliver():
    axis = Axis([(0, 10), (86_400, 86_410)], 100)
    assert axis.place(10) == pytest.approx(49.5, abs=1)
    assert axis.place(86_400) == pytest.approx(50.5, abs=1)
    assert axis.place(86_410) == 100


def test_the_axis_draws_what_is_too_short_to_see_as_a_hairline():
    axis = Axis([(0, 100), (100, 100.0001)], 50)
    assert axis.draw(100, 100.0001).strip() == "▏"
    assert len(axis.draw(0, 100)) == 50
    assert Axis([], 10).draw(0, 1).strip() == "▏"

"""Where a partition is read on from, and what of it was acknowledged."""

import pytest

from agentq.brokers.kafka.positions import start
from agentq.brokers.kafka.reading import Reading


@pytest.mark.parametrize(
    ("known", "committed", "begin", "end", "offset", "expected"),
    [
        (None, None, 0, 10, 0, None),  # never read
        (None, None, 4, 10, 4, None),
        (None, 6, 0, 10, 6, None),  # by another store
        (None, 2, 4, 10, 4, 2),  # …and retention ate two
        (None, 12, 0, 10, 0, None),  # …of another log
        (7, None, 0, 10, 7, None),  # the group was empty for a week
        (7, 3, 0, 10, 7, None),  # the store goes before the group
        (7, 9, 0, 10, 7, None),
        (10, 9, 0, 10, 10, None),
        (2, 2, 4, 10, 4, 2),  # retention ate two
        (12, 12, 0, 10, 10, 12),  # the log lost its end
        (12, 8, 0, 10, 8, 12),  # …and was read on since
    ],
)
def test_the_place(known: int | None, committed: int | None, begin: int, end: int, offset: int, expected: int | None) -> None:
    decided = start(known=known, committed=committed, begin=begin, end=end, identified=True)
    assert (decided.offset, decided.expected) == (offset, expected)
    assert bool(decided.reason) == (expected is not None)


def test_without_ids_a_shorter_log_is_another_one() -> None:
    assert start(known=12, committed=8, begin=0, end=10, identified=False).offset == 0


def test_the_offset_of_an_earlier_topic_counts_for_nothing() -> None:
    decided = start(known=None, committed=None, begin=0, end=10, identified=True, inherited=True)
    assert (decided.offset, decided.expected) == (0, 0)


def reading(*offsets: int) -> Reading:
    found = Reading("t", 0, source="s", queue="q", offset=offsets[0])
    for offset in offsets:
        found.hand_out(offset)
        found.next = offset + 1
    return found


def test_nothing_is_safe_beyond_a_hole() -> None:
    one = reading(5, 6, 7)
    one.acknowledge(6)
    assert one.safe == 5
    one.acknowledge(5)
    assert one.safe == 7


def test_with_nothing_outstanding_the_position_is_safe() -> None:
    one = reading(5, 6)
    one.next = 9  # behind control records
    one.acknowledge(5)
    one.acknowledge(6)
    assert one.safe == 9


def test_what_was_taken_back_is_outstanding_again() -> None:
    one = reading(5, 6, 7)
    one.acknowledge(7)
    assert one.take_back(6)
    assert (one.next, one.safe) == (6, 5)
    one.acknowledge(6)  # of the earlier handing-out: it will come again
    one.acknowledge(5)
    assert one.safe == 6
    assert not one.take_back(6)

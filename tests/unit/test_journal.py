"""The rules of replay, as pure functions of entries."""

import msgspec
import pytest

from agentq.journal import ABANDONED, History, mismatch_message, superseding
from agentq.message import Entry, EntryKind, Failure

DONE, FAILED, TRIED, SUPERSEDED = EntryKind.DONE, EntryKind.FAILED, EntryKind.TRIED, EntryKind.SUPERSEDED


def journal(*given: tuple[EntryKind, str] | dict[str, object]) -> list[Entry]:
    """Entries numbered from 0, each (kind, step) or fields."""
    entries = []
    for seq, each in enumerate(given):
        fields = {"kind": each[0], "step": each[1]} if isinstance(each, tuple) else each
        entries.append(msgspec.convert({"value": b"1", **fields, "seq": seq}, Entry))
    return entries


def failure(seq: int | None = None) -> bytes:
    return msgspec.json.encode(Failure(type="ValueError", message="x", seq=seq))


def test_a_place_answers_with_what_was_recorded_there() -> None:
    history = History.of(journal((DONE, "a"), (FAILED, "b"), (EntryKind.WAITED, "w"), (EntryKind.APPENDED, "t")))
    for name, seq in (("a", 0), ("b", 1), ("w", 2), ("t", 3)):
        entry = history.read(("", name, 0))
        assert entry is not None
        assert entry.seq == seq
    assert history.read(("", "a", 1)) is None
    assert history.read(("/0.0", "a", 0)) is None
    assert history.next_seq == 4


@pytest.mark.parametrize("seqs", [(1,), (0, 2), (0, 0), (1, 0)])
def test_a_gap_is_an_error(seqs: tuple[int, ...]) -> None:
    entries = [Entry(seq=seq, kind=DONE, step=f"s{n}") for n, seq in enumerate(seqs)]
    with pytest.raises(ValueError, match="journal gap"):
        History.of(entries)


def test_marks_and_tries_answer_nothing() -> None:
    history = History.of(journal((EntryKind.STARTED, "a"), (TRIED, "b"), (EntryKind.SAVED, "ctx.save")))
    assert history.answers == {}
    assert list(history.begun) == [("", "a", 0)]
    assert list(history.saved) == [""]


@pytest.mark.parametrize("end", [DONE, FAILED, TRIED])
def test_a_begun_step_has_ended_when_its_end_is_recorded(end: EntryKind) -> None:
    assert History.of(journal((EntryKind.STARTED, "a"), (end, "a"))).begun == {}


def test_tries_are_counted_and_those_before_a_superseded_failure_are_forgiven() -> None:
    place = ("", "a", 0)
    history = History.of(journal({"kind": "tried", "step": "a", "attempt": 1}, {"kind": "tried", "step": "a", "attempt": 2}))
    assert history.next_try(place) == (3, 2)
    for entry in journal((DONE, "x"), (DONE, "x"), {"kind": "failed", "step": "a", "attempt": 3, "value": failure()})[2:]:
        history.append(entry)
    assert history.read(place) is not None
    (superseded,) = superseding([history.answers[place]], history.next_seq, epoch=2, now=5.0)
    assert (superseded.kind, superseded.attempt, superseded.seq, superseded.epoch) == (SUPERSEDED, 3, 3, 2)
    history.append(superseded)
    assert history.read(place) is None
    assert history.next_try(place) == (4, 0)


def test_superseding_an_old_failure_leaves_a_newer_answer_alone() -> None:
    entries = journal(
        {"kind": "failed", "step": "a", "attempt": 1, "value": failure()},
        {"kind": "superseded", "step": "a", "attempt": 1},
        {"kind": "done", "step": "a", "attempt": 2},
        {"kind": "superseded", "step": "a", "attempt": 1},
    )
    entry = History.of(entries).read(("", "a", 0))
    assert entry is not None
    assert entry.seq == 2


def test_a_superseded_failure_takes_the_failures_inside_it_along() -> None:
    entries = journal(
        {"kind": "failed", "step": "in", "branch": "/mid#0", "value": failure()},
        {"kind": "failed", "step": "mid", "value": failure(0)},
        {"kind": "failed", "step": "caught", "value": failure()},
        {"kind": "superseded", "step": "mid"},
    )
    history = History.of(entries)
    assert set(history.answers) == {("", "caught", 0)}


def test_an_abandoned_wait_answers_nothing_and_counts_as_a_try() -> None:
    history = History.of(journal({"kind": "waited", "step": "w", "value": ABANDONED}))
    assert history.read(("", "w", 0)) is None
    assert history.next_try(("", "w", 0))[0] == 2


def test_a_branch_is_replaying_until_its_code_has_come_to_all_that_was_recorded() -> None:
    history = History.of(journal((DONE, "a"), (DONE, "b"), {"kind": "done", "step": "c", "branch": "/0.0"}))
    assert history.replaying("")
    history.read(("", "a", 0))
    assert history.replaying("")
    history.read(("", "b", 0))
    assert history.replaying(""), "what lies in its own branches comes later"
    assert history.replaying("/0.0")
    assert not history.replaying("/0.1")
    history.read(("/0.0", "c", 0))
    assert not history.replaying("")
    assert not history.replaying("/0.0")
    assert not History.of([]).replaying("")


def test_a_call_that_was_not_recorded_ends_the_replay_of_its_branch() -> None:
    history = History.of(journal((DONE, "a"), (DONE, "b")))
    assert history.read(("", "new", 0)) is None
    assert not history.replaying("")


def test_a_snapshot_puts_behind_what_its_branch_and_the_branches_below_recorded_before() -> None:
    entries = journal(
        {"kind": "appended", "step": "ctx.transcript:n"},
        {"kind": "appended", "step": "ctx.transcript:n", "branch": "/0.1"},
        {"kind": "appended", "step": "ctx.transcript:n", "branch": "/work#0"},
        {"kind": "appended", "step": "ctx.transcript:n", "branch": "~abc"},
        {"kind": "saved", "step": "ctx.save"},
        {"kind": "appended", "step": "ctx.transcript:n", "occurrence": 1},
        {"kind": "appended", "step": "ctx.transcript:n", "branch": "/1.0"},
        {"kind": "appended", "step": "ctx.transcript:n", "branch": "/work#1"},
        {"kind": "appended", "step": "ctx.transcript:n", "branch": "~def"},
    )
    history = History.of(entries)
    counters = {"ctx.transcript:n": 1, "ctx.transcript:n~abc": 1, "ctx.gather": 1, "work": 1, "ctx.save": 1}
    history.skip_to("", counters)
    assert [entry.seq for entry in history.passed("ctx.transcript:n")] == [0, 1, 2, 3]


def test_usage_is_summed_over_all_entries_and_steps_are_what_the_user_named() -> None:
    entries = journal(
        {"kind": "tried", "step": "a", "tokens": 5, "cost_nanos": 7}, {"kind": "done", "step": "a", "tokens": 6},
        {"kind": "done", "step": "ctx.now"}, {"kind": "done", "step": "ctx.spend", "tokens": 1},
    )  # fmt: skip
    history = History.of(entries)
    assert (history.steps, history.tokens, history.cost_nanos) == (1, 12, 7)


def test_a_mismatch_names_place_entry_hashes_versions_and_remedies() -> None:
    entry = Entry(seq=4, kind=DONE, step="work", branch="/0.1", occurrence=2, args_hash="aaaa")
    text = mismatch_message(entry, "bbbb", version_then="v1", version_now="v2")
    for words in ("'work'", "call 3", "branch /0.1", "entry 4", "aaaa", "bbbb", "'v1'", "'v2'", "--keep 4", "rerun", "ignore"):
        assert words in text
    assert "version" not in mismatch_message(entry, "bbbb", version_then="v1", version_now="v1")

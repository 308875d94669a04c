"""Clauses about what arrives through a broker: admissions, positions, dead letters, parcels, and commands that came early."""

# ruff: noqa: D103, PLR2004, S101 - a clause is named after what it proves, and asserts it with plain values

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING, Any

from agentq.errors import NotFound
from agentq.message import (
    Admission,
    Cancel,
    DeadLetter,
    DropLetters,
    LetterQuery,
    Pause,
    Position,
    Reply,
    Resume,
    RunQuery,
    RunState,
    Send,
)
from agentq.stores.base import PARCEL_S
from agentq.testing.conformance.bench import Bench, clause, signal
from agentq.testing.conformance.ringing import rings

if TYPE_CHECKING:
    from agentq.message import Command, Submitted


def _letter(bench: Bench, letter_id: str, **fields: Any) -> DeadLetter:
    given: dict[str, Any] = {
        "queue": "queue", "body": b"{\xff", "reason": "body: no JSON", "received_at": bench.clock.wall(),
    }  # fmt: skip
    return DeadLetter(id=letter_id, **(given | fields))


async def _admit(bench: Bench, *run_ids: str, **parts: Any) -> list[Submitted]:
    envelopes = tuple(bench.envelope(run_id) for run_id in run_ids)
    return await bench.store.admit(Admission(envelopes=envelopes, **parts))


async def _letters(bench: Bench, **query: Any) -> list[str]:
    return [letter.id for letter in await bench.store.letters(LetterQuery(**query))]


@clause
async def an_admission_brings_runs_letters_and_positions(bench: Bench) -> None:
    letter = _letter(bench, "letter-a", attributes={"tenant": "acme"}, origin="orders/3@17")
    position = Position(source="topic", partition=3, offset=18)
    answers = await _admit(bench, "run-a", "run-b", letters=(letter,), positions=(position,))
    assert [(answer.id, answer.created, answer.state) for answer in answers] == [
        ("run-a", True, RunState.QUEUED),
        ("run-b", True, RunState.QUEUED),
    ]
    assert await bench.store.letters(LetterQuery()) == [letter]
    assert await bench.store.positions("topic") == {3: 18}
    assert [claim.run.id for claim in await bench.claim()] == ["run-a", "run-b"]


@clause
async def an_admission_answers_for_what_stands_as_a_submission_does(bench: Bench) -> None:
    await bench.submit("run-b")
    await bench.take()
    given = [bench.envelope(run_id, args=b'{"n":2}', args_hash="h2") for run_id in ("run-c", "run-b", "run-c")]
    answers = await bench.store.admit(Admission(envelopes=tuple(given)))
    assert [(answer.id, answer.created) for answer in answers] == [("run-c", True), ("run-b", False), ("run-c", False)]
    assert (answers[1].args, answers[1].args_hash, answers[1].state) == (b'{"n":1}', "h1", RunState.RUNNING)


@clause
async def an_admission_that_came_twice_adds_nothing(bench: Bench) -> None:
    parts = {"letters": (_letter(bench, "letter-a"),), "positions": (Position(source="topic", partition=0, offset=2),)}
    await _admit(bench, "run-a", **parts)
    [again] = await _admit(bench, "run-a", **parts)
    assert not again.created
    assert len(await bench.store.runs(RunQuery())) == len(await bench.store.letters(LetterQuery())) == 1
    assert await bench.store.positions("topic") == {0: 2}


@clause
async def an_admission_of_nothing_is_fine(bench: Bench) -> None:
    assert await bench.store.admit(Admission()) == []


@clause
async def five_thousand_envelopes_are_admitted_in_one_piece(bench: Bench) -> None:
    answers = await _admit(bench, *(f"run-{n:05d}" for n in range(5000)))
    assert len(answers) == 5000
    assert all(answer.created for answer in answers)


@clause
async def an_admission_is_whole_or_not_at_all(bench: Bench) -> None:
    beyond = Position(source="topic", partition=0, offset=1 << 80)
    try:
        await _admit(bench, "run-a", letters=(_letter(bench, "letter-a"),), positions=(beyond,))
    except Exception:  # noqa: BLE001 - whatever a store raises at a number that it cannot keep
        there = 0
    else:
        there = 1
    assert len(await bench.store.runs(RunQuery())) == there
    assert len(await bench.store.letters(LetterQuery())) == there
    assert len(await bench.store.positions("topic")) == there


@clause
async def an_admission_rings_for_work(bench: Bench) -> None:
    await rings(bench, "work", _admit(bench, "run-a"))


@clause
async def a_position_never_moves_back(bench: Bench) -> None:
    for offset in (7, 5, 9, 8):
        await _admit(bench, positions=(Position(source="topic", partition=0, offset=offset),))
    assert await bench.store.positions("topic") == {0: 9}
    twice = tuple(Position(source="topic", partition=0, offset=offset) for offset in (12, 11))
    await _admit(bench, positions=twice)
    assert await bench.store.positions("topic") == {0: 12}


@clause
async def each_source_has_its_own_positions(bench: Bench) -> None:
    given = [("a", 0, 3), ("a", 1, 0), ("b", 0, 5)]
    await _admit(bench, positions=tuple(Position(source=s, partition=p, offset=o) for s, p, o in given))
    assert await bench.store.positions("a") == {0: 3, 1: 0}
    assert await bench.store.positions("b") == {0: 5}
    assert await bench.store.positions("c") == {}


# Dead letters


@clause
async def a_letter_that_comes_again_is_left_as_it_is(bench: Bench) -> None:
    first = _letter(bench, "letter-a")
    await _admit(bench, letters=(first,))
    bench.clock.advance(5)
    await _admit(bench, letters=(_letter(bench, "letter-a", reason="another"),))
    assert await bench.store.letters(LetterQuery()) == [first]


@clause
async def letters_are_listed_newest_first_and_no_more_than_asked(bench: Bench) -> None:
    for name in ("letter-b", "letter-a", "letter-c"):
        await _admit(bench, letters=(_letter(bench, name),))
        bench.clock.advance(1)
    assert await _letters(bench) == ["letter-c", "letter-a", "letter-b"]
    assert await _letters(bench, limit=2) == ["letter-c", "letter-a"]


@clause
async def letters_are_found_by_queue_by_id_and_by_prefix(bench: Bench) -> None:
    for letter_id, queue in (("0123456789", "q1"), ("0123zzzzzz", "q2"), ("abcdefghij", "q2"), ("abcdefghij-2", "q2")):
        await _admit(bench, letters=(_letter(bench, letter_id, queue=queue),))
    assert await _letters(bench, queue="q1") == ["0123456789"]
    assert await _letters(bench, ids=("01234",)) == ["0123456789"]
    assert set(await _letters(bench, ids=("0123",))) == {"0123456789", "0123zzzzzz"}
    assert await _letters(bench, ids=("0123",), queue="q2") == ["0123zzzzzz"]
    assert await _letters(bench, ids=("abcdefghij",)) == ["abcdefghij"], "a full id is not a prefix of others"
    assert set(await _letters(bench, ids=("0123456789", "abcdefghij"))) == {"0123456789", "abcdefghij"}
    for none in ("abc", "a%cd_", "nowhere"):
        assert await _letters(bench, ids=(none,)) == [], none


@clause
async def letters_that_are_dropped_are_gone(bench: Bench) -> None:
    await _admit(bench, letters=tuple(_letter(bench, f"letter-{n}") for n in range(3)))
    drop = DropLetters(ids=("letter-0", "letter-2", "letter-9"))
    assert [await bench.store.command(drop) for _ in range(2)] == [Reply.DONE, Reply.UNCHANGED]
    assert await bench.store.command(DropLetters(ids=())) is Reply.UNCHANGED
    assert await _letters(bench) == ["letter-1"]


@clause
async def a_dropped_letter_that_comes_again_is_a_letter_again(bench: Bench) -> None:
    await _admit(bench, letters=(_letter(bench, "letter-a"),))
    await bench.store.command(DropLetters(ids=("letter-a",)))
    await _admit(bench, letters=(_letter(bench, "letter-a"),))
    assert await _letters(bench) == ["letter-a"]


@clause
async def letters_are_counted_per_queue_also_where_nothing_else_is(bench: Bench) -> None:
    letters = [_letter(bench, f"letter-{n}", queue="dead end" if n < 2 else "queue") for n in range(3)]
    await _admit(bench, "run-a", letters=tuple(letters))
    stats = {stats.queue: (stats.dead, stats.runnable) for stats in (await bench.store.census()).queues}
    assert stats == {"dead end": (2, 0), "queue": (1, 1)}
    await bench.store.command(DropLetters(ids=("letter-0", "letter-1")))
    assert [stats.queue for stats in (await bench.store.census()).queues] == ["queue"]


@clause
async def letters_stay_until_they_are_dropped(bench: Bench) -> None:
    await _admit(bench, letters=(_letter(bench, "letter-a"),))
    bench.clock.advance(100 * 86_400)
    await bench.store.sweep(retention_s=1)
    assert await _letters(bench) == ["letter-a"]


# Parcels


async def _gone(bench: Bench, sha: str) -> bool:
    try:
        await bench.store.blob(sha)
    except NotFound:
        return True
    return False


@clause
async def a_parcel_is_read_by_the_digest_of_what_it_holds(bench: Bench) -> None:
    data = b'{"text":"' + b"x" * 300_000 + b'"}'
    addresses = [await bench.store.keep(data) for _ in range(2)]
    assert addresses == [hashlib.sha256(data).hexdigest()] * 2
    assert await bench.store.blob(addresses[0]) == data


@clause
async def a_parcel_stays_for_its_time(bench: Bench) -> None:
    sha = await bench.store.keep(b"old")
    bench.clock.advance(PARCEL_S - 60)
    await bench.store.sweep(retention_s=1)
    assert not await _gone(bench, sha)
    bench.clock.advance(61)
    await bench.store.sweep(retention_s=1)
    assert await _gone(bench, sha)


@clause
async def a_parcel_that_is_kept_again_stays_as_long_again(bench: Bench) -> None:
    sha = await bench.store.keep(b"twice")
    bench.clock.advance(PARCEL_S - 60)
    await bench.store.keep(b"twice")
    bench.clock.advance(61)
    await bench.store.sweep(retention_s=1)
    assert not await _gone(bench, sha)


@clause
async def a_parcel_outlives_a_run_of_the_same_content(bench: Bench) -> None:
    data = b'{"text":"' + b"x" * 300_000 + b'"}'
    sha = await bench.store.keep(data)
    await bench.succeed(await bench.begin(args=data))
    bench.clock.advance(10)
    assert await bench.store.sweep(retention_s=1) == 1
    assert await bench.store.blob(sha) == data


# Commands that come before the run


async def _early(bench: Bench, *commands: Command) -> None:
    for command in commands:
        assert await bench.store.command(command) is Reply.DONE


@clause
async def a_command_for_an_unknown_run_finds_nothing_unless_it_is_early(bench: Bench) -> None:
    for command in (
        Cancel(run_id="run-a"), Pause(run_id="run-a"), Resume(run_id="run-a"),
        Send(run_id="run-a", name="go", signal_id="1", payload=b"1"),
    ):  # fmt: skip
        assert await bench.store.command(command) is Reply.NOT_FOUND
    await bench.submit("run-a")
    assert (await bench.take()).run.paused is False


@clause
async def a_run_that_was_cancelled_early_is_born_cancelled(bench: Bench) -> None:
    await _early(bench, Cancel(run_id="run-a", early=True), Cancel(run_id="run-b", early=True))
    assert await bench.store.runs(RunQuery()) == []
    [answer] = await bench.submit("run-a")
    assert (answer.created, answer.state) == (True, RunState.CANCELLED)
    answers = await _admit(bench, "run-c", "run-b")
    assert [(answer.id, answer.created, answer.state) for answer in answers] == [
        ("run-c", True, RunState.QUEUED),
        ("run-b", True, RunState.CANCELLED),
    ]
    assert ((await bench.run()).state, (await bench.run()).finished_at) == (RunState.CANCELLED, bench.clock.wall())
    assert (await bench.take()).run.id == "run-c"


@clause
async def a_run_that_was_paused_early_is_born_paused(bench: Bench) -> None:
    await _early(bench, Pause(run_id="run-a", early=True))
    [answer] = await _admit(bench, "run-a")
    assert (answer.created, answer.state) == (True, RunState.QUEUED)
    assert (await bench.run()).paused
    assert await bench.claim() == []
    await bench.store.command(Resume(run_id="run-a"))
    await bench.take()


@clause
async def early_commands_are_applied_in_their_order(bench: Bench) -> None:
    pause, resume = Pause(run_id="run-a", early=True), Resume(run_id="run-a", early=True)
    await _early(bench, pause, resume)
    await _early(bench, Resume(run_id="run-b", early=True), Pause(run_id="run-b", early=True))
    await _admit(bench, "run-a", "run-b")
    assert (await bench.take()).run.id == "run-a"


@clause
async def signals_that_came_early_are_in_the_mailbox_once_and_in_order(bench: Bench) -> None:
    sent = [Send(run_id="run-a", name="go", signal_id=str(n), payload=b"%d" % n, early=True) for n in (2, 1, 2, 3)]
    await _early(bench, *sent)
    claim = await bench.begin()
    await bench.commit(claim, waits=(signal(),))
    assert [arrival.payload for arrival in await bench.store.inbox(["run-a"])] == [b"2", b"1", b"3"]
    assert await bench.store.command(sent[0]) is Reply.UNCHANGED


@clause
async def an_early_command_meets_one_run_once(bench: Bench) -> None:
    await _early(bench, Pause(run_id="run-a", early=True))
    await bench.submit("run-b", "run-a", "run-a")
    assert (await bench.take()).run.id == "run-b"
    await bench.store.command(Resume(run_id="run-a"))
    await bench.submit("run-a")
    assert (await bench.take()).run.id == "run-a"


@clause
async def an_early_command_for_a_run_that_is_there_acts_at_once(bench: Bench) -> None:
    await bench.submit("run-a")
    assert await bench.store.command(Pause(run_id="run-a", early=True)) is Reply.DONE
    assert await bench.store.command(Pause(run_id="run-a", early=True)) is Reply.UNCHANGED
    assert await bench.claim() == []
    await bench.store.command(Cancel(run_id="run-a", early=True))
    assert await bench.store.command(Pause(run_id="run-a", early=True)) is Reply.REFUSED


@clause
async def children_meet_their_early_commands_too(bench: Bench) -> None:
    await _early(bench, Cancel(run_id="run-b", early=True))
    parent = await bench.begin()
    await bench.commit(parent, children=(bench.envelope("run-b"),))
    assert (await bench.run("run-b")).state is RunState.CANCELLED


@clause
async def a_run_that_was_cancelled_early_never_holds_its_ordering_key(bench: Bench) -> None:
    await _early(bench, Cancel(run_id="run-a", early=True), Pause(run_id="run-c", early=True))
    await bench.submit("run-a", "run-b", "run-c", "run-d", ordering_key="k")
    await bench.succeed(await bench.take())
    assert await bench.claim() == []
    [stats] = (await bench.store.census()).queues
    assert (stats.paused, stats.ordered) == (1, 1)


@clause
async def early_commands_are_forgotten_after_their_time(bench: Bench) -> None:
    await _early(bench, Pause(run_id="run-a", early=True))
    bench.clock.advance(PARCEL_S - 60)
    await bench.store.sweep(retention_s=1)
    await _early(bench, Pause(run_id="run-b", early=True))
    await bench.submit("run-a")
    await _early(bench, Pause(run_id="run-c", early=True))
    bench.clock.advance(PARCEL_S + 1)
    await bench.store.sweep(retention_s=1)
    await bench.submit("run-b", "run-c")
    assert [claim.run.id for claim in await bench.claim()] == ["run-b", "run-c"]

"""Counting whether anything in a run still moves."""

from agentq.worker.presence import Presence


def test_a_fresh_run_moves_and_is_quiet_when_its_only_line_waits() -> None:
    presence = Presence()
    assert not presence.quiet
    presence.rest(foreign=False)
    assert presence.quiet
    presence.rise(foreign=False)
    assert not presence.quiet


def test_a_step_body_anywhere_keeps_the_run_moving() -> None:
    presence = Presence()
    presence.rest(foreign=False)
    presence.begin()
    assert not presence.quiet
    assert not presence.perhaps_quiet
    presence.end()
    assert presence.quiet


def test_lines_of_the_users_own_make_quiet_uncertain() -> None:
    presence = Presence()
    presence.rest(foreign=True)
    assert not presence.quiet, "the root may be doing something"
    assert presence.perhaps_quiet
    presence.begin()
    assert not presence.perhaps_quiet
    presence.end()
    presence.rise(foreign=True)
    assert not presence.perhaps_quiet


def test_every_verb_is_seen() -> None:
    presence = Presence()
    presence.begin()
    presence.end()
    presence.rest(foreign=False)
    presence.rise(foreign=False)
    presence.rest(foreign=True)
    presence.rise(foreign=True)
    assert presence.calls == 6

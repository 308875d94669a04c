"""Where a partition is read on from: a rule over what the store, the group and the log say."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Start:
    """The offset to go on at, and what is missing before it."""

    offset: int
    expected: int | None = None
    """What should have been read next and is not there; None where nothing is missing."""
    reason: str = ""


def start(
    *, known: int | None, committed: int | None, begin: int, end: int, identified: bool, inherited: bool = False
) -> Start:
    """Decide.

    Args:
        known: the next offset by the store, or by what is on its way into it. It goes before all else: a group that was empty
            for a week has lost what it committed.
        committed: by the group, for this very topic; counts where the store knows nothing, as after a move to a new store.
        begin: the first message that the log has.
        end: the next one that it will get.
        identified: whether a topic made anew would be another source.
        inherited: the group committed for a topic of this name that was made anew since.

    """
    within = committed if committed is not None and begin <= committed <= end else None
    if known is None:
        if committed is not None and committed < begin:
            return _gone(committed, begin)
        if inherited:
            return Start(offset=begin, expected=0, reason="the topic was deleted and made anew; read from its start")
        return Start(offset=begin if within is None else within)
    if known < begin:
        return _gone(known, begin)
    if known > end:
        return _cut(known, within, begin, end, identified=identified)
    return Start(offset=known)


def _cut(known: int, within: int | None, begin: int, end: int, *, identified: bool) -> Start:
    if not identified:
        return Start(offset=begin, expected=known, reason="the topic is shorter than what was read of it: it was made anew")
    # The same log lost its end, as an unclean election does. What it had before that end has been read.
    reason = "the log lost its end: a replica that was behind became the leader"
    return Start(offset=end if within is None else within, expected=known, reason=reason)


def _gone(expected: int, begin: int) -> Start:
    reason = (
        f"{begin - expected} messages were deleted before they were read; raise retention.ms or retention.bytes of the topic"
    )
    return Start(offset=begin, expected=expected, reason=reason)

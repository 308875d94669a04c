"""What the commands about dead letters share: finding one by the start of its id, and showing what strangers wrote."""

from __future__ import annotations

import base64
from typing import TYPE_CHECKING, Any, Final

import click
import msgspec

from agentq.cli.problem import Problem
from agentq.cli.reading import read, told
from agentq.cli.text import iso
from agentq.errors import AgentQError, InvalidArgument
from agentq.message import DeadLetter, LetterQuery
from agentq.redact import redact, redact_fields

if TYPE_CHECKING:
    from collections.abc import Sequence

    from agentq.stores.base import Store

_MIN_PREFIX: Final = 4
_MANY: Final = 100_000
_TEXT: Final = {number: f"\\x{number:02x}" for number in (*range(0x20), 0x7F, *range(0x80, 0xA0))}
"""Control characters to how they are written out: what a stranger sent must not steer a terminal."""
_LINES: Final = {**_TEXT, 0x09: "\t", 0x0A: "\n"}
_DIRECTIONS: Final = {number: f"\\u{number:04x}" for number in (*range(0x202A, 0x202F), *range(0x2066, 0x206A))}
"""Marks that turn the direction of writing around, so that a text reads as another one."""


class LetterId(click.ParamType):  # type: ignore[type-arg]  # generic from click 8.2 on only
    """A dead letter's id or its start; completed from the store."""

    name = "letter"

    def shell_complete(self, ctx: click.Context, param: click.Parameter, incomplete: str) -> list[Any]:
        """Offer the newest letters; nothing if the store cannot be read."""
        del param
        from click.shell_completion import CompletionItem  # noqa: PLC0415 - only for completion

        try:
            found = read(ctx.params.get("store_url"), lambda store: store.letters(LetterQuery(limit=50)))
        except (AgentQError, click.ClickException, OSError):
            return []
        return [CompletionItem(one.id, help=first_line(one.reason)) for one in found if one.id.startswith(incomplete)]


async def find_letter(store: Store, word: str) -> DeadLetter:
    """Return the dead letter whose id starts with ``word``."""
    if len(word) < _MIN_PREFIX:
        raise InvalidArgument("LETTER", word, f"give at least {_MIN_PREFIX} characters of its id: agentq dead list")
    word = word.lower()
    found = [letter for letter in await store.letters(LetterQuery(ids=(word,), limit=20)) if letter.id.startswith(word)]
    if not found:
        hint = f"{told('dead list')} lists them; one that was replayed is a run now: {told(f'runs show {safe(word)}')}"
        raise Problem(f"no dead letter's id starts with {word!r}", hint=hint)
    if len(found) > 1:
        shown = "\n".join(f"{letter.id}  {safe(letter.queue)}  {first_line(letter.reason)}" for letter in found)
        raise Problem(f"{word!r} is the start of several dead letters", hint=shown)
    return found[0]


async def chosen(store: Store, words: Sequence[str], *, every: bool, queue: str | None) -> list[DeadLetter]:
    """Return the letters that ``words`` name, in their order, or all of them, of one queue if that is given, oldest first."""
    if words and (every or queue):
        raise Problem("name letters, or say --all, not both", code=2)
    if not words and not every:
        raise Problem("say which: LETTER…, --all, or --all --queue NAME", hint="agentq dead list", code=2)
    if every:
        return (await store.letters(LetterQuery(queue=queue, limit=_MANY)))[::-1]
    letters = [await find_letter(store, word) for word in words]
    return list({letter.id: letter for letter in letters}.values())


def safe(text: str, *, lines: bool = False) -> str:
    """Write out control characters and take out secrets; with ``lines``, line ends and tabs stay."""
    return redact(text).translate((_LINES if lines else _TEXT) | _DIRECTIONS)


def first_line(text: str) -> str:
    """Return the first line of a text, safe to show."""
    return safe(text.strip().partition("\n")[0])


def body_text(body: bytes) -> str:
    """Return a body as people can read it: JSON indented, bytes that are no text written out, secrets taken out."""
    try:
        value = msgspec.json.decode(body, type=msgspec.Raw)
        text = msgspec.json.format(value, indent=2).decode()
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        text = body.decode(errors="backslashreplace")
    return safe(text, lines=True)


def letter_json(letter: DeadLetter, *, body: bool) -> dict[str, Any]:
    """Return a letter as a JSON object. A body that is no text is in base64; a text has its secrets taken out."""
    shown: dict[str, Any] = {
        "id": letter.id,
        "queue": letter.queue,
        "reason": redact(letter.reason),
        "origin": redact(letter.origin),
        "received_at": iso(letter.received_at or None),
        "bytes": len(letter.body),
    }
    if body:
        shown["attributes"] = redact_fields(letter.attributes)
        try:
            shown["body"] = redact(letter.body.decode())
        except UnicodeDecodeError:
            shown["body_base64"] = base64.b64encode(letter.body).decode()
    return shown

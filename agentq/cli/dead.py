"""``agentq dead``: messages that arrived and could not become a run: list, show, replay, drop, collect."""

from __future__ import annotations

import sys
import time
from typing import TYPE_CHECKING

import click
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from agentq.cli import output
from agentq.cli.letters import LetterId, body_text, chosen, find_letter, first_line, letter_json, safe
from agentq.cli.problem import Problem
from agentq.cli.reading import json_option, read, store_option, told
from agentq.cli.replay import collect, replay, unreadable
from agentq.cli.teach import TeachingGroup
from agentq.cli.text import age, count, moment, short_ids
from agentq.message import DeadLetter, DropLetters, LetterQuery
from agentq.redact import redact_fields

if TYPE_CHECKING:
    from agentq.stores.base import Store

_BATCH = 500
"""Letters that one command deletes."""
_WIDE = 120
"""Columns from which there is room for more than the reason."""


@click.group(cls=TeachingGroup, short_help="Messages that could not become a run: list, show, replay, drop.")
def dead() -> None:
    r"""Look after dead letters: messages that arrived through a broker and could not become a run.

    They are kept in the store, each with the reason, until somebody replays or drops them.
    LETTER is a letter's id, or its first characters (4 or more).

    \b
    Examples:
      agentq dead list
      agentq dead show 3kq9
      agentq dead show 3kq9 --raw > body.json    mend it, and then
      agentq dead replay 3kq9 --body body.json
      agentq dead drop --all --queue reports
    """


@dead.command("list")
@click.option("-q", "--queue", metavar="NAME", help="Only of this queue.")
@click.option("-n", "--limit", default=30, show_default=True, metavar="N", type=click.IntRange(1, 100_000), help="At most.")
@store_option
@json_option
def list_letters(*, queue: str | None, limit: int, store_url: str | None, as_json: bool) -> None:
    r"""List dead letters, newest first, each with the reason.

    \b
    Examples:
      agentq dead list
      agentq dead list --queue reports --json | jq -r '.[].id'
    """
    found = read(store_url, lambda store: store.letters(LetterQuery(queue=queue, limit=limit)))
    if as_json:
        output.write_json([letter_json(letter, body=False) for letter in found])
    elif not found:
        click.echo("no dead letters" + (f" of queue {queue}" if queue else ""))
    else:
        _table(found, full=len(found) == limit)


def _table(found: list[DeadLetter], *, full: bool) -> None:
    console = output.console()
    ids = short_ids([letter.id for letter in found])
    now = time.time()
    wide = ("ORIGIN",) if console.width >= _WIDE else ()  # the reason is worth more; `show` tells the origin
    made = output.table(
        "LETTER", "QUEUE", "AGE", "BYTES", "REASON", *wide, right=("AGE", "BYTES"), cut=("QUEUE", "REASON", *wide)
    )
    for letter in found:
        message = letter.origin.partition(" of ")[0]  # the broker is the same one for all
        origin = output.short(safe(message), style="bright_black")
        made.add_row(
            Text(ids[letter.id], style="bold"),
            output.short(safe(letter.queue)),
            *output.cells(age(max(0.0, now - letter.received_at)), f"{len(letter.body):,}", dim=(0, 1)),
            output.short(first_line(letter.reason), style="red"),
            *([origin] if wide else []),
        )
    console.print(made)
    if full:
        console.print(Text(f"… the newest {len(found)}; -n shows more", style="bright_black"))


@dead.command("show", short_help="Show one: why it is one, where it came from, what it holds.")
@click.argument("letter", metavar="LETTER", type=LetterId())
@click.option("--raw", is_flag=True, help="Print the body alone, byte for byte, secrets included: to mend it.")
@store_option
@json_option
def show(*, letter: str, raw: bool, store_url: str | None, as_json: bool) -> None:
    r"""Show one dead letter: why it is one, where it came from, its attributes and its body.

    Control characters are written out (\x1b), and what looks like a secret is hidden, unless --raw asks for the bytes.

    \b
    Examples:
      agentq dead show 3kq9
      agentq dead show 3kq9 --raw > body.json
    """
    found = read(store_url, lambda store: find_letter(store, letter))
    if raw:
        if sys.stdout.isatty():
            raise Problem(
                "what strangers sent does not belong on a terminal byte for byte", hint="redirect it: --raw > FILE", code=2
            )
        sys.stdout.buffer.write(found.body)
        sys.stdout.flush()
    elif as_json:
        output.write_json(letter_json(found, body=True))
    else:
        _page(found)


def _page(letter: DeadLetter) -> None:
    console = output.console()
    console.print(Text.assemble(("dead letter", "bold"), "  ", (letter.id, "bright_black")), soft_wrap=True)
    facts = Table.grid(padding=(0, 2, 0, 0))
    facts.add_column(style="bright_black", no_wrap=True, min_width=11)
    facts.add_column(overflow="fold")
    facts.add_row("  reason", Text(safe(letter.reason, lines=True), style="red"))
    facts.add_row("  queue", safe(letter.queue))
    if letter.received_at:
        facts.add_row("  received", f"{moment(letter.received_at)} · {age(max(0.0, time.time() - letter.received_at))} ago")
    if letter.origin:
        facts.add_row("  origin", safe(letter.origin))
    for name, value in redact_fields(letter.attributes).items():
        facts.add_row(f"  {safe(name)}", safe(str(value)))
    console.print(facts)
    console.print()
    console.print(Padding(Text(body_text(letter.body) or "(empty)"), (0, 0, 0, 2)))
    console.print()
    wrong, replaying = unreadable(letter), told(f"dead replay {letter.id}")
    hints = [
        (told(f"dead show {letter.id} --raw") + " > body.json", "what to mend"),
        (f"{replaying} --body body.json", "try again once it is mended"),
        (told(f"dead drop {letter.id}"), "delete it"),
    ]
    if not wrong or "upgrade" in wrong:
        hints.insert(0, (replaying, "try again after the upgrade" if wrong else "try again as it is"))
    width = max(len(command) for command, _ in hints)
    for command, text in hints:
        console.print(Text(f"{command:{width}}   {text}", style="bright_black"), soft_wrap=True)


@dead.command("drop")
@click.argument("letters", nargs=-1, metavar="LETTER…", type=LetterId())
@click.option("--all", "every", is_flag=True, help="Every letter there is.")
@click.option("-q", "--queue", metavar="NAME", help="With --all: only of this queue.")
@click.option("-y", "--yes", is_flag=True, help="Do not ask.")
@store_option
@json_option
def drop(*, letters: tuple[str, ...], every: bool, queue: str | None, yes: bool, store_url: str | None, as_json: bool) -> None:
    r"""Delete dead letters for good. On a terminal it asks first.

    \b
    Examples:
      agentq dead drop 3kq9 8xm2
      agentq dead drop --all --queue reports --yes
    """
    found = read(store_url, lambda store: chosen(store, letters, every=every, queue=queue))
    if found and not yes:
        _confirm(found, every=every)

    async def delete(store: Store) -> None:
        ids = [letter.id for letter in found]
        for start in range(0, len(ids), _BATCH):
            await store.command(DropLetters(ids=tuple(ids[start : start + _BATCH])))

    if found:
        read(store_url, delete)
    if as_json:
        output.write_json([{"id": letter.id, "queue": letter.queue, "dropped": True} for letter in found])
    else:
        click.echo(f"{count(len(found), 'dead letter')} dropped" if found else "no dead letters: nothing dropped")


def _confirm(found: list[DeadLetter], *, every: bool) -> None:
    """Ask on a terminal; elsewhere only what was named one by one goes unasked."""
    if not _on_terminal():
        if every:
            raise Problem(
                f"{count(len(found), 'dead letter')} would be dropped for good", hint="--yes says that it is meant", code=2
            )
        return
    for letter in found[:5]:
        click.echo(f"{letter.id}  {safe(letter.queue)}  {first_line(letter.reason)}", err=True)
    if len(found) > 5:  # noqa: PLR2004 - as many as are shown above
        click.echo(f"… and {len(found) - 5:,} more", err=True)
    click.confirm(f"drop {count(len(found), 'dead letter')} for good?", abort=True, err=True)


def _on_terminal() -> bool:
    return sys.stdin.isatty()


dead.add_command(replay)
dead.add_command(collect)

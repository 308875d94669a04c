"""``agentq dead replay`` and ``collect``: a second chance for what could not become a run, and for what a broker gave up."""

from __future__ import annotations

import time
from collections.abc import Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass
from typing import IO, TYPE_CHECKING, Final

import click
import msgspec

from agentq import wire
from agentq.cli import output
from agentq.cli.brokers import answered, connected, meant_broker, needed, one_app, queues_of, shown
from agentq.cli.letters import LetterId, chosen, first_line, safe
from agentq.cli.problem import EX_FAILED, Problem, note
from agentq.cli.reading import broker_option, json_option, read, store_option, told
from agentq.cli.target import load_app
from agentq.cli.teach import Teaching
from agentq.cli.text import count
from agentq.errors import BrokerError, BrokerUnavailable, NotFound
from agentq.intake.admitting import dead_letter
from agentq.message import Admission, DeadLetter, DropLetters, Envelope, broker_run_id

if TYPE_CHECKING:
    from agentq.brokers.base import Broker, Delivery
    from agentq.stores.base import Store

_BATCH: Final = 100
_EMPTY: Final = 2
"""A dead-letter queue is empty when it has brought nothing so often: a poll may miss some of a queue's servers."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """What became of one letter."""

    letter: DeadLetter
    run_id: str | None = None
    created: bool = False
    """Whether the run is new; else it was there already."""
    why: str = ""
    """Why it stays a dead letter."""


@click.command("replay", cls=Teaching, short_help="Let dead letters become runs after all.")
@click.argument("letters", nargs=-1, metavar="LETTER…", type=LetterId())
@click.option("--all", "every", is_flag=True, help="Every letter there is.")
@click.option("-q", "--queue", metavar="NAME", help="With --all: only of this queue.")
@click.option("--body", type=click.File("rb"), metavar="FILE", help="In place of the letter's body; - is stdin.")
@click.option("--app", "app_name", metavar="NAME", help="Whose runs they become, where the store does not tell.")
@store_option
@broker_option
@json_option
def replay(
    *,
    letters: tuple[str, ...],
    every: bool,
    queue: str | None,
    body: IO[bytes] | None,
    app_name: str | None,
    store_url: str | None,
    broker_url: str | None,
    as_json: bool,
) -> None:
    r"""Read dead letters again and put them into the store as runs; what is still wrong with one is told, and it stays.

    Replaying one twice makes one run. Order among runs of one ordering key is the order of replay.

    \b
    Examples:
      agentq dead replay 3kq9
      agentq dead replay 3kq9 --body mended.json
      agentq dead replay --all --queue reports
    """
    if body is not None and len(letters) != 1:
        raise Problem("--body mends one letter", hint="agentq dead replay LETTER --body FILE", code=2)
    given = body.read() if body is not None else None
    url = meant_broker(broker_url)

    async def again(store: Store) -> list[Outcome]:
        found = await chosen(store, letters, every=every, queue=queue)
        if not found:
            return []
        known = [app_name] if app_name else list(await queues_of(store, await store.census()))
        bodies = [letter.body if given is None else given for letter in found]
        apps = [_app_of(body, known) for body in bodies]
        outcomes = []
        async with AsyncExitStack() as stack:
            brokers: dict[str, Broker] = {}
            for letter, text, app in zip(found, bodies, apps, strict=True):
                if url and app not in brokers:
                    brokers[app] = await stack.enter_async_context(connected(url, app))
                outcomes.append(await _replayed(store, brokers.get(app), app, letter, text))
        return outcomes

    outcomes = read(store_url, again)
    _report(outcomes, as_json=as_json)


def _app_of(body: bytes, known: Sequence[str]) -> str:
    """Return whose run a message becomes: the only app that is known here, else the one that it names itself."""
    if len(known) == 1:
        return known[0]
    named = _named(body)
    if named is not None:
        return named
    said = f"the store knows several apps: {' '.join(known)}" if known else "no worker and no run tells whose letters these are"
    raise Problem(said, hint="--app NAME says whose runs they become", code=2)


def unreadable(letter: DeadLetter) -> str:
    """Say what is wrong with a letter as it is, whoever reads it; empty where that is not its fault, or no longer."""
    try:
        wire.read(
            body=letter.body, app=_named(letter.body) or "any", queue=letter.queue, delivery_id=letter.id,
            attributes=letter.attributes, sent_at=letter.received_at or None, now=time.time(),
        )  # fmt: skip
    except wire.Unreadable as error:
        return str(error)
    return ""


def _named(body: bytes) -> str | None:
    try:
        return msgspec.json.decode(body, type=_Named).app
    except (ValueError, RecursionError, msgspec.MsgspecError):
        return None


class _Named(msgspec.Struct):
    app: str | None = None


async def _replayed(store: Store, broker: Broker | None, app: str, letter: DeadLetter, body: bytes) -> Outcome:
    try:
        envelope = await _read(store, broker, app, letter, body)
        (answer,) = await store.admit(Admission(envelopes=(envelope,)))
    except (wire.Unreadable, BrokerError) as error:
        return Outcome(letter=letter, why=str(error))
    if not answer.created and answer.args_hash != envelope.args_hash and not _same(answer.args, envelope.args):
        name = f"key {envelope.key!r}" if envelope.key is not None else f"id {envelope.id!r}"
        return Outcome(
            letter=letter, why=f"{name} names run {answer.id}, which has other arguments; give it another with --body"
        )
    await store.command(DropLetters(ids=(letter.id,)))
    return Outcome(letter=letter, run_id=answer.id, created=answer.created)


async def _read(store: Store, broker: Broker | None, app: str, letter: DeadLetter, body: bytes) -> Envelope:
    """Return what the message says. One that names neither an id nor a key becomes the run that it would have become."""
    now = time.time()
    arrived = wire.read(
        body=body, app=app, queue=letter.queue, delivery_id=letter.id, attributes=letter.attributes,
        sent_at=letter.received_at or None, now=now,
    )  # fmt: skip
    envelope = arrived.envelope
    if arrived.parcel is not None:
        try:
            envelope = wire.filled(arrived, await _parcel(store, broker, arrived.parcel))
        except NotFound:
            raise wire.Unreadable(f"parcel: it is gone from {arrived.parcel.place}; submit the run again") from None
    if envelope.id == broker_run_id(letter.id):
        envelope = msgspec.structs.replace(envelope, id=letter.id)
    return envelope


async def _parcel(store: Store, broker: Broker | None, parcel: wire.Parcel) -> bytes:
    if parcel.place == "store":
        return await store.blob(parcel.sha256)
    if broker is None or broker.parcels is None:
        raise BrokerUnavailable(f"parcel.place: {parcel.place!r} is read with the broker's url alone; give --broker URL")
    return await answered(broker.parcels.get(parcel.place))


def _same(before: bytes | None, now: bytes) -> bool:
    return before is not None and wire.same_args(before, now)


def _report(outcomes: Sequence[Outcome], *, as_json: bool) -> None:
    stuck = [one for one in outcomes if one.why]
    if as_json:
        output.write_json([
            {"id": one.letter.id, "run": one.run_id, "created": one.created, "reason": shown(one.why) or None}
            for one in outcomes
        ])  # fmt: skip
    elif not outcomes:
        click.echo("no dead letters: nothing replayed")
    else:
        for one in outcomes:
            if one.run_id:
                click.echo(f"{one.run_id}  {safe(one.letter.queue)}  " + ("queued" if one.created else "was there already"))
    if stuck and not as_json:
        lines = [f"{one.letter.id}  {first_line(one.why)}" for one in stuck]
        hint = told(f"dead show {stuck[0].letter.id}") + " --raw > body.json; mend it, and replay it with --body body.json"
        raise Problem(
            f"{count(len(stuck), 'letter')} still cannot become a run:\n  " + "\n  ".join(lines), hint=hint, code=EX_FAILED
        )
    if stuck:
        raise click.exceptions.Exit(EX_FAILED)


@click.command("collect", cls=Teaching, short_help="Move what the broker itself gave up into the store.")
@click.argument("target", required=False, metavar="[MODULE:AQ]")
@click.option("-q", "--queue", "names", multiple=True, metavar="NAME", help="Only of this queue; repeat it.")
@store_option
@broker_option
@json_option
def collect(
    *, target: str | None, names: tuple[str, ...], store_url: str | None, broker_url: str | None, as_json: bool
) -> None:
    r"""Move messages that the broker itself gave up delivering (an SQS dead-letter queue) into the store's dead letters.

    There they are listed, shown, replayed and dropped like the others. Nothing is deleted there before it is kept here.

    \b
    Examples:
      agentq dead collect hello:aq
      agentq dead collect --broker sqs://eu-central-1 --queue reports
    """
    app = load_app(target) if target else None
    url = needed(broker_url, app)

    async def move(store: Store) -> dict[str, int]:
        apps = await queues_of(store, await store.census(), app)
        name = one_app(apps, "dead collect")
        async with connected(url, name) as broker:
            return await _moved(store, broker, names or apps[name])

    moved = read(store_url, move, app=app)
    total = sum(moved.values())
    if as_json:
        output.write_json({"collected": total, "queues": moved})
    elif not total:
        click.echo("the broker has given nothing up")
    else:
        for queue, number in sorted(moved.items()):
            click.echo(f"{safe(queue)}  {count(number, 'dead letter')} collected")
        note(f"{told('dead list')} shows them")


async def _moved(store: Store, broker: Broker, queues: Sequence[str]) -> dict[str, int]:
    """Keep, then acknowledge, until the broker's dead-letter places are empty; letters per queue."""
    moved: dict[str, int] = {}
    empty = 0
    async with broker.inbox(queues, store.positions, dead=True) as inbox:
        while empty < _EMPTY:
            deliveries = await inbox.receive(_BATCH)
            if not deliveries:
                empty += 1
                continue
            empty = 0
            now = time.time()
            letters = tuple(dead_letter(one, _given_up(one), where=broker.where, now=now) for one in deliveries)
            await store.admit(Admission(letters=letters))
            await inbox.acknowledge(deliveries)
            for letter in letters:
                moved[letter.queue] = moved.get(letter.queue, 0) + 1
    return moved


def _given_up(delivery: Delivery) -> str:
    return (
        f"the broker gave it up after {count(delivery.receives, 'delivery', 'deliveries')} without an acknowledgement: "
        "workers that could not reach the store, or too low a maxReceiveCount (agentq doctor); replay it"
    )

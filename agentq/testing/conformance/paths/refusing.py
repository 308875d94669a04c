"""Clauses about what cannot become a run: it is kept where a person finds it, and never comes again."""

# ruff: noqa: D103, S101 - a clause is named after what it proves, and asserts it with plain values

from __future__ import annotations

import msgspec

from agentq.errors import KeyConflict
from agentq.message import RunState
from agentq.testing.conformance.paths.bench import PathBench, a_broker, clause, no_broker


@clause()
async def the_same_key_with_the_same_arguments_is_the_same_run(bench: PathBench) -> None:
    first = await bench.greet.options(key="k").enqueue("Ada")
    again = await bench.greet.options(key="k").enqueue("Ada")
    assert first.id == again.id
    [run] = await bench.bring(1)
    assert (run.id, run.key) == (first.id, "k")


@clause(no_broker)
async def the_same_key_with_other_arguments_is_refused_and_shows_both(bench: PathBench) -> None:
    await bench.greet.options(key="k").enqueue("Ada")
    try:
        await bench.greet.options(key="k").enqueue("Bob")
    except KeyConflict as error:
        said = str(error)
    else:
        raise AssertionError("the second was taken")
    assert all(text in said for text in ("Ada", "Bob", "'k'")), said
    await bench.bring(1)


@clause(a_broker)
async def the_same_key_with_other_arguments_becomes_a_dead_letter_that_shows_both(bench: PathBench) -> None:
    handle = await bench.greet.options(key="k").enqueue("Ada")
    await bench.bring(1)
    await bench.submit(bench.envelope(bench.greet.options(key="k").bind("Bob")))
    [run] = await bench.bring(1, letters=1)
    [letter] = await bench.letters()
    assert all(text in letter.reason for text in ("Ada", "Bob", "'k'")), letter.reason
    assert (run.id, msgspec.json.decode(run.args)) == (handle.id, {"name": "Ada"})


@clause(a_broker)
async def an_unreadable_message_becomes_a_dead_letter(bench: PathBench) -> None:
    body = b'{"task": "greet", "args": [1, 2'
    await bench.send(body, tenant="acme")
    await bench.bring(0, letters=1)
    [letter] = await bench.letters()
    assert (letter.body, letter.queue, letter.attributes.get("tenant")) == (body, bench.queue, "acme")
    assert letter.reason
    assert letter.origin


@clause(a_broker)
async def an_unreadable_message_holds_up_no_other(bench: PathBench) -> None:
    await bench.send(b"\x7f")
    handle = await bench.greet.enqueue("Ada")
    await bench.send(b'{"task": 1}')
    [run] = await bench.bring(1, letters=2)
    assert run.id == handle.id


@clause(a_broker)
async def a_message_for_another_app_becomes_a_dead_letter(bench: PathBench) -> None:
    await bench.send(b'{"app": "somebody-else", "task": "greet", "args": {}}')
    await bench.bring(0, letters=1)


@clause(a_broker)
async def a_dead_letter_that_is_delivered_again_is_one_letter(bench: PathBench) -> None:
    await bench.expire_soon()
    await bench.send(b"no")
    deaf = bench.deaf()

    async def kept() -> bool:
        return len(await bench.letters()) == 1 and deaf.acknowledged > 0

    async with bench.intake(deaf.as_broker()):
        await bench.until("it is kept, and its acknowledgement is lost", kept)
    await bench.bring(0, letters=1)


@clause(a_broker)
async def a_foreign_message_needs_no_more_than_its_task(bench: PathBench) -> None:
    await bench.send(b'{"task": "greet", "args": {"name": "shell"}}', tenant="acme")
    await bench.send(b'{"task": "greet", "args": {"name": "shell"}}')
    first, second = await bench.bring(2)
    assert first.id != second.id
    assert {first.tenant, second.tenant} == {"acme", None}
    assert len(await bench.claim()) == len([first, second])


@clause()
async def an_unknown_task_waits_in_the_store_for_a_worker_that_knows_it(bench: PathBench) -> None:
    await bench.submit(bench.envelope(bench.greet.bind("Ada"), task="of-the-next-version"))
    [run] = await bench.bring(1)
    assert run.state is RunState.QUEUED
    assert await bench.claim("greet") == []
    assert len(await bench.claim("of-the-next-version")) == 1

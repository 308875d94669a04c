"""Clauses about sending: what gets in, what does not, and that everybody hears of his own."""

# ruff: noqa: D103, S101 - a clause is named after what it proves, and asserts it with plain values

from __future__ import annotations

import asyncio
import json

from agentq.errors import BrokerUnavailable
from agentq.testing.conformance.brokers.bench import Bench, Need, bodies, clause


@clause()
async def what_is_sent_is_delivered(bench: Bench) -> None:
    sent = await bench.put(25)
    async with bench.inbox() as inbox:
        found = await bench.collect(inbox, 25, acknowledge=True)
    assert sorted(bodies(found)) == sorted(sent)
    assert {delivery.queue for delivery in found} == {bench.queue}


@clause()
async def sending_nothing_is_fine(bench: Bench) -> None:
    assert list(await bench.broker.send([])) == []


@clause()
async def json_arrives_byte_by_byte(bench: Bench) -> None:
    texts = ['{"a":"ä 😀 \\u0000 \\n"}', '{"a":"<&> ]]> \' \\" \\\\"}', '{"a":"\x7f\u2028\ufffd"}', '{\n  "a": 1\t}']
    await bench.send(*(bench.message(text) for text in texts))
    async with bench.inbox() as inbox:
        found = await bench.collect(inbox, len(texts), acknowledge=True)
    assert sorted(bodies(found)) == sorted(text.encode() for text in texts)


@clause()
async def characters_that_a_broker_lacks_arrive_at_least_as_escapes(bench: Bench) -> None:
    text = '{"a":"\ufffe\uffff"}'
    await bench.send(bench.message(text))
    async with bench.inbox() as inbox:
        [found] = await bench.collect(inbox, 1, acknowledge=True)
    assert json.loads(found.body) == json.loads(text)


@clause()
async def attributes_travel(bench: Bench) -> None:
    given = {"traceparent": "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01", "tenant": "Müller & <Söhne>"}
    await bench.send(bench.message(attributes=given))
    async with bench.inbox() as inbox:
        [found] = await bench.collect(inbox, 1, acknowledge=True)
    assert {name: found.attributes.get(name) for name in given} == given


@clause()
async def bodies_up_to_max_bytes_travel(bench: Bench) -> None:
    size = bench.broker.capabilities(bench.queue).max_bytes
    body = b'"' + b"x" * (size - 2) + b'"'
    await bench.send(bench.message(body))
    async with bench.inbox() as inbox:
        [found] = await bench.collect(inbox, 1, acknowledge=True)
    assert found.body == body


@clause()
async def a_batch_larger_than_one_message_may_be_is_divided(bench: Bench) -> None:
    size = bench.broker.capabilities(bench.queue).max_bytes * 2 // 5
    sent = [b'"%d' % n + b"x" * size + b'"' for n in range(7)]
    await bench.send(*(bench.message(body) for body in sent))
    async with bench.inbox() as inbox:
        found = await bench.collect(inbox, len(sent), acknowledge=True)
    assert sorted(bodies(found)) == sent


@clause()
async def over_max_bytes_is_answered_not_raised(bench: Bench) -> None:
    size = bench.broker.capabilities(bench.queue).max_bytes
    before, after = bench.message(), bench.message()
    answers = await bench.broker.send([before, bench.message(b'"' + b"x" * size + b'"'), after])
    assert (answers[0], answers[2]) == (None, None), answers
    assert isinstance(answers[1], Exception), "a message over max_bytes was taken"
    assert not isinstance(answers[1], BrokerUnavailable), "a message over max_bytes never gets in, so it is not for now"
    async with bench.inbox() as inbox:
        found = await bench.collect(inbox, 2, acknowledge=True)
        assert sorted(bodies(found)) == sorted([before.body, after.body])


@clause()
async def many_senders_at_once_each_get_their_answer(bench: Bench) -> None:
    size = bench.broker.capabilities(bench.queue).max_bytes
    calls = [[bench.message() for _ in range(1 + number % 3)] for number in range(bench.setting.load // 2)]
    too_large = bench.message(b'"' + b"x" * size + b'"')
    answers = await asyncio.gather(*(bench.broker.send(call) for call in calls), bench.broker.send([too_large]))
    assert [list(answer) for answer in answers[:-1]] == [[None] * len(call) for call in calls]
    assert isinstance(answers[-1][0], Exception)
    sent = [message.body for call in calls for message in call]
    async with bench.inbox() as inbox:
        found = await bench.collect(inbox, len(sent), room=100, acknowledge=True)
    assert sorted(bodies(found)) == sorted(sent)


@clause(Need.ORDERING)
async def messages_of_one_group_come_in_order(bench: Bench) -> None:
    sent = [bench.message(f'"{group}{n:02d}"', group=group, ordered=True) for n in range(15) for group in "abc"]
    await bench.send(*sent[:20])
    for message in sent[20:24]:
        await bench.send(message)
    await bench.send(*sent[24:])
    async with bench.inbox() as inbox:
        found = bodies(await bench.collect(inbox, len(sent), room=4, acknowledge=True))
    for group in "abc":
        mine = [body for body in found if body[1:2] == group.encode()]
        assert mine == sorted(mine), f"group {group} came as {mine}"


@clause(Need.DELAY)
async def a_delay_is_kept(bench: Bench) -> None:
    wanted = bench.setting.delay_s
    late, soon = bench.message(delay_s=wanted), bench.message()
    await bench.send(late, soon)
    async with bench.inbox() as inbox:
        found = await bench.collect(inbox, 1, acknowledge=True, within_s=min(wanted, bench.setting.patience_s))
        assert bodies(found) == [soon.body]
        await bench.setting.pass_time(wanted)
        assert bodies(await bench.collect(inbox, 1, acknowledge=True)) == [late.body]


@clause(Need.DELAY)
async def the_longest_delay_is_taken(bench: Bench) -> None:
    await bench.send(bench.message(delay_s=bench.broker.capabilities(bench.queue).max_delay_s))


@clause()
async def closing_finishes_what_was_handed_in(bench: Bench) -> None:
    messages = [bench.message() for _ in range(5)]
    async with bench.another() as broker:
        sending = [asyncio.create_task(broker.send([message])) for message in messages]
        await asyncio.sleep(0)
    assert [list(answer) for answer in await asyncio.gather(*sending)] == [[None]] * 5
    async with bench.inbox() as inbox:
        found = await bench.collect(inbox, 5, acknowledge=True)
    assert sorted(bodies(found)) == sorted(message.body for message in messages)

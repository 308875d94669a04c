"""What SQS promises, and what is made of it: on a real server that speaks like it."""

import asyncio
import json

import pytest

pytest.importorskip("aiobotocore")

from agentq.testing.wait import wait_until
from tests.helpers.sqs import message, new_app, nowhere, opened, sent


async def received(inbox, count: int) -> list:
    """``count`` deliveries, however many calls that takes."""
    found = []
    while len(found) < count:
        found += await inbox.receive(count - len(found))
    return found


async def with_attributes(broker, queue: str, **attributes: str) -> None:
    await broker._clients.ask("set_queue_attributes", broker._address.name(queue), Attributes=attributes)


async def test_a_message_arrives_as_it_was_sent(elasticmq_url):
    async with opened(elasticmq_url, "work") as broker, broker.inbox(["work"], nowhere) as inbox:
        body = '{"text":"ä \U0001f600 \\n"}'
        given = {"tenant": "acme", "traceparent": "00-1-2-01"}
        await sent(broker, [message(body=body, group="acme", attributes=given)])
        [delivery] = await received(inbox, 1)
        assert (delivery.queue, delivery.body.decode(), delivery.receives) == ("work", body, 1)
        assert delivery.attributes == given
        assert delivery.id.startswith(f"sqs:{broker._address.name('work')}:")
        assert delivery.sent_at > 1_700_000_000
        await inbox.acknowledge([delivery])
        [backlog] = await broker.backlog(["work"])
        assert (backlog.ready, backlog.taken, backlog.error) == (0, 0, "")


async def test_what_is_not_acknowledged_is_delivered_again_with_the_same_identity(elasticmq_url):
    async with opened(elasticmq_url, "work") as broker, broker.inbox(["work"], nowhere) as inbox:
        await with_attributes(broker, "work", VisibilityTimeout="1")
        await sent(broker, [message()])
        [first] = await received(inbox, 1)
        assert [each.taken for each in await broker.backlog(["work"])] == [1]
        [again] = await received(inbox, 1)
        assert (again.id, again.receives, again.sent_at) == (first.id, 2, first.sent_at)
        await inbox.acknowledge([again])
        await inbox.acknowledge([first])  # its receipt is no longer good, and that is fine


async def test_what_is_released_is_delivered_to_the_next_at_once(elasticmq_url):
    async with opened(elasticmq_url, "work") as broker:
        await sent(broker, [message() for _ in range(12)])
        async with broker.inbox(["work"], nowhere) as inbox:
            taken = await received(inbox, 12)
            await inbox.release(taken)
        async with asyncio.timeout(10), broker.inbox(["work"], nowhere) as other:  # the visibility timeout is 60 s
            again = await received(other, 12)
        assert {each.id for each in again} == {each.id for each in taken}


async def test_a_delay_is_kept_by_the_broker(elasticmq_url):
    async with opened(elasticmq_url, "work") as broker, broker.inbox(["work"], nowhere) as inbox:
        await sent(broker, [message(delay_s=0.5)])
        assert [(each.ready, each.delayed) for each in await broker.backlog(["work"])] == [(0, 1)]
        [delivery] = await received(inbox, 1)
        assert delivery.receives == 1


async def test_a_group_keeps_its_order_and_others_do_not_wait(elasticmq_url):
    async with opened(elasticmq_url, "o.fifo") as broker:
        ordered = [message("o.fifo", f'"a{n}"', group="a", ordered=True) for n in range(12)]
        loose = [message("o.fifo", f'"b{n}"', group="tenant") for n in range(3)]
        await sent(broker, ordered)
        async with broker.inbox(["o.fifo"], nowhere) as inbox:
            held = await received(inbox, 2)
            await sent(broker, loose)
            # The group waits. What has no order of its own does not, although messages of its tenant are out.
            assert {each.body for each in await received(inbox, 3)} == {b'"b0"', b'"b1"', b'"b2"'}
            assert [each.body for each in held] == [b'"a0"', b'"a1"']
            await inbox.release(held)
            seen = []
            while len(seen) < 12:
                got = await inbox.receive(10)
                seen += [each.body for each in got if each.body.startswith(b'"a')]
                await inbox.acknowledge(got)
        assert seen == [f'"a{n}"'.encode() for n in range(12)]


async def test_the_order_holds_for_messages_sent_one_after_another(elasticmq_url):
    async with opened(elasticmq_url, "o.fifo") as broker, broker.inbox(["o.fifo"], nowhere) as inbox:
        sending = [broker.send([message("o.fifo", str(n), group="a", ordered=True)]) for n in range(25)]
        assert await asyncio.gather(*sending) == [[None]] * 25
        seen = []
        while len(seen) < 25:
            got = await inbox.receive(10)
            seen += [int(each.body) for each in got]
            await inbox.acknowledge(got)
        assert seen == list(range(25))


async def test_a_repetition_is_dropped_and_the_same_run_with_other_arguments_is_not(elasticmq_url):
    async with opened(elasticmq_url, "o.fifo") as broker, broker.inbox(["o.fifo"], nowhere) as inbox:
        first = message("o.fifo", '{"args":1}', id="run1")
        await sent(broker, [first])
        await sent(broker, [first])
        await sent(broker, [message("o.fifo", '{"args":2}', id="run1")])
        bodies = []
        while got := await inbox.receive(10):
            bodies += [each.body for each in got]
            await inbox.acknowledge(got)
        assert bodies == [b'{"args":1}', b'{"args":2}']


async def test_what_sqs_gave_up_is_counted_and_read_under_its_own_identity(elasticmq_url):
    async with opened(elasticmq_url, "work") as broker:
        await with_attributes(broker, "work", RedrivePolicy=json.dumps({
            "deadLetterTargetArn": f"arn:aws:sqs:elasticmq:000000000000:{broker._address.name('work')}-dead",
            "maxReceiveCount": 1,
        }))  # fmt: skip
        await sent(broker, [message(body='"poison"')])
        async with broker.inbox(["work"], nowhere) as inbox:
            [taken] = await received(inbox, 1)
            await inbox.release([taken])
            assert await inbox.receive(1) == ()
        assert [(each.ready, each.dead) for each in await broker.backlog(["work"])] == [(0, 1)]
        async with broker.inbox(["work"], nowhere, dead=True) as dead:
            [letter] = await received(dead, 1)
            assert (letter.queue, letter.id, letter.body) == ("work", taken.id, b'"poison"')
            await dead.acknowledge([letter])
            assert await dead.receive(1) == ()
        assert [each.dead for each in await broker.backlog(["work"])] == [0]


async def test_queues_may_share_one_and_are_counted_once(elasticmq_url):
    app = new_app()
    async with opened(elasticmq_url, "a", "b", app=app, template="{app}") as broker:
        await sent(broker, [message("a"), message("b")])
        assert [each.ready for each in await broker.backlog(["a", "b"])] == [2, 0]
        async with broker.inbox(["a", "b"], nowhere) as inbox:
            assert len(await received(inbox, 2)) == 2


async def test_a_queue_that_cannot_be_read_says_so(elasticmq_url):
    async with opened(elasticmq_url, "work") as broker:
        known, missing, unnamed = await broker.backlog(["work", "other", "a b"])
        assert (known.error, known.approximate) == ("", True)
        assert "agentq doctor --fix" in missing.error
        assert "80 letters" in unnamed.error


async def test_sends_are_answered_one_by_one(elasticmq_url):
    async with opened(elasticmq_url, "work") as broker:
        fine, missing, large, unnamed, control = await broker.send(
            [
                message(),
                message("other"),
                message(body="x" * 1_048_577),
                message("a b"),
                message(body="\x00"),  # never JSON; the server refuses it
            ]
        )
        assert fine is None
        assert "agentq doctor --fix" in str(missing)
        assert "attributes included" in str(large)
        assert "80 letters" in str(unnamed)
        assert "InvalidMessageContents" in str(control)
        [backlog] = await broker.backlog(["work"])
        assert backlog.ready == 1


async def test_large_messages_travel_in_batches_that_fit(elasticmq_url):
    async with opened(elasticmq_url, "work") as broker, broker.inbox(["work"], nowhere) as inbox:
        await sent(broker, [message(body=f'"{"x" * 400_000}"') for _ in range(5)])
        assert [len(each.body) for each in await received(inbox, 5)] == [400_002] * 5


async def test_closing_sends_what_was_handed_in(elasticmq_url):
    app = new_app()
    async with opened(elasticmq_url, "work", app=app, linger="1s") as broker:
        sending = asyncio.create_task(broker.send([message()]))
        await wait_until("the message lingers", lambda: broker._outbox._batchers)
    assert await sending == [None]
    async with opened(elasticmq_url, "work", app=app) as other:
        assert [each.ready for each in await other.backlog(["work"])] == [1]

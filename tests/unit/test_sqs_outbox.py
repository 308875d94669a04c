"""What a message looks like at SQS."""

import pytest

pytest.importorskip("aiobotocore")

from agentq.brokers.base import Outgoing
from agentq.brokers.sqs.address import MAX_BYTES
from agentq.brokers.sqs.outbox import entry_of
from agentq.errors import InvalidArgument, PayloadTooLarge


def outgoing(**more) -> Outgoing:
    return Outgoing(**{"id": "run1", "queue": "q", "body": b"{}", **more})


async def test_a_tenant_is_the_fair_group_of_a_standard_queue():
    fields = entry_of(outgoing(group="acme", attributes={"tenant": "acme", "traceparent": ""}), fifo=False).fields
    assert fields == {
        "MessageBody": "{}",
        "MessageGroupId": "acme",
        "MessageAttributes": {"tenant": {"DataType": "String", "StringValue": "acme"}},
    }


async def test_a_delay_is_rounded_up_and_a_fifo_queue_gets_none():
    assert entry_of(outgoing(delay_s=0.2), fifo=False).fields["DelaySeconds"] == 1
    assert entry_of(outgoing(delay_s=900), fifo=False).fields["DelaySeconds"] == 900
    assert "DelaySeconds" not in entry_of(outgoing(), fifo=False).fields
    assert "DelaySeconds" not in entry_of(outgoing(delay_s=5), fifo=True).fields


async def test_only_an_ordering_key_makes_messages_of_a_fifo_queue_wait_for_one_another():
    first = entry_of(outgoing(group="acme", id="run1"), fifo=True)
    second = entry_of(outgoing(group="acme", id="run2"), fifo=True)
    assert first.fields["MessageGroupId"] != second.fields["MessageGroupId"]
    assert first.lane != second.lane
    keyed = [entry_of(outgoing(group="order-7", ordered=True, id=f"run{n}"), fifo=True) for n in range(2)]
    assert {entry.fields["MessageGroupId"] for entry in keyed} == {"order-7"}
    assert keyed[0].lane == keyed[1].lane is not None


async def test_a_repetition_is_the_same_and_other_arguments_are_not():
    def deduplication(**more) -> str:
        return entry_of(outgoing(**more), fifo=True).fields["MessageDeduplicationId"]

    assert deduplication() == deduplication()
    assert deduplication() != deduplication(body=b'{"args":1}')
    assert deduplication() != deduplication(id="run2")
    assert len(deduplication(id="x" * 500)) <= 128


@pytest.mark.parametrize("group", ["ä", "with space", "x" * 129, "\n"])
async def test_a_group_that_sqs_cannot_name_becomes_one_that_it_can(group):
    named = entry_of(outgoing(group=group), fifo=False).fields["MessageGroupId"]
    assert named.isascii()
    assert named.isalnum()
    assert named == entry_of(outgoing(group=group), fifo=False).fields["MessageGroupId"]
    assert named != entry_of(outgoing(group=group + "x"), fifo=False).fields["MessageGroupId"]


async def test_attributes_count_towards_the_limit():
    assert entry_of(outgoing(body=b"x" * 100, attributes={"tenant": "é"}), fifo=False).size == 100 + 6 + 2 + 6
    largest = b"x" * MAX_BYTES
    assert entry_of(outgoing(body=largest), fifo=False).size == MAX_BYTES
    with pytest.raises(PayloadTooLarge, match="attributes included"):
        entry_of(outgoing(body=largest, attributes={"tenant": "a"}), fifo=False)


async def test_what_sqs_cannot_carry_is_written_as_json_can_or_refused():
    assert entry_of(outgoing(body='"\ufffe\uffff"'.encode()), fifo=False).fields["MessageBody"] == '"\\ufffe\\uffff"'
    with pytest.raises(InvalidArgument, match="UTF-8"):
        entry_of(outgoing(body=b"\xff"), fifo=False)

"""What doctor says of a queue's attributes."""

import json

import pytest

pytest.importorskip("aiobotocore")

from agentq.brokers.sqs.address import MAX_BYTES
from agentq.brokers.sqs.setup import letters_checks, letters_settings, queue_checks, queue_settings

ARN = "arn:aws:sqs:us-east-1:1:hello-work-dead"
LETTERS = letters_settings("hello-work-dead") | {"QueueArn": ARN}


def checks(**attributes: str):
    return queue_checks(queue_settings("hello-work", ARN) | attributes, LETTERS, max_bytes=MAX_BYTES)


def test_what_it_makes_it_finds_well():
    assert checks() == []
    assert letters_checks(LETTERS) == []


def test_a_server_is_not_blamed_for_what_it_does_not_tell():
    redrive = {"RedrivePolicy": json.dumps({"deadLetterTargetArn": ARN, "maxReceiveCount": "100"})}
    assert queue_checks(redrive, LETTERS, max_bytes=MAX_BYTES) == []


@pytest.mark.parametrize(
    ("attributes", "says", "sets"),
    [
        ({"VisibilityTimeout": "29"}, "duplicates", {"VisibilityTimeout": "60"}),
        ({"MessageRetentionPeriod": "86400"}, "lost", {"MessageRetentionPeriod": "1209600"}),
        ({"MaximumMessageSize": "262144"}, "max_bytes=262016", {"MaximumMessageSize": "1048576"}),
        ({"SqsManagedSseEnabled": "false"}, "encrypted", {"SqsManagedSseEnabled": "true"}),
    ],
)
def test_it_says_what_is_not_well_and_what_would_be(attributes, says, sets):
    [check] = checks(**attributes)
    assert not check.ok
    assert says in check.text
    assert check.remedy == sets


def test_few_deliveries_until_a_dead_letter_are_too_few_because_of_outages():
    [check] = checks(RedrivePolicy=json.dumps({"deadLetterTargetArn": "arn:aws:sqs:us-east-1:1:other", "maxReceiveCount": 10}))
    assert "outage" in check.text
    assert json.loads(check.remedy["RedrivePolicy"]) == {
        "deadLetterTargetArn": "arn:aws:sqs:us-east-1:1:other",
        "maxReceiveCount": 100,
    }


def test_the_default_retention_is_tolerated_and_a_longer_one_advised():
    [check] = checks(MessageRetentionPeriod="345600")
    assert check.ok
    assert check.remedy == {"MessageRetentionPeriod": "1209600"}


@pytest.mark.parametrize("policy", ["", "{", "[]", '"x"'])
def test_a_redrive_policy_that_cannot_be_read_is_none(policy):
    [check] = checks(RedrivePolicy=policy)
    assert "no redrive policy" in check.text
    assert json.loads(check.remedy["RedrivePolicy"])["deadLetterTargetArn"] == ARN


def test_dead_letters_that_vanish_early_are_reported():
    [check] = letters_checks({"MessageRetentionPeriod": "345600"})
    assert not check.ok


def test_encryption_by_a_key_of_the_users_is_encryption():
    assert checks(SqsManagedSseEnabled="false", KmsMasterKeyId="alias/mine") == []


def test_a_fifo_queue_is_made_for_many_groups():
    assert queue_settings("x.fifo", ARN)["FifoThroughputLimit"] == "perMessageGroupId"
    assert letters_settings("x-dead.fifo")["FifoQueue"] == "true"

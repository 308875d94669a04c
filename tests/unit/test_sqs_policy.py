"""The IAM policy allows what is needed, by part, and nothing beyond."""

import pytest

pytest.importorskip("aiobotocore")

from agentq.brokers.sqs import SQSBroker


def statements(url: str = "sqs://eu-west-1?payloads=s3://bucket/here", queues=("work", "orders.fifo")) -> dict:
    policy = SQSBroker(url, app="hello").policy(queues)
    assert policy["Version"] == "2012-10-17"
    return {statement["Sid"]: statement for statement in policy["Statement"]}


def test_a_producer_sends_and_can_do_nothing_else():
    producer = statements()["AgentqProducer"]
    assert producer["Action"] == ["sqs:GetQueueUrl", "sqs:SendMessage"]
    assert producer["Resource"] == ["arn:aws:sqs:eu-west-1:*:hello-orders.fifo", "arn:aws:sqs:eu-west-1:*:hello-work"]


def test_a_worker_receives_and_cannot_send():
    assert not {"sqs:SendMessage", "sqs:SetQueueAttributes"} & set(statements()["AgentqWorker"]["Action"])


def test_a_scaler_only_looks():
    scaler = statements()["AgentqScaler"]
    assert scaler["Action"] == ["sqs:GetQueueAttributes", "sqs:GetQueueUrl"]
    assert "arn:aws:sqs:eu-west-1:*:hello-orders-dead.fifo" in scaler["Resource"]


def test_payloads_are_allowed_below_their_prefix_alone():
    parts = statements()
    assert parts["AgentqProducerPayloads"]["Resource"] == ["arn:aws:s3:::bucket/here/*"]
    assert parts["AgentqWorkerPayloads"]["Action"] == ["s3:GetObject"]
    assert "AgentqProducerPayloads" not in statements("sqs://eu-west-1")


def test_nothing_is_a_wildcard_action_or_resource():
    for statement in statements().values():
        assert not [action for action in statement["Action"] if "*" in action]
        assert "*" not in statement["Resource"]


@pytest.mark.parametrize(("region", "partition"), [("cn-north-1", "aws-cn"), ("us-gov-west-1", "aws-us-gov")])
def test_other_partitions_have_their_own_names(region, partition):
    assert statements(f"sqs://{region}")["AgentqProducer"]["Resource"][0].startswith(f"arn:{partition}:sqs:{region}:")

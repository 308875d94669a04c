"""The least that IAM must allow: a policy document with a statement for each part, to be split between their roles."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from agentq.brokers.sqs.address import dead_name

if TYPE_CHECKING:
    from collections.abc import Sequence

    from agentq.brokers.sqs.address import Address


def iam_policy(address: Address, queues: Sequence[str]) -> dict[str, Any]:
    """A document that names only these queues, their dead-letter queues, and the prefix of the payloads.

    The account is left open (``*``), because no request tells it; it is that of the role anyway.
    """
    names = sorted({address.name(queue) for queue in queues})
    own = [_arn(address, name) for name in names]
    dead = [_arn(address, dead_name(name)) for name in names]
    statements = [
        _allow("AgentqProducer", ["sqs:GetQueueUrl", "sqs:SendMessage"], own),
        _allow(
            "AgentqWorker",
            ["sqs:ChangeMessageVisibility", "sqs:DeleteMessage", "sqs:GetQueueUrl", "sqs:ReceiveMessage"],
            own,
        ),
        _allow("AgentqScaler", ["sqs:GetQueueAttributes", "sqs:GetQueueUrl"], own + dead),
        _allow(
            "AgentqDeadLetters",
            [
                "sqs:ChangeMessageVisibility",
                "sqs:DeleteMessage",
                "sqs:GetQueueAttributes",
                "sqs:GetQueueUrl",
                "sqs:ReceiveMessage",
            ],
            dead,
        ),
        _allow(
            "AgentqDoctorFix",
            ["sqs:CreateQueue", "sqs:GetQueueAttributes", "sqs:GetQueueUrl", "sqs:SetQueueAttributes"],
            own + dead,
        ),
    ]
    if address.bucket is not None:
        objects = [f"arn:{_partition(address)}:s3:::{address.bucket}/{address.prefix}*"]
        statements.append(_allow("AgentqProducerPayloads", ["s3:PutObject"], objects))
        statements.append(_allow("AgentqWorkerPayloads", ["s3:GetObject"], objects))
    return {"Version": "2012-10-17", "Statement": statements}


def _allow(part: str, actions: list[str], resources: list[str]) -> dict[str, Any]:
    return {"Sid": part, "Effect": "Allow", "Action": actions, "Resource": resources}


def _arn(address: Address, name: str) -> str:
    return f"arn:{_partition(address)}:sqs:{address.region}:*:{name}"


def _partition(address: Address) -> str:
    if address.region.startswith("cn-"):
        return "aws-cn"
    return "aws-us-gov" if address.region.startswith("us-gov-") else "aws"

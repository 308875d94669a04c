"""What the app's queues need at SQS: looked at, and with ``fix`` made so."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

from agentq.brokers.base import Finding
from agentq.brokers.sqs.address import MAX_BATCH_BYTES, UNSEEN_BYTES, is_fifo
from agentq.brokers.sqs.errors import Missing, Refused
from agentq.brokers.sqs.letters import letters_name, redrive
from agentq.errors import BrokerError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from agentq.brokers.sqs.address import Address
    from agentq.brokers.sqs.client import Clients

LEAST_RECEIVES: Final = 100
"""While the store is away, messages are taken and handed back; a few deliveries more must not make dead letters of them."""
LEAST_VISIBILITY_S: Final = 30
"""Time for intake to write rows and delete messages, slow database and retries included."""
VISIBILITY_S: Final = 60
"""What a queue is made with. It is no run's time: a message is deleted as soon as its row is written."""
RETENTION_S: Final = 14 * 24 * 3600
"""The longest that SQS keeps a message."""
LEAST_RETENTION_S: Final = 4 * 24 * 3600
"""What AWS makes queues with: less, and a long weekend's outage loses messages."""
_FIFO: Final = {"FifoQueue": "true", "DeduplicationScope": "messageGroup", "FifoThroughputLimit": "perMessageGroupId"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Check:
    """One thing looked at, and the attributes that would put it right."""

    ok: bool
    text: str
    remedy: Mapping[str, str] = field(default_factory=dict)


async def inspect(address: Address, clients: Clients, queues: Sequence[str], *, fix: bool) -> list[Finding]:
    """See `Broker.inspect`. One line for each thing that is not well, one where all is."""
    findings: list[Finding] = []
    for name in dict.fromkeys(address.name(queue) for queue in queues):
        try:
            findings += await _queue(address, clients, name, fix=fix)
        except BrokerError as error:
            findings.append(Finding(what=name, ok=False, text=str(error)))
    if address.bucket is not None:
        findings.append(await _bucket(clients, address.bucket, address.prefix))
    return findings


async def _queue(address: Address, clients: Clients, name: str, *, fix: bool) -> list[Finding]:
    attributes = await _attributes(clients, name)
    letters = letters_name(name, attributes or {})
    letters_attributes = await _attributes(clients, letters)
    findings: list[Finding] = []
    if letters_attributes is None:
        text = "there is no dead-letter queue, so a message that nobody can take is delivered for ever"
        findings.append(await _made(clients, letters, text, letters_settings(letters), fix=fix))
        letters_attributes = await _attributes(clients, letters) if fix else None
    if attributes is None:
        settings = queue_settings(name, (letters_attributes or {}).get("QueueArn"))
        findings.append(await _made(clients, name, "there is no such queue", settings, fix=fix))
        return findings
    checks = queue_checks(attributes, letters_attributes, max_bytes=address.max_bytes)
    findings += [await _checked(clients, name, check, fix=fix) for check in checks]
    if letters_attributes is not None:
        findings += [await _checked(clients, letters, check, fix=fix) for check in letters_checks(letters_attributes)]
    if all(finding.ok and not finding.fixed for finding in findings):
        findings.insert(0, Finding(what=name, ok=True, text=_summary(attributes, letters)))
    return findings


def queue_settings(name: str, letters_arn: str | None) -> dict[str, str]:
    """The attributes that a queue is made with."""
    settings = {
        "VisibilityTimeout": str(VISIBILITY_S),
        "MessageRetentionPeriod": str(RETENTION_S),
        "MaximumMessageSize": str(MAX_BATCH_BYTES),
    }
    if letters_arn is not None:
        settings["RedrivePolicy"] = _redrive_policy(letters_arn)
    return settings | (_FIFO if is_fifo(name) else {})


def letters_settings(name: str) -> dict[str, str]:
    """The attributes that a dead-letter queue is made with."""
    settings = {"MessageRetentionPeriod": str(RETENTION_S), "MaximumMessageSize": str(MAX_BATCH_BYTES)}
    return settings | ({"FifoQueue": "true"} if is_fifo(name) else {})


def queue_checks(attributes: Mapping[str, str], letters: Mapping[str, str] | None, *, max_bytes: int) -> list[Check]:
    """What is not well with a queue. A server that does not tell an attribute is not blamed for it."""
    checks = [_redrive_check(attributes, letters)]
    visibility = int(attributes.get("VisibilityTimeout", VISIBILITY_S))
    if visibility < LEAST_VISIBILITY_S:
        text = f"VisibilityTimeout is {visibility} s: a slow database makes duplicates; use {VISIBILITY_S}"
        checks.append(Check(ok=False, text=text, remedy={"VisibilityTimeout": str(VISIBILITY_S)}))
    retention = int(attributes.get("MessageRetentionPeriod", RETENTION_S))
    if retention < RETENTION_S:
        text = f"MessageRetentionPeriod is {retention / 86400:g} days: what waits longer is lost; better use 14"
        checks.append(Check(ok=retention >= LEAST_RETENTION_S, text=text, remedy={"MessageRetentionPeriod": str(RETENTION_S)}))
    largest = int(attributes.get("MaximumMessageSize", MAX_BATCH_BYTES))
    if largest < max_bytes + UNSEEN_BYTES:
        fitting = f"max_bytes={largest - UNSEEN_BYTES}"
        text = f"MaximumMessageSize is {largest} bytes, and up to {max_bytes} are sent; raise it, or say {fitting} in the url"
        checks.append(Check(ok=False, text=text, remedy={"MaximumMessageSize": str(MAX_BATCH_BYTES)}))
    if attributes.get("SqsManagedSseEnabled") == "false" and not attributes.get("KmsMasterKeyId"):
        text = "messages are not encrypted at rest"
        checks.append(Check(ok=False, text=text, remedy={"SqsManagedSseEnabled": "true"}))
    return [check for check in checks if check.text]


def letters_checks(letters: Mapping[str, str]) -> list[Check]:
    """What is not well with a dead-letter queue."""
    kept = int(letters.get("MessageRetentionPeriod", RETENTION_S))
    if kept >= RETENTION_S:
        return []
    text = f"MessageRetentionPeriod is {kept / 86400:g} days and counts from the first sending: dead letters vanish; use 14"
    return [Check(ok=False, text=text, remedy={"MessageRetentionPeriod": str(RETENTION_S)})]


def _redrive_check(attributes: Mapping[str, str], letters: Mapping[str, str] | None) -> Check:
    policy = redrive(attributes)
    target = policy.get("deadLetterTargetArn")
    arn = target or (letters or {}).get("QueueArn")
    remedy = {"RedrivePolicy": _redrive_policy(arn)} if arn else {}
    if not target:
        text = "nothing takes what cannot be delivered: it has no redrive policy"
        return Check(ok=False, text=text, remedy=remedy)
    receives = int(policy.get("maxReceiveCount", 0))
    if receives < LEAST_RECEIVES:
        text = (
            f"maxReceiveCount is {receives}: an outage of the store hands messages back again and again, and would make dead "
            f"letters of healthy ones; use {LEAST_RECEIVES} or more"
        )
        return Check(ok=False, text=text, remedy=remedy)
    return Check(ok=True, text="")


def _redrive_policy(arn: str) -> str:
    return json.dumps({"deadLetterTargetArn": arn, "maxReceiveCount": LEAST_RECEIVES})


def _summary(attributes: Mapping[str, str], letters: str) -> str:
    encrypted = "KMS" if attributes.get("KmsMasterKeyId") else attributes.get("SqsManagedSseEnabled", "not told")
    receives = redrive(attributes).get("maxReceiveCount")
    return f"it is there; dead letters go to {letters} after {receives} deliveries; encrypted at rest: {encrypted}"


async def _attributes(clients: Clients, name: str) -> dict[str, str] | None:
    try:
        answer = await clients.ask("get_queue_attributes", name, AttributeNames=["All"])
    except Missing:
        return None
    attributes: dict[str, str] = answer.get("Attributes", {})
    return attributes


async def _made(clients: Clients, name: str, text: str, settings: dict[str, Any], *, fix: bool) -> Finding:
    if not fix:
        return Finding(what=name, ok=False, text=f"{text}; `agentq doctor --fix` makes it")
    await clients.call("create_queue", name, QueueName=name, Attributes=settings)
    return Finding(what=name, ok=True, text="made", fixed=True)


async def _checked(clients: Clients, name: str, check: Check, *, fix: bool) -> Finding:
    if not fix or not check.remedy:
        return Finding(what=name, ok=check.ok, text=check.text)
    try:
        await clients.ask("set_queue_attributes", name, Attributes=dict(check.remedy))
    except Refused as error:
        return Finding(what=name, ok=False, text=f"{check.text} (not done: {error})")
    done = ", ".join(f"{key} = {value}" for key, value in check.remedy.items())
    return Finding(what=name, ok=True, text=f"set {done}", fixed=True)


async def _bucket(clients: Clients, bucket: str, prefix: str) -> Finding:
    where = f"s3://{bucket}/{prefix}"
    try:
        await clients.call("head_bucket", where, kind="s3", Bucket=bucket)
    except BrokerError as error:
        return Finding(what=where, ok=False, text=f"large arguments cannot be kept there: {error}")
    text = "it is there; only a lifecycle rule of the bucket deletes what lies there: 15 days outlive every message"
    return Finding(what=where, ok=True, text=text)

"""What `agentq doctor` says of a cluster, and creates there."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Final

from aiokafka.errors import UnknownTopicOrPartitionError

from agentq.brokers.base import Backlog, Finding
from agentq.brokers.kafka.address import OVERHEAD, Address
from agentq.brokers.kafka.answers import Topic
from agentq.brokers.kafka.backlog import EXPIRING, Backlogs, retention_s
from agentq.brokers.kafka.desk import Desk
from agentq.brokers.kafka.failures import failure
from agentq.errors import BrokerError

_DAY_S: Final = 86_400
_RETENTION_S: Final = 7 * _DAY_S
"""What a week-long outage of the workers needs, and Kafka's own default."""
_CREATED: Final = {
    "cleanup.policy": "delete",
    "retention.ms": str(_RETENTION_S * 1000),
    "message.timestamp.type": "LogAppendTime",  # ages and submission times by one clock
}


async def inspect(address: Address, desk: Desk, backlogs: Backlogs, queues: Sequence[str], *, fix: bool) -> list[Finding]:
    """Look at the cluster, the topics of ``queues`` and the group; with ``fix`` create topics that are missing."""
    try:
        brokers = await desk.brokers()
        names = address.topics(tuple(queues))
        topics = await desk.topics(names)
    except BrokerError as error:
        return [Finding(what="cluster", ok=False, text=str(error))]
    findings = [Finding(what="cluster", ok=True, text=f"{brokers} broker{'s' * (brokers != 1)} at {address.where}")]
    for name, queue in names.items():
        topic = topics[name]
        if topic.error is UnknownTopicOrPartitionError:
            findings.append(await _missing(address, desk, name, fix=fix))
        elif topic.error is not None:
            findings.append(Finding(what=f"topic {name}", ok=False, text=str(failure(topic.error(), "describe"))))
        else:
            findings += await _existing(address, desk, backlogs, topic, queue, brokers)
    return [*findings, await _group(address, desk)]


async def _missing(address: Address, desk: Desk, name: str, *, fix: bool) -> Finding:
    what = f"topic {name}"
    if not fix:
        return Finding(what=what, ok=False, text="it does not exist; create it: agentq doctor --fix")
    try:
        await desk.create(name, address.partitions, address.replication, _CREATED)
    except BrokerError as error:
        return Finding(what=what, ok=False, text=str(error))
    return Finding(what=what, ok=True, fixed=True, text=f"created with {address.partitions} partitions, kept for 7 days")


async def _existing(address: Address, desk: Desk, backlogs: Backlogs, topic: Topic, queue: str, brokers: int) -> list[Finding]:
    what = f"topic {topic.name}"
    try:
        settings = (await desk.configs([topic.name]))[topic.name]
    except BrokerError as error:
        text = f"its settings cannot be read: {error}; allow this user DescribeConfigs on it"
        return [Finding(what=what, ok=False, text=text)]
    [backlog] = await backlogs.read([queue])
    wrong = [*_copies(topic, settings, brokers), *_keeping(settings, backlog), *_sizes(address, settings)]
    if wrong:
        return [Finding(what=what, ok=False, text=text) for text in wrong]
    kept = retention_s(settings)
    days = "for ever" if kept == float("inf") else f"for {kept / _DAY_S:g} days"
    text = f"{len(topic.leaders)} partitions: so many workers read at once; replicas: {topic.replicas}; kept {days}"
    return [Finding(what=what, ok=True, text=text)]


def _copies(topic: Topic, settings: Mapping[str, str], brokers: int) -> Iterator[str]:
    least = int(settings.get("min.insync.replicas", "1"))
    if topic.replicas < min(2, brokers):
        yield f"it has one replica among {brokers} brokers: one lost disk loses it; raise its replication factor to 3"
    elif topic.replicas > 1 and least < 2:  # noqa: PLR2004 - one disk more than one
        yield "min.insync.replicas is 1: what one broker alone has counts as sent; set it to 2"
    elif topic.replicas > 1 and least >= topic.replicas:
        yield f"min.insync.replicas is {least} of {topic.replicas} replicas: no broker may be down; lower it by one"


def _keeping(settings: Mapping[str, str], backlog: Backlog) -> Iterator[str]:
    policy, kept = settings.get("cleanup.policy", "delete"), retention_s(settings)
    if "compact" in policy:
        yield f"cleanup.policy is {policy}: of messages of one key only the last is kept; set it to delete"
    if kept < _RETENTION_S:
        yield f"retention.ms is {kept * 1000:.0f}: what is unread after {kept / _DAY_S:g} days is deleted; set it to 604800000"
    if int(settings.get("retention.bytes", "-1")) >= 0:
        yield f"retention.bytes is {settings['retention.bytes']}: a burst deletes what is unread; set it to -1"
    if backlog.oldest_age_s is not None and backlog.oldest_age_s > kept * EXPIRING:
        yield f"its oldest unread message is {backlog.oldest_age_s:.0f} s old, of {kept:.0f} s that it is kept: start workers"


def _sizes(address: Address, settings: Mapping[str, str]) -> Iterator[str]:
    largest = int(settings.get("max.message.bytes", "1048588"))
    if largest < address.max_bytes + OVERHEAD:
        remedy = f"set it to {address.max_bytes + OVERHEAD}, or max_bytes={max(1024, largest - OVERHEAD)} in the broker's url"
        yield f"max.message.bytes is {largest}: messages of up to {address.max_bytes} bytes are sent; {remedy}"


async def _group(address: Address, desk: Desk) -> Finding:
    what = f"group {address.group}"
    try:
        state, members = await desk.group_state(address.group)
    except BrokerError as error:
        return Finding(what=what, ok=False, text=str(error))
    if state in {"Dead", "Empty", ""}:
        return Finding(what=what, ok=True, text="no worker is in it")
    return Finding(what=what, ok=True, text=f"{state}, {members} member{'s' * (members != 1)}")

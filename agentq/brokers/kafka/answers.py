"""How the cluster's answers read: topics with their identities, leaders, coordinators and offsets."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from aiokafka.errors import LeaderNotAvailableError, NoError, for_code
from aiokafka.protocol.coordination import FindCoordinatorRequest
from aiokafka.protocol.metadata import MetadataRequest
from aiokafka.protocol.offset import OffsetRequest

from agentq.brokers.kafka.topic_ids import TopicsRequest
from agentq.errors import BrokerUnavailable

Place = tuple[str, int]
"""Topic and partition."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Topic:
    """What the cluster says of one topic."""

    name: str
    source: str
    """Its identity: by the topic's id, or where the cluster has none, by the cluster's id and the name."""
    identified: bool
    """Whether a topic of this name made anew has another source."""
    leaders: dict[int, int]
    """Partition to the node that leads it; -1 is none for now."""
    replicas: int
    """Of the partition that has the fewest."""
    error: type[Exception] | None = None
    """Why the rest means nothing."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Committed:
    """What the group's coordinator keeps for one partition."""

    offset: int
    note: str
    """The source that it was committed for, if we did; a topic made anew inherits no offset."""


def any_node(client: Any) -> int:
    """Any broker that is known."""
    node = client.get_random_node()
    if node is None:
        raise BrokerUnavailable("the cluster names no broker")
    return int(node)


async def topics(client: Any, names: Iterable[str]) -> dict[str, Topic]:
    """Every topic asked for, those that do not exist with an error."""
    wanted = sorted(set(names))
    try:
        answer = await client.send(any_node(client), TopicsRequest(wanted))
    except NotImplementedError:  # before 2.8
        answer = await client.send(any_node(client), MetadataRequest(wanted))
        return {topic.name: topic for topic in (_unidentified(row, answer.cluster_id) for row in answer.topics)}
    return {topic.name: topic for topic in map(_identified, answer.topics)}


async def leaders(client: Any, names: Iterable[str]) -> dict[Place, int]:
    """Who leads each partition now."""
    found = {}
    for topic in (await topics(client, names)).values():
        if topic.error is not None:
            raise topic.error(topic.name)
        for number, leader in topic.leaders.items():
            if leader < 0:
                raise LeaderNotAvailableError(f"{topic.name}/{number}")
            found[topic.name, number] = leader
    return found


async def coordinator(client: Any, group: str) -> int:
    """Who keeps what ``group`` committed."""
    answer = await client.send(any_node(client), FindCoordinatorRequest(group, 0))
    check(answer.error_code)
    return int(answer.coordinator_id)


async def offsets(client: Any, places: Mapping[Place, int], time: int, isolation: int) -> dict[Place, int]:
    """The offset at ``time`` (-2 the first, -1 the next) by partition, given their leaders.

    With isolation 1 the next one is ahead of open transactions.
    """
    by_leader: defaultdict[int, defaultdict[str, list[tuple[int, int]]]] = defaultdict(lambda: defaultdict(list))
    for (topic, number), leader in places.items():
        by_leader[leader][topic].append((number, time))
    found = {}
    for leader, asked in by_leader.items():
        answer = await client.send(leader, OffsetRequest(-1, isolation, list(asked.items())))
        for topic, rows in answer.topics:
            for number, code, _, offset in rows:
                check(code)
                found[topic, number] = offset
    return found


def check(code: int) -> None:
    """Raise what ``code`` means, if it is an error."""
    error = for_code(code)
    if error is not NoError:
        raise error


def _identified(row: Any) -> Topic:
    code, name, key, _, partitions, *_ = row
    rows = [(number, leader, replicas) for _, number, leader, _, replicas, *_ in partitions]
    return _topic(code, name, f"kafka:{key}", rows, identified=True)


def _unidentified(row: Any, cluster: str) -> Topic:
    code, name, _, partitions = row
    rows = [(number, leader, replicas) for _, number, leader, replicas, *_ in partitions]
    return _topic(code, name, f"kafka:{cluster}/{name}", rows, identified=False)


def _topic(code: int, name: str, source: str, rows: list[tuple[int, int, list[int]]], *, identified: bool) -> Topic:
    error = for_code(code)
    return Topic(
        name=name,
        source=source,
        identified=identified,
        leaders={number: leader for number, leader, _ in sorted(rows, key=lambda row: row[0])},
        replicas=min((len(replicas) for _, _, replicas in rows), default=0),
        error=None if error is NoError else error,
    )

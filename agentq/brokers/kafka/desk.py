"""Questions to the cluster: which topics, from where to where, what is committed, how it is set. One at a time."""

from __future__ import annotations

import asyncio
import ssl
from collections import defaultdict
from collections.abc import Awaitable, Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Final, NoReturn, TypeVar

from aiokafka.client import AIOKafkaClient
from aiokafka.conn import collect_hosts, create_conn
from aiokafka.errors import (
    GroupCoordinatorNotAvailableError,
    GroupLoadInProgressError,
    KafkaConnectionError,
    KafkaError,
    LeaderNotAvailableError,
    NoError,
    NotControllerError,
    NotCoordinatorForGroupError,
    NotLeaderForPartitionError,
    for_code,
)
from aiokafka.protocol.admin import CreateTopicsRequest, DescribeConfigsRequest, DescribeGroupsRequest
from aiokafka.protocol.commit import OffsetFetchRequest
from aiokafka.protocol.coordination import FindCoordinatorRequest
from aiokafka.protocol.fetch import FetchRequest
from aiokafka.protocol.metadata import MetadataRequest
from aiokafka.protocol.offset import OffsetRequest

from agentq.brokers.kafka.access import options
from agentq.brokers.kafka.address import Address
from agentq.brokers.kafka.failures import failure
from agentq.brokers.kafka.topic_ids import TopicsRequest
from agentq.errors import BrokerError, BrokerUnavailable

ANSWER_S: Final = 5.0
"""For a question and all that it needs: who asks waits."""
_AGAIN_S: Final = 0.1
_SOON: Final = (
    GroupCoordinatorNotAvailableError,
    GroupLoadInProgressError,
    LeaderNotAvailableError,
    NotControllerError,
    NotCoordinatorForGroupError,
    NotLeaderForPartitionError,
)
"""What passes by itself in a moment."""
_EARLIEST: Final = -2
_LATEST: Final = -1
_TOPIC: Final = 2
_BATCH_TIME: Final = slice(27, 35)
"""Where a record batch says the time of its first record."""

_T = TypeVar("_T")
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


class Desk:
    """One client for questions. Connects when first asked, and anew after every failure."""

    def __init__(self, address: Address) -> None:
        """Ask the cluster at ``address``."""
        self._address = address
        self._client: Any = None
        self._turn = asyncio.Lock()

    async def close(self) -> None:
        """Hang up."""
        async with self._turn:
            await self._drop()

    async def topics(self, names: Iterable[str]) -> dict[str, Topic]:
        """Every topic asked for, those that do not exist with an error. Creates none."""
        return await self._ask("topics", lambda client: _topics(client, names))

    async def brokers(self) -> int:
        """How many there are."""

        async def question(client: Any) -> int:
            return len(client.cluster.brokers())

        return await self._ask("brokers", question)

    async def bounds(self, topics: Iterable[Topic], *, committed: bool = False) -> dict[Place, tuple[int, int]]:
        """Offset of the first message and of the next one, by partition; with ``committed``, ahead of open transactions."""
        names = [topic.name for topic in topics]

        async def question(client: Any) -> dict[Place, tuple[int, int]]:
            places = await _leaders(client, names)
            begins = await _offsets(client, places, _EARLIEST, 0)
            ends = await _offsets(client, places, _LATEST, int(committed))
            return {place: (begins[place], ends[place]) for place in places}

        return await self._ask("offsets", question)

    async def committed(self, group: str, places: Iterable[Place]) -> dict[Place, Committed]:
        """What ``group`` has committed; a partition without is left out."""
        asked: defaultdict[str, list[int]] = defaultdict(list)
        for topic, number in places:
            asked[topic].append(number)

        async def question(client: Any) -> dict[Place, Committed]:
            answer = await client.send(await _coordinator(client, group), OffsetFetchRequest(group, list(asked.items())))
            found = {}
            for topic, rows in answer.topics:
                for number, offset, note, code in rows:
                    _check(code)
                    if offset >= 0:
                        found[topic, number] = Committed(offset=offset, note=note or "")
            return found

        return await self._ask("committed offsets", question)

    async def group_state(self, group: str) -> tuple[str, int]:
        """State of ``group`` as the coordinator calls it, and how many members it has."""

        async def question(client: Any) -> tuple[str, int]:
            answer = await client.send(await _coordinator(client, group), DescribeGroupsRequest([group]))
            code, _, state, _, _, members, *_ = answer.groups[0]
            _check(code)
            return state, len(members)

        return await self._ask("group", question)

    async def configs(self, names: Iterable[str]) -> dict[str, dict[str, str]]:
        """The settings of these topics, by their names in Kafka's documentation."""
        request = DescribeConfigsRequest([(_TOPIC, name, None) for name in names], False)  # noqa: FBT003

        async def question(client: Any) -> dict[str, dict[str, str]]:
            answer = await client.send(_any(client), request)
            found = {}
            for code, _, _, name, rows in answer.resources:
                _check(code)
                found[name] = {key: value or "" for key, value, *_ in rows}
            return found

        return await self._ask("settings", question)

    async def sent_at(self, topic: Topic, offsets: Mapping[int, int]) -> dict[int, float]:
        """When the message at each partition's offset was sent, to within a batch; Unix seconds. Reads one batch of each."""

        async def question(client: Any) -> dict[int, float]:
            found: dict[int, float] = {}
            leaders = await _leaders(client, [topic.name])
            for number, offset in offsets.items():
                request = FetchRequest(0, 0, 1, 0, [(topic.name, [(number, offset, 1)])])
                answer = await client.send(leaders[topic.name, number], request)
                for _, rows in answer.topics:
                    for _, code, *_, batch in rows:
                        if code == 0 and batch and len(batch) >= _BATCH_TIME.stop:
                            found[number] = int.from_bytes(batch[_BATCH_TIME], "big") / 1000
            return found

        return await self._ask("ages", question)

    async def create(self, name: str, partitions: int, replication: int, settings: Mapping[str, str]) -> None:
        """Create a topic, and wait until it can be seen."""
        wish: tuple[Any, ...] = (name, partitions, replication, [], list(settings.items()))

        async def question(client: Any) -> None:
            request = CreateTopicsRequest([wish], int(ANSWER_S * 1000), False)  # noqa: FBT003 - not only to try
            answer = await client.send(client.cluster.controller.nodeId, request)
            for _, code, *_ in answer.topic_errors:
                _check(code)

        await self._ask(f"create {name}", question)
        for _ in range(int(ANSWER_S / _AGAIN_S)):
            if (await self.topics([name]))[name].error is None:
                return
            await asyncio.sleep(_AGAIN_S)

    async def _ask(self, what: str, question: Callable[[Any], Awaitable[_T]]) -> _T:
        """The answer to one question; after a failure the next one connects anew.

        Raises:
            BrokerUnavailable: nobody answered in time.
            BrokerError: the answer was a refusal.
        """
        async with self._turn:
            try:
                async with asyncio.timeout(ANSWER_S):
                    while True:
                        try:
                            return await question(await self._connected())
                        except _SOON:
                            await asyncio.sleep(_AGAIN_S)
            except (KafkaError, OSError, TimeoutError) as error:
                await self._drop()
                raise failure(error, what) from error
            except BaseException:
                await self._drop()
                raise

    async def _connected(self) -> Any:
        if self._client is None:
            given = options(self._address, "desk")
            client = AIOKafkaClient(**given)
            try:
                try:
                    await client.bootstrap()
                finally:  # who was not let in learns of no broker, and not always of an error
                    if not client.cluster.brokers():
                        await _explain(given)
            except BaseException:
                await client.close()
                raise
            self._client = client
        return self._client

    async def _drop(self) -> None:
        client, self._client = self._client, None
        if client is not None:
            await client.close()


async def _explain(given: dict[str, Any]) -> NoReturn:
    """Connect once by hand: the library only logs why no server let us in, and takes some refusals for an empty cluster.

    Raises:
        BrokerError, BrokerUnavailable: the reason.
    """
    reachable = {name: value for name, value in given.items() if name != "bootstrap_servers"}
    host, port, _ = collect_hosts(given["bootstrap_servers"], randomize=False)[0]
    what, suspect = f"connect to {host}:{port}", given["security_protocol"].startswith("SASL")
    try:
        connection = await create_conn(host, port, **reachable)
        try:
            await connection.send(MetadataRequest([]))
        finally:
            connection.close()
    except ssl.SSLError as error:
        raise BrokerError(f"{what}: {error}; check ca=, cert= and the port") from error
    except (KafkaError, OSError, TimeoutError) as error:
        if suspect and isinstance(error, KafkaConnectionError):
            raise BrokerError(f"{what}: it hung up on us; check user, password or token") from error
        raise failure(error, what) from error
    if suspect:
        raise BrokerError(f"{what}: it tells us nothing; check user, password or token")
    raise BrokerUnavailable(f"{what}: it names no broker")


def _any(client: Any) -> int:
    node = client.get_random_node()
    if node is None:
        raise BrokerUnavailable("the cluster names no broker")
    return int(node)


async def _topics(client: Any, names: Iterable[str]) -> dict[str, Topic]:
    wanted = sorted(set(names))
    try:
        answer = await client.send(_any(client), TopicsRequest(wanted))
    except NotImplementedError:  # before 2.8
        answer = await client.send(_any(client), MetadataRequest(wanted))
        return {topic.name: topic for topic in (_unidentified(row, answer.cluster_id) for row in answer.topics)}
    return {topic.name: topic for topic in map(_identified, answer.topics)}


async def _leaders(client: Any, names: Iterable[str]) -> dict[Place, int]:
    """Who leads each partition now."""
    found = {}
    for topic in (await _topics(client, names)).values():
        if topic.error is not None:
            raise topic.error(topic.name)
        for number, leader in topic.leaders.items():
            if leader < 0:
                raise LeaderNotAvailableError(f"{topic.name}/{number}")
            found[topic.name, number] = leader
    return found


async def _coordinator(client: Any, group: str) -> int:
    answer = await client.send(_any(client), FindCoordinatorRequest(group, 0))
    _check(answer.error_code)
    return int(answer.coordinator_id)


async def _offsets(client: Any, places: Mapping[Place, int], time: int, isolation: int) -> dict[Place, int]:
    by_leader: defaultdict[int, defaultdict[str, list[tuple[int, int]]]] = defaultdict(lambda: defaultdict(list))
    for (topic, number), leader in places.items():
        by_leader[leader][topic].append((number, time))
    found = {}
    for leader, asked in by_leader.items():
        answer = await client.send(leader, OffsetRequest(-1, isolation, list(asked.items())))
        for topic, rows in answer.topics:
            for number, code, _, offset in rows:
                _check(code)
                found[topic, number] = offset
    return found


def _check(code: int) -> None:
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

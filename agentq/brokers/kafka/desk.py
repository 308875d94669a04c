"""Questions to the cluster: which topics, from where to where, what is committed, how it is set. One at a time."""

from __future__ import annotations

import asyncio
import ssl
from collections import defaultdict
from collections.abc import Awaitable, Callable, Iterable, Mapping
from typing import Any, Final, NoReturn, TypeVar

from aiokafka.client import AIOKafkaClient
from aiokafka.conn import collect_hosts, create_conn
from aiokafka.errors import (
    GroupCoordinatorNotAvailableError,
    GroupLoadInProgressError,
    KafkaConnectionError,
    KafkaError,
    LeaderNotAvailableError,
    NotControllerError,
    NotCoordinatorForGroupError,
    NotLeaderForPartitionError,
)
from aiokafka.protocol.admin import CreateTopicsRequest, DescribeConfigsRequest, DescribeGroupsRequest
from aiokafka.protocol.commit import OffsetFetchRequest
from aiokafka.protocol.fetch import FetchRequest
from aiokafka.protocol.metadata import MetadataRequest

from agentq.brokers.kafka import answers
from agentq.brokers.kafka.access import options
from agentq.brokers.kafka.address import Address
from agentq.brokers.kafka.answers import Committed, Place, Topic
from agentq.brokers.kafka.failures import failure
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
        return await self._ask("topics", lambda client: answers.topics(client, names))

    async def brokers(self) -> int:
        """How many there are."""

        async def question(client: Any) -> int:
            return len(client.cluster.brokers())

        return await self._ask("brokers", question)

    async def bounds(self, topics: Iterable[Topic], *, committed: bool = False) -> dict[Place, tuple[int, int]]:
        """Offset of the first message and of the next one, by partition; with ``committed``, ahead of open transactions."""
        names = [topic.name for topic in topics]

        async def question(client: Any) -> dict[Place, tuple[int, int]]:
            places = await answers.leaders(client, names)
            begins = await answers.offsets(client, places, _EARLIEST, 0)
            ends = await answers.offsets(client, places, _LATEST, int(committed))
            return {place: (begins[place], ends[place]) for place in places}

        return await self._ask("offsets", question)

    async def committed(self, group: str, places: Iterable[Place]) -> dict[Place, Committed]:
        """What ``group`` has committed; a partition without is left out."""
        asked: defaultdict[str, list[int]] = defaultdict(list)
        for topic, number in places:
            asked[topic].append(number)

        async def question(client: Any) -> dict[Place, Committed]:
            answer = await client.send(await answers.coordinator(client, group), OffsetFetchRequest(group, list(asked.items())))
            found = {}
            for topic, rows in answer.topics:
                for number, offset, note, code in rows:
                    answers.check(code)
                    if offset >= 0:
                        found[topic, number] = Committed(offset=offset, note=note or "")
            return found

        return await self._ask("committed offsets", question)

    async def group_state(self, group: str) -> tuple[str, int]:
        """State of ``group`` as the coordinator calls it, and how many members it has."""

        async def question(client: Any) -> tuple[str, int]:
            answer = await client.send(await answers.coordinator(client, group), DescribeGroupsRequest([group]))
            code, _, state, _, _, members, *_ = answer.groups[0]
            answers.check(code)
            return state, len(members)

        return await self._ask("group", question)

    async def configs(self, names: Iterable[str]) -> dict[str, dict[str, str]]:
        """The settings of these topics, by their names in Kafka's documentation."""
        request = DescribeConfigsRequest([(_TOPIC, name, None) for name in names], False)  # noqa: FBT003 - without synonyms

        async def question(client: Any) -> dict[str, dict[str, str]]:
            answer = await client.send(answers.any_node(client), request)
            found = {}
            for code, _, _, name, rows in answer.resources:
                answers.check(code)
                found[name] = {key: value or "" for key, value, *_ in rows}
            return found

        return await self._ask("settings", question)

    async def sent_at(self, topic: Topic, offsets: Mapping[int, int]) -> dict[int, float]:
        """When the message at each partition's offset was sent, to within a batch; Unix seconds. Reads one batch of each."""

        async def question(client: Any) -> dict[int, float]:
            found: dict[int, float] = {}
            leaders = await answers.leaders(client, [topic.name])
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
                answers.check(code)

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
    what, security = f"connect to {host}:{port}", given["security_protocol"]
    suspect = security.startswith("SASL")
    try:
        connection = await create_conn(host, port, **reachable)
        try:
            await connection.send(MetadataRequest([]))
        finally:
            connection.close()
    except ssl.SSLError as error:
        raise BrokerError(f"{what}: {error}; check ca=, cert= and the port") from error
    except (KafkaError, OSError, TimeoutError) as error:
        if security.endswith("SSL") and isinstance(error, ConnectionResetError | ConnectionAbortedError):
            raise BrokerUnavailable(f"{what}: {_no_handshake(security)}") from error
        if security == "PLAINTEXT" and isinstance(error, KafkaConnectionError):
            raise BrokerUnavailable(
                f"{what}: {error}; if it wants TLS or a login, say so: security=SSL, or kafka://user:password@host"
            ) from error
        if suspect and isinstance(error, KafkaConnectionError):
            raise BrokerError(f"{what}: it hung up on us; check user, password or token") from error
        raise failure(error, what) from error
    if suspect:
        raise BrokerError(f"{what}: it tells us nothing; check user, password or token")
    raise BrokerUnavailable(f"{what}: it names no broker")


def _no_handshake(security: str) -> str:
    implied = ", which a login implies" if security == "SASL_SSL" else ""
    plain = security.replace("SSL", "PLAINTEXT")
    return f"the TLS handshake failed (security={security}{implied}); a listener without TLS needs security={plain}"

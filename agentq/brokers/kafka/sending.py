"""The producer: idempotent, many callers in one request, an answer for each message."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Sequence
from typing import Any, Final

from aiokafka import AIOKafkaProducer
from aiokafka.errors import KafkaError, KafkaTimeoutError, MessageSizeTooLargeError

from agentq.brokers.base import Outgoing
from agentq.brokers.kafka.access import options
from agentq.brokers.kafka.address import OVERHEAD, Address
from agentq.brokers.kafka.desk import Desk
from agentq.brokers.kafka.failures import failure
from agentq.errors import BrokerError, BrokerUnavailable

ANSWER_S: Final = 20.0
"""After so long without the cluster's word a message is answered as unavailable; it may be on the cluster's disk even so."""
FLUSH_S: Final = 10.0
"""For what was handed in to be sent before a producer ends."""
_START_S: Final = 10.0
REQUEST_S: Final = 5.0
"""For one request; it is repeated, without harm, until the answer is due."""
_TOPIC_S: Final = 2.0
"""For a topic to be known, which takes a moment after it was made."""
_REQUEST_BYTES: Final = 256 * 1024
"""Of one partition's messages in a request."""


class Sender:
    """Sends for one broker object. Its producer is made when it is needed, and anew after an error that breaks its sequence."""

    def __init__(self, address: Address, desk: Desk) -> None:
        """Connect to nothing yet."""
        self._address = address
        self._desk = desk
        self._producer: Any = None
        self._starting = asyncio.Lock()
        self._sending = 0
        self._idle = asyncio.Event()
        self._idle.set()
        self._ending: set[asyncio.Task[None]] = set()

    async def send(self, messages: Sequence[Outgoing]) -> list[BaseException | None]:
        """Send; answer in order what became of each."""
        self._sending += 1
        self._idle.clear()
        try:
            async with asyncio.timeout(ANSWER_S):
                producer = await self._started()
                handed = await self._handed_in(producer, messages)
            return await self._answers(producer, handed)
        except (KafkaError, TimeoutError, BrokerError) as error:
            return [failure(error, "send")] * len(messages)
        finally:
            self._sending -= 1
            if not self._sending:
                self._idle.set()

    async def close(self) -> None:
        """Send what was handed in, then hang up."""
        await self._idle.wait()
        async with self._starting:
            self._give_up(self._producer)
        if self._ending:
            await asyncio.wait(self._ending)

    async def _handed_in(self, producer: Any, messages: Sequence[Outgoing]) -> list[Any]:
        """For each message the future of its answer, or the error that it met already."""
        handed: list[Any] = []
        refused: dict[str, BaseException] = {}
        for message in messages:
            topic = self._address.topic(message.queue)
            try:
                if topic not in refused and producer.client.cluster.partitions_for_topic(topic) is None:
                    refused.update(await self._refusal(producer, topic))
                if topic in refused:
                    handed.append(refused[topic])
                    continue
                headers = [(name, value.encode()) for name, value in message.attributes.items()]
                size = len(message.body) + sum(len(name) + len(value) for name, value in headers)
                if size > self._address.max_bytes:
                    raise MessageSizeTooLargeError(f"{size} bytes, of {self._address.max_bytes} at most")
                key = None if message.group is None else message.group.encode()
                handed.append(await producer.send(topic, message.body, key=key, headers=headers))
            except KafkaError as error:
                handed.append(failure(error, f"send to {topic}"))
        return handed

    async def _refusal(self, producer: Any, topic: str) -> dict[str, BaseException]:
        """Why ``topic`` takes nothing; empty if it does."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_TOPIC_S):
                await producer.partitions_for(topic)
                return {}
        [found] = (await self._desk.topics([topic])).values()
        if found.error is None:
            return {topic: BrokerUnavailable(f"topic {topic} is not known everywhere yet")}
        return {topic: failure(found.error(), f"send to {topic}")}

    async def _answers(self, producer: Any, handed: Sequence[Any]) -> list[BaseException | None]:
        """Wait for the cluster's word on each, for a while."""
        waiting = {each for each in handed if isinstance(each, asyncio.Future)}
        if waiting:
            await asyncio.wait(waiting, timeout=ANSWER_S)
        answers = [each if isinstance(each, BaseException) else _answer(each) for each in handed]
        if any(not each.done() or each.exception() for each in waiting) and producer is self._producer:
            # What failed left a hole in its sequence: whatever it sends from now on would be refused.
            self._give_up(producer)
        return answers

    async def _started(self) -> Any:
        async with self._starting:
            if self._producer is None:
                await self._desk.brokers()  # it knows why we are not let in; the library tries for ever
                producer = AIOKafkaProducer(
                    **options(self._address, "producer") | {"request_timeout_ms": int(REQUEST_S * 1000)},
                    enable_idempotence=True,
                    acks="all",
                    linger_ms=int(self._address.linger_s * 1000),
                    max_batch_size=_REQUEST_BYTES,
                    max_request_size=self._address.max_bytes + OVERHEAD,
                )
                try:
                    async with asyncio.timeout(_START_S):
                        await producer.start()
                except BaseException:
                    await producer.stop()
                    raise
                self._producer = producer
            return self._producer

    def _give_up(self, producer: Any) -> None:
        """End ``producer`` beside what goes on; the next message gets another."""
        self._producer = None
        if producer is not None:
            task = asyncio.create_task(_end(producer))
            self._ending.add(task)
            task.add_done_callback(self._ending.discard)


def _answer(future: asyncio.Future[Any]) -> BaseException | None:
    if not future.done():
        return BrokerUnavailable(f"send: the cluster did not answer within {ANSWER_S:g} s")
    error = future.exception()
    return None if error is None else failure(error, "send")


async def _end(producer: Any) -> None:
    """Let it send what it has, for a while, and stop it."""
    try:
        async with asyncio.timeout(FLUSH_S):
            await producer.flush()
    except TimeoutError:
        _fail(producer)
    stopping = asyncio.create_task(producer.stop())
    await asyncio.wait({stopping})
    if stopping.cancelled() or stopping.exception() is not None:
        await producer.client.close()  # it stops in this order, and left this out


class _Forgiving(set[Any]):
    """The library removes a batch twice that fails while it is to be sent again, and the second time fails loudly."""

    remove = set.discard


def _fail(producer: Any) -> None:
    """Fail what is left. An idempotent producer of this library tries for ever, and offers no other way to make it stop."""
    accumulator = producer._message_accumulator  # noqa: SLF001 - no public way
    accumulator._pending_batches = _Forgiving(accumulator._pending_batches)  # noqa: SLF001 - no public way
    accumulator.fail_all(KafkaTimeoutError())
    accumulator.reenqueue = lambda _: None  # what is on its way now is not tried again
    batches = (batch for queue in accumulator._batches.values() for batch in queue)  # noqa: SLF001 - no public way
    for batch in (*batches, *accumulator._pending_batches):  # noqa: SLF001 - no public way
        for future in (batch._drain_waiter, *(future for future, _ in batch._msg_futures)):  # noqa: SLF001 - no public way
            if future.done() and not future.cancelled():
                future.exception()  # nobody else will ask

"""The way to AWS: clients made once, when they are first used, and made anew when their credentials have run out."""

from __future__ import annotations

import asyncio
import io
import time
from collections import defaultdict
from contextlib import AsyncExitStack
from typing import TYPE_CHECKING, Any, Final, Literal, TypeAlias, TypeVar

from aiobotocore.config import AioConfig
from aiobotocore.session import get_session

from agentq.brokers.sqs.errors import TROUBLE, Missing, outdated, translated

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from agentq.brokers.sqs.address import Address

T = TypeVar("T")

Kind: TypeAlias = Literal["verbs", "polls", "s3"]
"""Polls have connections of their own: a long poll holds one for seconds, and nothing else may wait behind it."""

_CONNECTIONS: Final = 64
_POLLS: Final = 1000
"""More than an inbox ever has: a poll must never wait for a connection."""
_CONNECT_S: Final = 3
_READ_S: Final = 10
"""An answer of SQS takes milliseconds; a server that is silent for so long is not there."""
_TRIES: Final = 3
_PIECE_BYTES: Final = 256 * 1024
_LEAST_AGE_S: Final = 5.0
"""A client that is younger is not made anew: its credentials are as new as they get."""


class _Generation:
    """The clients of one session. The session refreshes its credentials by itself; no copy of them is ever kept."""

    def __init__(self, address: Address) -> None:
        self.born = time.monotonic()
        self._address = address
        self._session: Any = get_session()
        self._stack = AsyncExitStack()
        self._clients: dict[Kind, Any] = {}
        self._making = asyncio.Lock()
        self._busy = 0
        self._idle = asyncio.Event()
        self._idle.set()

    async def run(self, kind: Kind, work: Callable[[Any], Awaitable[T]]) -> T:
        self._busy += 1
        self._idle.clear()
        try:
            return await work(self._clients.get(kind) or await self._client(kind))
        finally:
            self._busy -= 1
            if not self._busy:
                self._idle.set()

    async def close(self) -> None:
        """Close the clients once nobody uses them."""
        await self._idle.wait()
        await self._stack.aclose()

    async def _client(self, kind: Kind) -> Any:
        async with self._making:
            if kind not in self._clients:
                service = "s3" if kind == "s3" else "sqs"
                # Reading a service's description takes 20 to 80 ms: not in the event loop.
                await asyncio.to_thread(self._read_description, service)
                client = self._session.create_client(
                    service,
                    region_name=self._address.region,
                    endpoint_url=self._endpoint(kind),
                    config=self._settings(kind),
                    **self._stand_in(kind),
                )
                made = await self._stack.enter_async_context(client)
                made.meta.events.register("before-send", _as_stream)
                self._clients[kind] = made
            return self._clients[kind]

    def _read_description(self, service: str) -> None:
        loader = self._session.get_component("data_loader")
        for kind in ("service-2", "endpoint-rule-set-1"):
            loader.load_service_model(service, kind)
        for data in ("endpoints", "partitions", "sdk-default-configuration", "_retry"):
            loader.load_data(data)

    def _endpoint(self, kind: Kind) -> str | None:
        return self._address.payloads_endpoint if kind == "s3" else self._address.endpoint

    def _stand_in(self, kind: Kind) -> dict[str, Any]:
        # What is spoken to in plain text is a server for development: it gets no credentials of the user's, and asks for none.
        if kind == "s3" or not (self._address.endpoint or "").startswith("http:"):
            return {}
        return {"aws_access_key_id": "agentq", "aws_secret_access_key": "agentq"}

    def _settings(self, kind: Kind) -> AioConfig:
        polls = kind == "polls"
        settings: dict[str, Any] = {
            "connect_timeout": _CONNECT_S,
            "read_timeout": _READ_S + (self._address.wait_s if polls else 0),
            "max_pool_connections": _POLLS if polls else _CONNECTIONS,
            # A poll is repeated by the inbox, which knows whether it is still wanted.
            "retries": {"mode": "standard", "total_max_attempts": 1 if polls else _TRIES},
        }
        return AioConfig(**settings)


def _as_stream(request: Any, **_: Any) -> None:
    """Let aiohttp write a request piece by piece: of a large one in one piece it warns, because it holds up the loop."""
    if isinstance(request.body, bytes) and len(request.body) > _PIECE_BYTES:
        request.body = io.BytesIO(request.body)


class Clients:
    """SQS and S3 for one broker."""

    def __init__(self, address: Address) -> None:
        """Connect to nothing yet."""
        self._address = address
        self._current: _Generation | None = None
        self._closing: set[asyncio.Task[None]] = set()
        self._urls: dict[str, str] = {}
        self._asking: defaultdict[str, asyncio.Lock] = defaultdict(asyncio.Lock)
        self.requests = 0
        """How many were made, for measurements."""

    async def call(self, operation: str, what: str, *, kind: Kind = "verbs", **parameters: Any) -> dict[str, Any]:
        """Make a request about ``what``, which errors name.

        Raises:
            BrokerUnavailable: it cannot be reached, throttles or fails; it was tried again.
            BrokerError: it refused.

        """
        return await self.run(kind, lambda client: getattr(client, operation)(**parameters), operation, what)

    async def ask(self, operation: str, name: str, *, kind: Kind = "verbs", **parameters: Any) -> dict[str, Any]:
        """Make a request about the queue of that name; raises as `call` does."""
        url = await self.url(name)
        try:
            return await self.call(operation, name, kind=kind, QueueUrl=url, **parameters)
        except Missing:
            self._urls.pop(name, None)
            raise

    async def url(self, name: str) -> str:
        """The url of the queue of that name; raises as `call` does."""
        if (known := self._urls.get(name)) is not None:
            return known
        async with self._asking[name]:
            if name not in self._urls:
                answer = await self.call("get_queue_url", name, QueueName=name)
                self._urls[name] = answer["QueueUrl"]
            return self._urls[name]

    async def run(self, kind: Kind, work: Callable[[Any], Awaitable[T]], operation: str, what: str) -> T:
        """Do ``work`` with a client; where its credentials have run out, once more with a new one."""
        self.requests += 1
        generation = self._generation()
        try:
            return await generation.run(kind, work)
        except TROUBLE as error:
            if not (outdated(error) and self._renew(generation)):
                raise translated(error, operation, what) from error
        try:
            return await self._generation().run(kind, work)
        except TROUBLE as error:
            raise translated(error, operation, what) from error

    async def close(self) -> None:
        """Wait for requests under way, then close."""
        if self._current is not None:
            self._retire(self._current)
        if self._closing:
            await asyncio.wait(self._closing)

    def _generation(self) -> _Generation:
        if self._current is None:
            self._current = _Generation(self._address)
        return self._current

    def _renew(self, failed: _Generation) -> bool:
        """Whether there is a newer generation than the one that failed."""
        if self._current is failed:
            if time.monotonic() - failed.born < _LEAST_AGE_S:
                return False
            self._retire(failed)
        return True

    def _retire(self, generation: _Generation) -> None:
        self._current = None
        task = asyncio.create_task(generation.close())
        self._closing.add(task)
        task.add_done_callback(self._closing.discard)

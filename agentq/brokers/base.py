"""The contract of a broker: an inbox in front of the store, and nothing more.

A broker moves messages; what they mean is `agentq.wire`'s, and what becomes of them is intake's. It delivers at least once.
Every verb may be awaited from one event loop, that of the app. `BrokerUnavailable` is for what may work later, `BrokerError`
for what a person must change. Opening a broker makes no connection: one that is down at the start is found when it is used.
The clauses in `agentq.testing.conformance.brokers` test each sentence of this file.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol, Self, runtime_checkable

import msgspec

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping, Sequence
    from contextlib import AbstractAsyncContextManager
    from types import TracebackType

    from agentq.message import Position


class Capabilities(msgspec.Struct, frozen=True, kw_only=True):
    """What a broker can do for one queue; a producer asks before it sends."""

    ordering: bool
    """Whether messages of one group are delivered in the order in which they were sent."""
    max_delay_s: float
    """The longest delay of a message that the broker itself can keep; 0 is none."""
    max_bytes: int
    """Of one message's body and attributes. Larger arguments travel as a reference."""
    partitioned: bool = False
    """Whether what one consumer leaves unread blocks what lies behind it: then intake reads ahead into the store."""


class Outgoing(msgspec.Struct, frozen=True, kw_only=True):
    """One message to send."""

    id: str
    """The run id, by which a broker that can may drop repetitions."""
    queue: str
    body: bytes
    """JSON. It arrives as it is, except that a broker may write a character that it lacks as an escape of JSON's."""
    group: str | None = None
    """What belongs together: the ordering key if ``ordered``, else the tenant. FIFO and fair group, partition key."""
    ordered: bool = False
    delay_s: float = 0.0
    """At most `Capabilities.max_delay_s`."""
    attributes: dict[str, str] = {}
    """``traceparent``, ``tenant``: message attributes, headers."""


class Delivery(msgspec.Struct, frozen=True, kw_only=True):
    """One handing-over of a message."""

    queue: str
    body: bytes
    id: str
    """The message's identity within all of this broker's messages, the same in every delivery of it."""
    place: str = ""
    """Where it lay, as people look for it there; empty where ``id`` says that."""
    attributes: dict[str, str] = {}
    sent_at: float | None = None
    """When the broker got it."""
    receives: int = 1
    """How often it was delivered, as far as the broker counts."""
    position: Position | None = None
    """In a log: what has been read once this is admitted."""
    receipt: Any = None
    """The broker's own, for `acknowledge` and `release`."""


class Backlog(msgspec.Struct, frozen=True, kw_only=True):
    """What lies in the broker for one queue, none of it in the store yet."""

    queue: str
    ready: int
    """What `receive` would bring."""
    delayed: int = 0
    taken: int = 0
    """Delivered, and neither acknowledged nor released."""
    dead: int = 0
    """In the broker's own dead-letter place: what it gave up delivering."""
    oldest_age_s: float | None = None
    """Age of the oldest ready message; None where the broker cannot tell."""
    partitions: tuple[int, ...] = ()
    """``ready`` of each partition, where there are any."""
    approximate: bool = False
    error: str = ""
    """Why the figures could not be read; then they mean nothing."""


class Finding(msgspec.Struct, frozen=True, kw_only=True):
    """One line of `agentq doctor` about a broker."""

    what: str
    """Queue, topic or permission."""
    ok: bool
    text: str
    """What is, and where it is not well: what to do."""
    fixed: bool = False


class Inbox(Protocol):
    """The receiving end for some queues. Opened by `Broker.inbox`.

    Leaving its block finishes what is in flight, hands back what was received and not yet returned, and leaves consumer groups.
    """

    async def receive(self, room: int) -> Sequence[Delivery]:
        """Wait for messages of any of the queues, for some seconds at most, and return them in order.

        ``room`` is how many are wanted; a batch under way may bring a few more. With 0 nothing is taken, and memberships
        are kept: call it every few seconds, whatever else is going on.
        """
        ...

    async def acknowledge(self, deliveries: Sequence[Delivery]) -> None:
        """Let these never be delivered again. Where that fails for some, they are delivered again."""
        ...

    async def release(self, deliveries: Sequence[Delivery]) -> None:
        """Hand these back, so that they are delivered to whoever asks next, at once."""
        ...


class Parcels(Protocol):
    """Where arguments that are too large for a message are kept, if not in the store."""

    async def put(self, sha256: str, data: bytes) -> str:
        """Keep ``data``; answer its place, which `get` understands."""
        ...

    async def get(self, place: str) -> bytes:
        """What lies there. `NotFound` if it is gone, `BrokerError` if the place is not ours."""
        ...


@runtime_checkable
class Broker(Protocol):
    """A whole broker. Opened and closed as an async context manager."""

    @property
    def where(self) -> str:
        """Where the messages are, for people; free of secrets."""
        ...

    @property
    def parcels(self) -> Parcels | None:
        """Where large arguments go; None is the store."""
        ...

    def capabilities(self, queue: str) -> Capabilities:
        """What it can do for ``queue``; asks nobody."""
        ...

    async def send(self, messages: Sequence[Outgoing]) -> Sequence[BaseException | None]:
        """Send, and answer in order what became of each: None is on the broker's disk.

        Many callers at once share requests. What the broker refused for now was tried again before it is answered.
        """
        ...

    def inbox(
        self,
        queues: Sequence[str],
        positions: Callable[[str], Awaitable[Mapping[int, int]]],
        *,
        dead: bool = False,
        poll_s: float | None = None,
    ) -> AbstractAsyncContextManager[Inbox]:
        """Open the receiving end of ``queues``.

        ``positions`` is `IntakeStore.positions`: where a log is read on from. With ``dead`` it is that of what the broker
        itself gave up delivering; a broker that gives nothing up has none there. ``poll_s`` bounds how long leaving may have
        to wait for a poll that is under way.
        """
        ...

    async def backlog(self, queues: Sequence[str]) -> Sequence[Backlog]:
        """What lies there, queue by queue in the order given. A queue that cannot be read says so, it is never 0."""
        ...

    async def inspect(self, queues: Sequence[str], *, fix: bool = False) -> Sequence[Finding]:
        """Check, and with ``fix`` create, what these queues need in the broker."""
        ...

    async def __aenter__(self) -> Self:
        """Prepare; no connection is made."""
        ...

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None, /
    ) -> None:
        """Finish what was handed in, then close."""
        ...

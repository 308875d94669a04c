"""What the clauses about paths are written with: an app in front of a broker and a store, and an intake between the two."""

# ruff: noqa: S101 - asserting is what it is for

from __future__ import annotations

import asyncio
import secrets
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from typing import Any

import msgspec

from agentq import producer
from agentq.app import AgentQ
from agentq.brokers.base import Broker, Outgoing
from agentq.clock import SystemClock
from agentq.context import Context
from agentq.intake import Intake
from agentq.message import Claim, ClaimRequest, DeadLetter, Envelope, LetterQuery, Run, RunQuery, Succeeded, Write
from agentq.stores.base import Store
from agentq.task import Bound, Task
from agentq.testing.conformance.brokers.bench import Setting
from agentq.testing.conformance.paths.troubled import Away, Deaf
from agentq.testing.wait import wait_until

ROOM = 100


@dataclass(frozen=True, kw_only=True)
class PathSetting:
    """A pair under test."""

    store: Callable[[], AbstractAsyncContextManager[Store]]
    """Opens the store, on the machine's clock."""
    broker: Callable[[], Setting] | None = None
    """The broker as its own clauses know it, on the machine's clock; None is the store alone. Made anew for each clause."""
    patience_s: float = 20.0
    """Real seconds in which what must happen does."""


@dataclass(frozen=True)
class PathClause:
    """One sentence about a path. Call it with a `PathSetting`; it raises `AssertionError` where the pair fails it."""

    body: Callable[[PathBench], Awaitable[None]]
    needs: tuple[Callable[[PathSetting], str], ...] = ()

    def __str__(self) -> str:
        """The sentence, as an identifier."""
        return self.body.__name__

    def does_not_apply(self, setting: PathSetting) -> str:
        """Why this clause says nothing about that pair; empty where it does."""
        return "; ".join(filter(None, (need(setting) for need in self.needs)))

    async def __call__(self, setting: PathSetting) -> None:
        """Run it in an app and a queue of its own."""
        async with AsyncExitStack() as stack:
            store = await stack.enter_async_context(setting.store())
            queue = f"q-{secrets.token_hex(6)}"
            about = broker = None
            if setting.broker is not None:
                about = setting.broker()
                broker = await stack.enter_async_context(about.open())
                await about.prepare(broker, queue)
            app = AgentQ(f"app-{secrets.token_hex(6)}", queue=queue)
            await stack.enter_async_context(app.using(store=store, broker=broker))
            await self.body(PathBench(setting, about, app, store, broker, queue))


def clause(*needs: Callable[[PathSetting], str]) -> Callable[[Callable[[PathBench], Awaitable[None]]], PathClause]:
    """Mark a function of a `PathBench` as a clause; its name is the sentence that it proves."""
    return lambda body: PathClause(body, needs)


def a_broker(setting: PathSetting) -> str:
    """A need: that there is one."""
    return "" if setting.broker is not None else "there is no broker"


def no_broker(setting: PathSetting) -> str:
    """A need: that the store is alone."""
    return "" if setting.broker is None else "there is a broker"


def ordering(setting: PathSetting) -> str:
    """A need: that the order is kept."""
    return "" if setting.broker is None or setting.broker().can().ordering else "the broker keeps no order"


class PathBench:
    """A pair under test, and an app before it with one task: ``greet(name: str) -> str``."""

    def __init__(
        self, setting: PathSetting, about: Setting | None, app: AgentQ, store: Store, broker: Broker | None, queue: str
    ) -> None:
        """Declare the task."""
        self.setting = setting
        self.about = about
        self.app = app
        self.store = store
        self.broker = broker
        self.queue = queue

        @app.task
        async def greet(_: Context, name: str) -> str:
            return f"Hello {name}"

        self.greet: Task[[str], str] = greet

    def envelope(self, bound: Bound[Any], **changes: Any) -> Envelope:
        """What a call submits, with fields changed."""
        now = SystemClock().wall()
        return msgspec.structs.replace(producer.envelope(bound, app=self.app.name, now=now), **changes)

    async def submit(self, *envelopes: Envelope) -> None:
        """Put them on their way as the app does."""
        await self.app.opened.submit(envelopes)

    async def send(self, body: bytes, **attributes: str) -> None:
        """Send what a foreign program would."""
        assert self.broker is not None
        message = Outgoing(id=secrets.token_hex(8), queue=self.queue, body=body, attributes=attributes)
        assert list(await self.broker.send([message])) == [None]

    @asynccontextmanager
    async def intake(self, broker: Broker | None = None, store: Store | None = None) -> AsyncIterator[None]:
        """Let what lies in the broker come into the store meanwhile."""
        broker = broker or self.broker
        if broker is None:
            yield
            return
        store, queues = store or self.store, (self.queue,)
        intake = Intake(broker, store, self.app.name, queues, room=lambda: ROOM, ahead=ROOM, clock=SystemClock())
        running = asyncio.create_task(intake.run())
        try:
            yield
        finally:
            intake.stop()
            await running

    async def bring(self, runs: int, *, letters: int = 0) -> list[Run]:
        """Let everything come into the store: so many rows, letters, and an empty broker. The rows, oldest first."""
        async with self.intake():
            await self.until(f"{runs} rows are there", lambda: self._there(runs, letters))
            await self.until("the broker is empty", self.empty)
        rows = await self.rows()
        assert len(rows) == runs, f"{len(rows)} rows came of {runs}"
        assert len(await self.letters()) == letters
        return rows

    def away(self) -> Away:
        """The store, as if it did not answer."""
        return Away(self.store)

    def deaf(self) -> Deaf:
        """The broker, as if every worker died before it acknowledged."""
        assert self.broker is not None
        return Deaf(self.broker)

    async def expire_soon(self) -> None:
        """Let the broker hide what was delivered for as short as it can."""
        if self.broker is not None and self.about is not None and self.about.hide_briefly is not None:
            await self.about.hide_briefly(self.broker, self.queue)

    async def rows(self) -> list[Run]:
        """The runs of the clause's queue, oldest first."""
        return (await self.store.runs(RunQuery(queue=self.queue, limit=1000)))[::-1]

    async def letters(self) -> list[DeadLetter]:
        """Its dead letters."""
        return await self.store.letters(LetterQuery(queue=self.queue))

    async def empty(self) -> bool:
        """Whether nothing lies in the broker."""
        if self.broker is None:
            return True
        [backlog] = await self.broker.backlog([self.queue])
        return not (backlog.error or backlog.ready or backlog.delayed or backlog.taken)

    async def claim(self, *tasks: str) -> list[Claim]:
        """What a worker that knows these tasks gets, or one that knows ``greet``."""
        request = ClaimRequest(
            worker=f"w-{self.queue}", app=self.app.name, queues=(self.queue,), tasks=tasks or ("greet",), limit=100, lease_s=60
        )
        return list((await self.store.claim(request)).claims)

    async def finish(self, claim: Claim) -> None:
        """Settle a claimed run."""
        await self.store.write(Write(ref=claim.ref, settle=Succeeded(result=b"1")))

    async def until(self, what: str, condition: Callable[[], Awaitable[object]]) -> None:
        """Wait for something that must happen."""
        await wait_until(what, condition, timeout_s=self.setting.patience_s, every_s=0.02)

    async def _there(self, runs: int, letters: int) -> bool:
        return len(await self.rows()) >= runs and len(await self.letters()) >= letters

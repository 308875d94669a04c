"""Timers and signals of a run: what it waits for without needing a worker."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal

import msgspec

from agentq.codec import digest
from agentq.context import UNSET
from agentq.errors import CodecError, WaitTimeout
from agentq.journal import Identity, OnInterrupt
from agentq.message import Arrival, Wait, WaitKind
from agentq.signal import Signal
from agentq.telemetry import emit
from agentq.worker.host import Host
from agentq.worker.waits import Fits, Waits

if TYPE_CHECKING:
    from agentq.scope import Scope

SLEEP = "ctx.sleep"
WAIT = "ctx.wait_for"
ASK = "ctx.ask"


class _Received(msgspec.Struct, frozen=True, omit_defaults=True):
    """Value of the ``waited`` entry of a signal: what came, or that nothing came in time."""

    signal: msgspec.Raw = msgspec.Raw(b"null")
    timeout: bool = False


class Mailbox:
    """The timers and signals of one execution."""

    def __init__(self, run: Host, waits: Waits) -> None:
        """Belong to ``run``."""
        self._run = run
        self._waits = waits

    async def sleep(self, scope: Scope, seconds: float | None, until: float | None, *, foreign: bool) -> None:
        """Wait for a moment."""
        if self._run.stopping is not None:
            await self._run.park(scope)
        place = scope.place(SLEEP, f"{seconds}{until}", foreign=foreign)
        if self._run.history.read(place) is None:
            due = until if seconds is None else self._run.clock.wall() + seconds
            await self._waits.wait(scope, _wait(place, WaitKind.TIMER, due_at=due), lambda _: b"null", foreign=foreign)

    async def wait_for(
        self,
        scope: Scope,
        signal: Signal[Any],
        ask: str | None,
        timeout_s: float | None,
        default: Any,
        *,
        foreign: bool,
    ) -> Any:
        """Wait for a signal."""
        if self._run.stopping is not None:
            await self._run.park(scope)
        place = scope.place(f"{WAIT}:{signal.name}", digest(signal.name.encode()), foreign=foreign)
        raw = await self._received(scope, place, signal, ask, timeout_s, foreign=foreign)
        if raw is not None:
            return signal.decode(raw)
        if default is UNSET:
            raise WaitTimeout(f"no signal {signal.name!r} came within {timeout_s:g} s" if timeout_s else "no signal came")
        return default

    async def _received(
        self,
        scope: Scope,
        place: Identity,
        signal: Signal[Any],
        ask: str | None,
        timeout_s: float | None,
        *,
        foreign: bool,
    ) -> bytes | None:
        entry = self._run.history.read(place)
        if entry is None:
            due = None if timeout_s is None else self._run.clock.wall() + timeout_s
            wait = _wait(place, WaitKind.SIGNAL, ref=signal.name, due_at=due, ask=ask)
            entry = await self._waits.wait(scope, wait, _signal_value, fits=_fits(signal), foreign=foreign)
            emit("signal.received", run_id=self._run.row.id, signal=signal.name)
        received = msgspec.json.decode(await self._run.fetch(entry), type=_Received)
        return None if received.timeout else bytes(received.signal)

    async def ask_about(self, scope: Scope, step: str, place: Identity, *, skippable: bool) -> OnInterrupt:
        """Let a person decide what to do about an interrupted step: the signal ``resolve:STEP`` with retry, skip or fail."""
        choices: Any = Literal["retry", "skip", "fail"] if skippable else Literal["retry", "fail"]
        decision: Signal[str] = Signal(f"resolve:{step}", choices)
        asked = (place[0], f"{ASK}:{step}", place[2])
        words = '"retry", "skip" (its result is then None) or "fail"' if skippable else '"retry" or "fail"'
        question = f"Step {step!r} was interrupted and may have happened. Answer {words}."
        raw = await self._received(scope, asked, decision, question, None, foreign=False)
        return OnInterrupt(decision.decode(raw or b'"fail"'))


def _wait(place: Identity, kind: WaitKind, *, ref: str = "", due_at: float | None = None, ask: str | None = None) -> Wait:
    return Wait(branch=place[0], step=place[1], occurrence=place[2], kind=kind, ref=ref, due_at=due_at, ask=ask)


def _fits(signal: Signal[Any]) -> Fits:
    def fits(arrival: Arrival) -> str | None:
        try:
            signal.decode(arrival.payload)
        except CodecError as error:
            return f"signal {signal.name!r} does not fit: {error}"
        return None

    return fits


def _signal_value(arrival: Arrival | None) -> bytes:
    return msgspec.json.encode(_Received(timeout=True) if arrival is None else _Received(signal=msgspec.Raw(arrival.payload)))

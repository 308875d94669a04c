"""The demo itself: enqueue, start workers, take some away, watch, and count at the end."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from agentq.cli.demo_agent.agent import approved, aq, research
from agentq.cli.demo_agent.effects import load
from agentq.cli.demo_agent.values import Report
from agentq.cli.demo_stage.crew import Crew, Fate, environment
from agentq.cli.demo_stage.director import Director, Target
from agentq.cli.demo_stage.story import Look, Story
from agentq.cli.demo_stage.tally import Tally, count
from agentq.message import RunQuery, RunState, WaitKind
from agentq.stores.base import Store

WORKERS, SLOTS = 3, 2
GOALS = (
    "Which modules of the standard library open sockets, and which of them are the largest?",
    "Where does asyncio handle task cancellation, and how is it documented?",
    "Compare how logging and its handlers rotate files",
    "Which modules start subprocesses?",
    "Where does http check certificates?",
    "Compare the modules that parse dates",
    "Which modules use threading locks, and which are the largest?",
    "How is email encoding documented?",
)
ASKING = 4
"""Which of the goals asks a person before its report is published."""
THINK_S = 1.0
"""What a hosted model takes for a short answer; the local planner waits as long."""
_FIRST_STRIKE_S = 4.0
_LIMIT_S = 55.0
_LOOK_EVERY_S = 0.1
_ANSWER_AFTER_S = 1.0
_ALL = 1000


@dataclass(slots=True)
class Stage:
    """One performance in one folder."""

    folder: Path
    show: Callable[[Look, Story], None]
    """Called after every look."""
    story: Story = field(init=False)
    look: Look | None = None
    strikes: dict[str, int] = field(default_factory=dict)
    _crew: Crew = field(init=False)
    _director: Director = field(init=False)
    _began: float = field(default_factory=time.monotonic)
    _killed: dict[int, float] = field(default_factory=dict)
    """Process id to when it was killed, in seconds since the Unix epoch."""
    _asked: dict[str, float] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Hire the crew."""
        self._crew = Crew(self.folder, SLOTS, environment(self.store_url, self.effects, THINK_S))
        self._director = Director(self._crew, _FIRST_STRIKE_S)
        self.story = Story(self._crew)

    @property
    def store_url(self) -> str:
        """The demo's own store."""
        return f"sqlite:///{self.folder / 'agentq.db'}"

    @property
    def effects(self) -> Path:
        """The file that every step's body writes to."""
        return self.folder / "effects.jsonl"

    async def play(self) -> tuple[Tally, Report | None]:
        """Perform; returns what was counted, and the first report. No process is left behind."""
        async with aq.using(store=self.store_url):
            calls = [research.bind(goal, approve=n == ASKING) for n, goal in enumerate(GOALS)]
            handles = await aq.enqueue_many(calls)
            self.story.goals.update({handle.id: goal for handle, goal in zip(handles, GOALS, strict=True)})
            try:
                for _ in range(WORKERS):
                    self._crew.start()
                self.story.tell(self._now(), f"{len(GOALS)} runs enqueued, {WORKERS} workers of {SLOTS} slots started")
                await self._until_done(aq.store)
            finally:
                await asyncio.to_thread(self._crew.stop)
            tally = await self._count(aq.store, [handle.id for handle in handles])
            first = await handles[0].status()
            return tally, await handles[0].result() if first.state is RunState.SUCCEEDED else None

    def _now(self) -> float:
        return time.monotonic() - self._began

    async def _until_done(self, store: Store) -> None:
        while self._now() < _LIMIT_S:
            look = await self._see(store)
            if len(look.runs) >= len(GOALS) and all(run.state.final for run in look.runs):
                self.story.tell(self._now(), f"all {len(look.runs)} runs are done", "good")
                self.show(look, self.story)
                return
            await self._answer(look)
            self._direct(look)
            self.show(look, self.story)
            await asyncio.sleep(_LOOK_EVERY_S)
        self.story.tell(self._now(), f"not done after {_LIMIT_S:.0f} s: giving up", "bad")

    async def _see(self, store: Store) -> Look:
        runs = await store.runs(RunQuery(limit=_ALL))
        runs.sort(
            key=lambda run: (run.submitted_at, list(self.story.goals).index(run.id) if run.id in self.story.goals else _ALL)
        )
        waiting = [run for run in runs if run.state is RunState.WAITING]
        waits = {run.id: await store.waits(run.id) for run in waiting}
        asks = {run_id: wait for run_id, opened in waits.items() for wait in opened if wait.kind is WaitKind.SIGNAL}
        census = await store.census()
        look = self.look = Look(at_s=self._now(), runs=runs, workers=census.workers, asks=asks)
        for run in self.story.gone_on(look):
            owner = next((worker for worker in look.workers if worker.id == run.owner), None)
            self.story.resumed(look.at_s, run, await store.journal(run.id), owner)
        self.story.see(look)
        return look

    def _direct(self, look: Look) -> None:
        effects = load(self.effects)
        if target := self._director.to_kill(look, effects):
            self._crew.kill(target.member)
            self._killed[target.member.pid] = time.time()
            self._strike(
                look, target, "kill", f"{target.member.name} killed (SIGKILL) in the middle of {self._inside(target, look)}"
            )
        elif target := self._director.to_drain(look, effects):
            self._crew.drain(target.member)
            handed = ", ".join(f"run {self.story.label(run)}" for run in target.runs)
            self._strike(look, target, "drain", f"{target.member.name} drained (SIGTERM): it hands back {handed}")
        for member in self._crew.look():
            if member.fate is Fate.DRAINED:
                self.story.tell(look.at_s, f"{member.name} has drained and ended with exit code 0")
            else:
                code = member.process.returncode
                self.story.tell(look.at_s, f"{member.name} ended with exit code {code}; see {member.log}", "bad")
        for member in self._director.replacements(look.at_s):
            self.story.tell(look.at_s, f"{member.name} started in its place")

    def _strike(self, look: Look, target: Target, cause: str, text: str) -> None:
        self.strikes[cause] = self.strikes.get(cause, 0) + 1
        self.story.strike(look.at_s, cause, target.runs, text)

    def _inside(self, target: Target, look: Look) -> str:
        labels = {run.id: self.story.label(run) for run in look.runs}
        bodies = Counter((labels[effect.run], effect.step) for effect in target.inside)
        return " and ".join(f"{step}{f' ({n})' if n > 1 else ''} of run {label}" for (label, step), n in sorted(bodies.items()))

    async def _answer(self, look: Look) -> None:
        """Be the person who is asked."""
        for run_id, wait in look.asks.items():
            label = self.story.labels[run_id]
            if run_id not in self._asked:
                self._asked[run_id] = look.at_s
                self.story.tell(look.at_s, f"run {label} asks: {wait.ask}", "warn")
            elif 0 <= self._asked[run_id] < look.at_s - _ANSWER_AFTER_S:
                self._asked[run_id] = -1.0
                await research.handle(run_id).signal(approved, value=True)
                self.story.tell(look.at_s, f"run {label} got its answer: yes (from this demo)")

    async def _count(self, store: Store, enqueued: list[str]) -> Tally:
        runs = await store.runs(RunQuery(limit=_ALL))
        journals = {run.id: await store.journal(run.id) for run in runs}
        return count(enqueued, runs, journals, load(self.effects), self.story.resumptions, self._killed)

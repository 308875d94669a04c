"""What the research agent's model decides, what its tools answer, and what it reports."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, TypeAlias

import msgspec


class Call(msgspec.Struct, frozen=True):
    """One use of a tool that the model asks for."""

    tool: str
    args: dict[str, Any] = {}


class Source(msgspec.Struct, frozen=True):
    """A place in a document: a path below the standard library's folder, a line from 1, and what stands there."""

    file: str
    line: int
    text: str = ""


class Finding(msgspec.Struct, frozen=True):
    """One sentence, and where it can be checked."""

    claim: str
    sources: list[Source] = []


class Decision(msgspec.Struct, frozen=True):
    """What the model wants next: tools, summaries, or (with an answer) to stop."""

    why: str
    calls: list[Call] = []
    """Independent of each other; they run in parallel."""
    summarise: list[str] = []
    """Modules to hand to a child run each."""
    answer: str = ""
    findings: list[Finding] = []
    remaining: int = 1
    """How many further turns the model expects; only for the progress bar."""

    @property
    def final(self) -> bool:
        """Whether the goal is answered."""
        return bool(self.answer)


class Document(msgspec.Struct, frozen=True):
    """A module in a list."""

    module: str
    file: str
    lines: int
    about: str
    """First sentence of its docstring, or nothing."""


class Listing(msgspec.Struct, frozen=True, tag=True):
    """Modules called ``prefix`` or below it."""

    prefix: str
    total: int
    documents: list[Document]


class Hit(msgspec.Struct, frozen=True):
    """A line that matches."""

    module: str
    file: str
    line: int
    text: str
    kind: str
    """``code``, ``comment`` or ``docstring``."""


class Hits(msgspec.Struct, frozen=True, tag=True):
    """What a search found: all counts, and the first hits of each module."""

    pattern: str
    within: str
    total: int
    modules: dict[str, int]
    """Module to number of matching lines, most first, at most 60."""
    hits: list[Hit]
    module_count: int
    """How many modules have a matching line, those that ``modules`` leaves out included."""


class Excerpt(msgspec.Struct, frozen=True, tag=True):
    """Some lines of a document, and what they belong to."""

    module: str
    file: str
    line: int
    text: str
    symbol: str
    """Qualified name of the innermost definition around ``line``; empty at module level."""
    symbol_line: int
    doc: str
    """First paragraph of that definition's docstring (of the module's, at module level)."""
    kind: str
    calls: list[str]
    """Names that the definition calls, each once, in order."""


class Measure(msgspec.Struct, frozen=True):
    """A module in numbers."""

    module: str
    file: str
    lines: int
    functions: int
    classes: int
    public: int
    """Functions, methods and classes without a leading underscore."""
    documented: int
    """How many of the public ones have a docstring."""


class Counts(msgspec.Struct, frozen=True, tag=True):
    """What `count` counted."""

    measures: list[Measure]


class Ranked(msgspec.Struct, frozen=True):
    """A module's place in a ranking."""

    module: str
    file: str
    value: int


class Ranking(msgspec.Struct, frozen=True, tag=True):
    """Modules in order, largest first."""

    by: str
    total: int
    ranked: list[Ranked]


class Summary(msgspec.Struct, frozen=True, tag=True):
    """What a child run says of one module."""

    module: str
    text: str
    sources: list[Source] = []


class Trouble(msgspec.Struct, frozen=True, tag=True):
    """A tool that could not do what it was asked; the model reads it and tries something else."""

    tool: str
    message: str


Observation: TypeAlias = Listing | Hits | Excerpt | Counts | Ranking | Summary | Trouble


class Turn(msgspec.Struct, frozen=True):
    """One round of the agent: what the model decided and what came of it."""

    decision: Decision
    observations: list[Observation] = []


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """What a research run returns."""

    goal: str
    answer: str
    findings: list[Finding]
    model: str
    """Who decided: a model's name, or that it was the local planner."""
    turns: int
    tool_calls: int
    published: bool = True
    """False where a person was asked and said no."""

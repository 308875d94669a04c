"""Who decides: any OpenAI-compatible endpoint, or without one the local planner."""

from __future__ import annotations

import asyncio
import json
import os
import re
import urllib.error
import urllib.request
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import msgspec

from agentq.cli.demo_agent.planner import NAME, plan
from agentq.cli.demo_agent.values import Decision, Excerpt, Source, Summary, Turn
from agentq.errors import PermanentError, TemporaryError

_OPENAI = "https://api.openai.com/v1"
_TIMEOUT_S = 120.0
_SHOWN = 12_000
"""Characters of one turn's observations that a model is shown."""
_BUSY = frozenset({408, 409, 425, 429})


class Thought(msgspec.Struct, frozen=True):
    """What a model answered and what it used."""

    decision: Decision
    tokens: int = 0


class Digest(msgspec.Struct, frozen=True):
    """A summary and what it used."""

    summary: Summary
    tokens: int = 0


class Model(Protocol):
    """Decides what the agent does next, and summarises."""

    @property
    def name(self) -> str:
        """Who it is, as reports show it."""
        ...

    async def decide(self, goal: str, turns: Sequence[Turn]) -> Thought:
        """Decide the next turn from the transcript.

        Raises:
            TemporaryError: busy, out of reach, or the reply was no decision.
            PermanentError: the request is refused.

        """
        ...

    async def summarise(self, module: str, question: str, about: str, pages: Sequence[Excerpt]) -> Digest:
        """Say what ``module`` has to do with ``question``. Raises as `decide`."""
        ...


def model_from(environ: Mapping[str, str] | None = None) -> Model:
    """Take the endpoint where ``AGENTQ_DEMO_MODEL`` names a model, else the local planner.

    The endpoint is ``OPENAI_BASE_URL`` (default OpenAI's own) with ``OPENAI_API_KEY``. ``AGENTQ_DEMO_THINK_S`` is how long
    the local planner takes per decision, in seconds (default 0.2, as a fast hosted model would).
    """
    given = os.environ if environ is None else environ
    if model := given.get("AGENTQ_DEMO_MODEL"):
        return Endpoint(model, given.get("OPENAI_BASE_URL") or _OPENAI, given.get("OPENAI_API_KEY", ""))
    return LocalPlanner(float(given.get("AGENTQ_DEMO_THINK_S") or 0.2))


@dataclass(frozen=True, slots=True)
class LocalPlanner:
    """Rules instead of a language model, and a pause in place of its thinking."""

    think_s: float

    @property
    def name(self) -> str:
        """Says that it is no model."""
        return NAME

    async def decide(self, goal: str, turns: Sequence[Turn]) -> Thought:
        """Plan; takes between 0.75 and 1.25 times ``think_s``, the same time for the same question."""
        await self._think(f"{goal}{len(turns)}")
        return Thought(plan(goal, turns))

    async def summarise(self, module: str, question: str, about: str, pages: Sequence[Excerpt]) -> Digest:
        """Quote: the module's first sentence, and the docstrings of what was read."""
        await self._think(f"{question}{module}")
        told = {page.symbol: page for page in pages if page.symbol and page.doc}
        parts = [about or "no docstring", *(f"{name}: {page.doc}" for name, page in list(told.items())[:3])]
        sources = [Source(page.file, page.symbol_line, name) for name, page in list(told.items())[:3]]
        return Digest(Summary(module, " — ".join(parts), sources))

    async def _think(self, about: str) -> None:
        await asyncio.sleep(self.think_s * (0.75 + zlib.crc32(about.encode()) % 100 / 200))


@dataclass(frozen=True, slots=True)
class Endpoint:
    """An OpenAI-compatible chat endpoint, over plain HTTP from a thread."""

    model: str
    base_url: str
    key: str

    @property
    def name(self) -> str:
        """The model's name."""
        return self.model

    async def decide(self, goal: str, turns: Sequence[Turn]) -> Thought:
        """Ask for one JSON object that is a `Decision`."""
        messages = [{"role": "system", "content": _AGENT}, {"role": "user", "content": f"Goal: {goal}"}]
        for turn in turns:
            seen = msgspec.json.encode(turn.observations).decode()
            messages.append({"role": "assistant", "content": msgspec.json.encode(turn.decision).decode()})
            messages.append({"role": "user", "content": f"Observations: {seen[:_SHOWN]}"})
        text, tokens = await self._chat(messages)
        return Thought(_decision(text), tokens)

    async def summarise(self, module: str, question: str, about: str, pages: Sequence[Excerpt]) -> Digest:
        """Ask for three sentences over what was read."""
        shown = "\n\n".join(f"{page.file}:{page.line} {page.symbol}\n{page.text}" for page in pages)[:_SHOWN]
        prompt = f"In at most three sentences: what does the module {module} ({about}) say about: {question}\n\n{shown}"
        text, tokens = await self._chat([{"role": "user", "content": prompt}])
        sources = [Source(page.file, page.line, page.symbol) for page in pages]
        return Digest(Summary(module, text.strip(), sources), tokens)

    async def _chat(self, messages: list[dict[str, str]]) -> tuple[str, int]:
        reply = await asyncio.to_thread(self._post, {"model": self.model, "messages": messages})
        try:
            text = reply["choices"][0]["message"]["content"]
            return text or "", int((reply.get("usage") or {}).get("total_tokens") or 0)
        except (KeyError, IndexError, TypeError):
            raise TemporaryError(f"{self.base_url} answered without a message: {str(reply)[:200]}") from None

    def _post(self, body: dict[str, Any]) -> Any:
        url = self.base_url.rstrip("/") + "/chat/completions"
        if not url.startswith(("http://", "https://")):
            raise PermanentError(f"OPENAI_BASE_URL={self.base_url!r} must begin with http:// or https://")
        headers = {"Content-Type": "application/json", "Authorization": f"Bearer {self.key}"}
        request = urllib.request.Request(url, json.dumps(body).encode(), headers)  # noqa: S310 - the scheme is checked above
        try:
            with urllib.request.urlopen(request, timeout=_TIMEOUT_S) as answer:  # noqa: S310 - the same
                return json.load(answer)
        except urllib.error.HTTPError as error:
            with error:
                said = error.read(500).decode(errors="replace")
            if error.code in _BUSY or error.code >= 500:  # noqa: PLR2004 - the server's own failures
                after = error.headers.get("Retry-After", "")
                wait_s = float(after) if after.isdecimal() else None
                raise TemporaryError(f"{url}: HTTP {error.code}: {said}", retry_after=wait_s) from None
            raise PermanentError(f"{url}: HTTP {error.code}: {said}") from None
        except (OSError, ValueError) as error:
            raise TemporaryError(f"{url}: {error}") from None


def _decision(text: str) -> Decision:
    found = re.search(r"\{.*\}", text, re.DOTALL)
    try:
        decision = msgspec.json.decode(found.group() if found else "", type=Decision)
    except msgspec.DecodeError as error:
        raise TemporaryError(f"the model's reply is no decision ({error}): {text[:200]}") from None
    if not (decision.calls or decision.summarise or decision.answer):
        raise TemporaryError(f"the model decided nothing: {text[:200]}")
    return decision


_AGENT = """\
You research Python's standard library with tools until you can answer the goal. Reply with one JSON object and nothing else:
{"why": "one short sentence", "calls": [{"tool": "...", "args": {...}}], "summarise": ["module"],
 "answer": "", "findings": [], "remaining": 3}
Give several independent calls at once. "summarise" hands a module to a helper. When you know enough, give "answer" (a few
sentences) and "findings": [{"claim": "...", "sources": [{"file": "...", "line": 1, "text": "..."}]}], only from what you read.
Tools: list {"prefix": "asyncio", "limit": 40};
search {"pattern": "regular expression", "within": "module or empty", "limit": 40};
read {"module": "asyncio.tasks", "line": 200, "around": 10}; count {"names": ["at most 12 modules"]};
rank {"names": ["modules"], "by": "lines|functions|classes|documented", "limit": 10}."""

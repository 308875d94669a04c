"""The agent's tools: list, search, read, count and rank the documents; every answer is bounded."""

from __future__ import annotations

import ast
import re
from typing import TYPE_CHECKING

from agentq.cli.demo_agent.corpus import Definition, Text, below, corpus, first_paragraph, kind_of, outline
from agentq.cli.demo_agent.values import Counts, Document, Excerpt, Hit, Hits, Listing, Measure, Ranked, Ranking

if TYPE_CHECKING:
    from collections.abc import Sequence

LIMIT = 40
"""Most items in an answer; a model reads them all."""
_MODULES = 60
_PER_MODULE = 3
_WIDTH = 160
_AROUND = 4
_MAX_AROUND = 30
_COUNTED = 12


class ToolError(ValueError):
    """The tool cannot do what it was asked; the message is for the model."""


def list_modules(prefix: str = "", limit: int = LIMIT) -> Listing:
    """List the modules called ``prefix`` or below it."""
    texts = below(prefix)
    shown = [Document(t.module, t.file, t.lines, _about(t.module)) for t in texts[: _bounded(limit)]]
    return Listing(prefix, len(texts), shown)


def search(pattern: str, within: str = "", limit: int = LIMIT) -> Hits:
    """Search a regular expression (case is ignored, ``^`` matches at lines) in the module ``within`` and below."""
    texts = _texts(within)
    try:
        compiled = re.compile(pattern, re.IGNORECASE | re.MULTILINE)
    except re.error as error:
        message = f"pattern {pattern!r} is not a regular expression: {error}"
        raise ToolError(message) from None
    lines: dict[str, list[int]] = {}
    for text in texts:
        if found := _matching_lines(compiled, text.body):
            lines[text.module] = found
    order = sorted(lines, key=lambda name: (-len(lines[name]), name))
    places = [(name, line) for name in order for line in lines[name][:_PER_MODULE]]
    kept = [_hit(name, line) for name, line in places[: _bounded(limit)]]
    total = sum(map(len, lines.values()))
    return Hits(pattern, within, total, {name: len(lines[name]) for name in order[:_MODULES]}, kept, len(order))


def read(module: str, line: int = 1, around: int = _AROUND) -> Excerpt:
    """Read the lines around ``line``, with the definition they belong to and its docstring."""
    text = _texts(module)[0]
    rows = text.body.splitlines() or [""]
    if not 0 < line <= len(rows):
        message = f"{module} has {len(rows)} lines; there is no line {line}"
        raise ToolError(message)
    around = min(max(around, 0), _MAX_AROUND)
    start = max(line - around, 1)
    shown = "\n".join(f"{n:5} {row[:_WIDTH]}" for n, row in enumerate(rows[start - 1 : line + around], start))
    symbol, node = _around(module, line)
    doc = (ast.get_docstring(node) or "") if node else outline(module).doc
    return Excerpt(
        module=text.module,
        file=text.file,
        line=line,
        text=shown,
        symbol=symbol,
        symbol_line=node.lineno if node else 1,
        doc=first_paragraph(doc),
        kind=kind_of(module, line),
        calls=_calls(node) if node else [],
    )


def count(names: Sequence[str]) -> Counts:
    """Count lines, functions, classes and docstrings of up to 12 modules."""
    if len(names) > _COUNTED:
        message = f"at most {_COUNTED} modules at once, not {len(names)}; rank them first"
        raise ToolError(message)
    return Counts([_measure(_texts(name)[0]) for name in names])


def rank(names: Sequence[str], by: str = "lines", limit: int = 10) -> Ranking:
    """Order modules by ``lines``, or (slower) by ``functions``, ``classes`` or ``documented``."""
    if by not in {"lines", "functions", "classes", "documented"}:
        message = f"by={by!r}: rank knows lines, functions, classes and documented"
        raise ToolError(message)
    texts = [_texts(name)[0] for name in names]
    ranked = [Ranked(t.module, t.file, t.lines if by == "lines" else getattr(_measure(t), by)) for t in texts]
    ranked.sort(key=lambda r: (-r.value, r.module))
    return Ranking(by, len(ranked), ranked[: _bounded(limit)])


def _bounded(limit: int) -> int:
    return min(max(limit, 1), LIMIT)


def _texts(prefix: str) -> list[Text]:
    if texts := below(prefix):
        return texts
    message = f"there is no module {prefix!r}"
    raise ToolError(message)


def _about(module: str) -> str:
    return first_paragraph(outline(module).doc, 100)


def _matching_lines(compiled: re.Pattern[str], body: str) -> list[int]:
    found: list[int] = []
    line, counted, at = 1, 0, 0
    while match := compiled.search(body, at):
        visible = match.group().lstrip()
        start = match.end() - len(visible)
        if visible:
            line += body.count("\n", counted, start)
            counted = start
            if not found or found[-1] != line:
                found.append(line)
        at = body.find("\n", max(start, match.start() + 1))
        if at < 0:
            break
    return found


def _hit(module: str, line: int) -> Hit:
    text = corpus()[module]
    row = text.body.split("\n")[line - 1].strip()[:_WIDTH]
    return Hit(module, text.file, line, row, kind_of(module, line))


def _around(module: str, line: int) -> tuple[str, Definition | None]:
    best: tuple[str, Definition | None] = ("", None)
    for name, node in outline(module).definitions:
        if node.lineno <= line <= (node.end_lineno or node.lineno):
            best = (name, node)
    return best


def _calls(node: Definition) -> list[str]:
    names: dict[str, None] = {}
    for inner in ast.walk(node):
        if isinstance(inner, ast.Call):
            match inner.func:
                case ast.Name(id=name) | ast.Attribute(attr=name):
                    names[name] = None
    return list(names)[:LIMIT]


def _measure(text: Text) -> Measure:
    nodes = outline(text.module).definitions
    public = [node for name, node in nodes if not any(part.startswith("_") for part in name.split("."))]
    return Measure(
        text.module,
        text.file,
        text.lines,
        functions=sum(not isinstance(node, ast.ClassDef) for _, node in nodes),
        classes=sum(isinstance(node, ast.ClassDef) for _, node in nodes),
        public=len(public),
        documented=sum(ast.get_docstring(node) is not None for node in public),
    )

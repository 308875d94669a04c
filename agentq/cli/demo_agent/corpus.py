"""The documents: every module of the standard library of the Python that runs, as source text."""

from __future__ import annotations

import ast
import sysconfig
import threading
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

_SKIPPED = frozenset(
    {
        "site-packages",
        "dist-packages",
        "__pycache__",
        "test",
        "tests",
        "idle_test",
        "idlelib",
        "lib2to3",
        "turtledemo",
        "ensurepip",
        "pydoc_data",
    }
)


@dataclass(frozen=True, slots=True)
class Text:
    """One module's source."""

    module: str
    """Dotted name; a package's ``__init__`` carries the package's name."""
    file: str
    """Path below the standard library's folder, with forward slashes."""
    body: str
    lines: int


_parsing = threading.Lock()
"""CPython before 3.12 raises SystemError where two threads build syntax trees at once (python/cpython#106905)."""


@lru_cache(maxsize=1)
def root() -> Path:
    """The standard library's folder."""
    return Path(sysconfig.get_path("stdlib"))


@lru_cache(maxsize=1)
def corpus() -> dict[str, Text]:
    """Module name to text, sorted by name; read once per process (11 MB in Python 3.11).

    Tests, demos and installed packages are left out. Raises FileNotFoundError where Python came without its sources.
    """
    texts = {}
    for path in sorted(root().rglob("*.py")):
        parts = path.relative_to(root()).parts
        if _SKIPPED.intersection(parts) or parts[0].startswith("config-"):
            continue
        names = [*parts[:-1], path.stem] if path.stem != "__init__" else list(parts[:-1])
        body = path.read_text(encoding="utf-8", errors="replace")
        texts[".".join(names)] = Text(".".join(names), "/".join(parts), body, body.count("\n") + 1)
    if not texts:
        message = f"no Python sources below {root()}; this Python was installed without them"
        raise FileNotFoundError(message)
    return dict(sorted(texts.items()))


def below(prefix: str) -> list[Text]:
    """The module ``prefix`` and everything below it; all where it is empty."""
    if not prefix:
        return list(corpus().values())
    return [text for name, text in corpus().items() if name == prefix or name.startswith(prefix + ".")]


Definition = ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef


@dataclass(frozen=True, slots=True)
class Outline:
    """The definitions of a module and the lines that are strings rather than code."""

    doc: str
    definitions: tuple[tuple[str, Definition], ...]
    """(qualified name, node) in order of appearance."""
    prose: tuple[tuple[int, int], ...]
    """Spans of lines that docstrings and other bare strings cover, both ends included."""


@lru_cache(maxsize=256)
def outline(module: str) -> Outline:
    """Parse ``module``; one that does not parse (a template) has an empty outline."""
    try:
        with _parsing:
            tree = ast.parse(corpus()[module].body)
    except (SyntaxError, ValueError):
        return Outline("", (), ())
    found: list[tuple[str, Definition]] = []
    prose: list[tuple[int, int]] = []

    def walk(node: ast.AST, names: tuple[str, ...]) -> None:
        for child in ast.iter_child_nodes(node):
            if isinstance(child, Definition):
                found.append((".".join((*names, child.name)), child))
                walk(child, (*names, child.name))
                continue
            if isinstance(child, ast.Expr) and isinstance(child.value, ast.Constant) and isinstance(child.value.value, str):
                prose.append((child.lineno, child.end_lineno or child.lineno))
            walk(child, names)

    walk(tree, ())
    return Outline(ast.get_docstring(tree) or "", tuple(found), tuple(prose))


def kind_of(module: str, line: int) -> str:
    """Whether a line is ``code``, a ``comment`` or part of a ``docstring``."""
    lines = corpus()[module].body.splitlines()
    if 0 < line <= len(lines) and lines[line - 1].lstrip().startswith("#"):
        return "comment"
    return "docstring" if any(first <= line <= last for first, last in outline(module).prose) else "code"


def first_paragraph(doc: str, limit: int = 400) -> str:
    """A docstring's first paragraph on one line, cut at ``limit`` characters."""
    text = " ".join(doc.strip().split("\n\n")[0].split())
    return text if len(text) <= limit else text[: limit - 1] + "…"

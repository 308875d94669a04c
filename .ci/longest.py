"""Prints the ten longest modules and functions of the packages named, so that growth is seen before it hurts."""

import ast
import sys
from pathlib import Path

SHOWN = 10


def main(roots: list[str]) -> None:
    """Measure every ``*.py`` below ``roots`` in lines, docstrings and blank lines included."""
    modules: list[tuple[int, str]] = []
    functions: list[tuple[int, str]] = []
    for path in sorted(file for root in roots for file in Path(root).rglob("*.py")):
        source = path.read_text()
        modules.append((len(source.splitlines()), str(path)))
        functions += [
            (node.end_lineno - node.lineno + 1, f"{path}:{node.lineno} {node.name}")
            for node in ast.walk(ast.parse(source))
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and node.end_lineno is not None
        ]
    for title, found in (("modules", modules), ("functions", functions)):
        print(f"the {SHOWN} longest {title}, in lines:")
        for lines, name in sorted(found, reverse=True)[:SHOWN]:
            print(f"  {lines:5} {name}")


if __name__ == "__main__":
    main(sys.argv[1:])

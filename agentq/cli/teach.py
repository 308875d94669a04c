"""Help that keeps its layout: docstrings are raw, and click wants its mark for such paragraphs as a control character."""

from __future__ import annotations

from typing import Any

import click


def _marked(text: str | None) -> str | None:
    return text.replace("\\b\n", "\b\n") if text else text


class Teaching(click.Command):
    """A command whose raw docstring may hold click's mark."""

    def __init__(self, name: str | None = None, *, help: str | None = None, **options: Any) -> None:  # noqa: A002 - click gives the name
        """As click's own."""
        super().__init__(name, help=_marked(help), **options)


class TeachingGroup(click.Group):
    """A group of such commands."""

    command_class = Teaching

    def __init__(self, name: str | None = None, *, help: str | None = None, **options: Any) -> None:  # noqa: A002 - click gives the name
        """As click's own."""
        super().__init__(name, help=_marked(help), **options)

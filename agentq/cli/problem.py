"""What the command line says when something is wrong: one line on stderr, a remedy, an exit code."""

from __future__ import annotations

from typing import IO, Any

import click

EX_FAILED = 1
EX_NO_INPUT = 66
"""sysexits' EX_NOINPUT: there was nothing to do."""
EX_SOFTWARE = 70
"""sysexits' EX_SOFTWARE: a defect of ours."""
EX_TEMPFAIL = 75
"""sysexits' EX_TEMPFAIL: the run was handed back; start again."""
EX_SIGINT = 130
EX_SIGTERM = 143


class Problem(click.ClickException):
    """Something that a person can put right. Shown without a traceback."""

    def __init__(self, message: str, *, hint: str = "", code: int = EX_FAILED) -> None:
        """``hint`` says what to do; ``code`` is the exit code."""
        super().__init__(message)
        self.hint = hint
        self.exit_code = code  # type: ignore[misc]  # click declares it for the class and reads it from the instance

    def show(self, file: IO[Any] | None = None) -> None:
        """Print it on stderr."""
        click.echo(click.style("error: ", fg="red", bold=True) + self.message, file=file, err=file is None)
        for line in self.hint.splitlines():
            click.echo(click.style(f"  {line}", dim=True), file=file, err=file is None)


def warn(message: str) -> None:
    """Print a warning on stderr."""
    click.echo(click.style("warning: ", fg="yellow") + message, err=True)


def note(message: str) -> None:
    """Print something good to know on stderr, so that stdout stays the result."""
    click.echo(click.style(message, dim=True), err=True)

"""The command ``agentq``: finds the command that is asked for, and turns errors into one clear line."""

from __future__ import annotations

import importlib
import logging
import os
import sys
from collections.abc import Sequence
from typing import Any, Final

import click

from agentq.cli.problem import EX_SIGINT, EX_SOFTWARE, Problem
from agentq.errors import AgentQError, BrokerError, NotFound, StoreUnavailable

_SECTIONS: Final = {
    "Work": {
        "run": "agentq.cli.run:run",
        "worker": "agentq.cli.worker:worker",
        "dev": "agentq.cli.dev:dev",
        "job": "agentq.cli.job:job",
    },
    "Submit": {
        "enqueue": "agentq.cli.enqueue:enqueue",
        "schema": "agentq.cli.schema:schema",
    },
    "See and steer": {
        "runs": "agentq.cli.runs:runs",
        "top": "agentq.cli.top:top",
        "queues": "agentq.cli.queues:queues",
        "workers": "agentq.cli.workers:workers",
        "dead": "agentq.cli.dead:dead",
    },
    "Help yourself": {
        "demo": "agentq.cli.demo:demo",
        "doctor": "agentq.cli.doctor:doctor",
        "completion": "agentq.cli.completion:completion",
    },
}
_COMMANDS: Final = {name: place for section in _SECTIONS.values() for name, place in section.items()}
"""Command to where it is. A module is imported when its command is used, so that a worker does not pay for tables."""


class Commands(click.Group):
    """A group that imports its commands when they are used."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Every command, in the order of the help."""
        del ctx
        return list(_COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Import the command."""
        place = _COMMANDS.get(cmd_name)
        if place is None:
            return super().get_command(ctx, cmd_name)
        module, _, name = place.partition(":")
        found: click.Command = getattr(importlib.import_module(module), name)
        return found

    def resolve_command(self, ctx: click.Context, args: list[str]) -> tuple[str | None, click.Command | None, list[str]]:
        """Say what was probably meant when there is no such command."""
        if args and args[0] not in _COMMANDS and not args[0].startswith("-"):
            from agentq.cli.target import did_you_mean  # noqa: PLC0415 - only for a typing error

            raise Problem(
                f"no such command: {args[0]}", hint=did_you_mean(args[0], _COMMANDS) or "agentq --help lists them", code=2
            )
        return super().resolve_command(ctx, args)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Group the commands by what they are for."""
        for title, names in _SECTIONS.items():
            rows = [(name, command.get_short_help_str(90)) for name in names if (command := self._known(ctx, name))]
            if rows:
                with formatter.section(title):
                    formatter.write_dl(rows)

    def _known(self, ctx: click.Context, name: str) -> click.Command | None:
        try:
            return self.get_command(ctx, name)
        except ImportError:
            return None

    def invoke(self, ctx: click.Context) -> Any:
        """Run the command; what agentq raises is shown as a line unless ``--debug`` asks for the traceback."""
        try:
            return super().invoke(ctx)
        except AgentQError as error:
            if ctx.params.get("debug"):
                raise
            raise explained(error) from error
        except KeyboardInterrupt:
            raise click.exceptions.Exit(EX_SIGINT) from None


def explained(error: AgentQError) -> Problem:
    """Say an error as a person wants to read it."""
    if isinstance(error, BrokerError):
        from agentq.cli.brokers import FIX, with_module  # noqa: PLC0415 - a command without a broker does not pay for it

        said = str(error)
        return Problem(with_module(said), hint="" if FIX in said else "`agentq doctor` looks for the cause")
    if isinstance(error, StoreUnavailable):
        return Problem(str(error), hint="`agentq doctor` looks for the cause")
    if isinstance(error, NotFound):
        return Problem(str(error), hint="`agentq runs list` and `agentq workers list` show what there is")
    return Problem(str(error) or type(error).__name__)


@click.group(
    cls=Commands,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
    epilog="Every command has --help with examples. The store is --store, else AGENTQ_STORE, else ./agentq.db; "
    "the broker is --broker, else AGENTQ_BROKER, else none.",
)
@click.version_option(package_name="agentq", prog_name="agentq", message="%(prog)s %(version)s")
@click.option("--debug", is_flag=True, help="Show tracebacks of errors.")
def cli(debug: bool) -> None:  # noqa: FBT001 - click passes options so
    """Run long agent tasks that resume at their last step.

    \b
    A first run, in one command; kill it anywhere and start it again:
      agentq run hello:agent goal="read the docs" --key g1
    \b
    The same on a queue, with a worker beside it:
      agentq worker hello:aq &
      agentq enqueue hello:agent goal="read the docs"
      agentq top
    """  # noqa: D301 - \b is click's mark for a paragraph that is not re-wrapped
    del debug


def main(args: Sequence[str] | None = None) -> None:
    """Run the command line and exit."""
    words = list(sys.argv[1:] if args is None else args)
    for client in ("aiokafka", "aiobotocore", "botocore"):  # unless logging is set up: our errors say it all
        logging.getLogger(client).addHandler(logging.NullHandler())
    try:
        cli.main(words, prog_name="agentq")
    except BrokenPipeError:  # the reader of our output (`| head`) has gone; that is no error
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(0)
    except Exception as error:
        if "--debug" in words:
            raise
        Problem(
            f"{type(error).__name__}: {error}", hint="this is not expected: `agentq --debug …` shows where it comes from"
        ).show()
        sys.exit(EX_SOFTWARE)

"""``agentq completion``: the script that lets a shell complete commands, options and run ids."""

from __future__ import annotations

import click
from click.shell_completion import get_completion_class

from agentq.cli.problem import Problem

_WHERE = {
    "bash": "agentq completion bash > ~/.local/share/bash-completion/completions/agentq",
    "zsh": 'agentq completion zsh > "${fpath[1]}/_agentq"',
    "fish": "agentq completion fish > ~/.config/fish/completions/agentq.fish",
}


@click.command(epilog="\b\nExamples:\n" + "\n".join(f"  {line}" for line in _WHERE.values()))
@click.argument("shell", type=click.Choice(list(_WHERE)))
@click.pass_context
def completion(ctx: click.Context, shell: str) -> None:
    """Print the completion script for SHELL."""
    kind = get_completion_class(shell)
    if kind is None:
        raise Problem(f"no completion for {shell}", hint=f"there is one for {', '.join(_WHERE)}")
    click.echo(kind(ctx.find_root().command, {}, "agentq", "_AGENTQ_COMPLETE").source())

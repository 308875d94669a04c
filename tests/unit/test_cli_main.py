import subprocess
import sys

import click
import pytest
from click.testing import CliRunner

from agentq.cli import main as entry
from agentq.cli.main import _COMMANDS, cli
from agentq.errors import NotFound, StoreUnavailable


def commands(group, path=()):
    ctx = click.Context(group)
    for name in group.list_commands(ctx):
        command = group.get_command(ctx, name)
        yield (*path, name), command
        if isinstance(command, click.Group):
            yield from commands(command, (*path, name))


ALL = dict(commands(cli))


@pytest.mark.parametrize("path", ALL, ids=" ".join)
def test_every_command_explains_itself(path):
    result = CliRunner().invoke(cli, [*path, "--help"])
    assert result.exit_code == 0
    assert "\\b" not in result.output
    assert ALL[path].help
    assert ALL[path].get_short_help_str(200)


@pytest.mark.parametrize("path", [path for path, one in ALL.items() if not isinstance(one, click.Group)], ids=" ".join)
def test_every_command_shows_an_example(path):
    assert f"agentq {' '.join(path)}" in CliRunner().invoke(cli, [*path, "--help"]).output.partition("Example")[2]


def test_the_help_lists_every_command():
    out = CliRunner().invoke(cli, ["--help"]).output
    assert all(name in out for name in _COMMANDS)


def test_version():
    assert CliRunner().invoke(cli, ["--version"]).output.startswith("agentq ")


def test_a_mistyped_command_is_guessed():
    result = CliRunner().invoke(cli, ["quues"])
    assert result.exit_code == 2
    assert "did you mean queues?" in result.output


def raising(error):
    @click.command()
    def command():
        raise error

    return command


@pytest.fixture
def with_command(monkeypatch):
    def add(error):
        monkeypatch.setitem(cli.commands, "boom", raising(error))
        monkeypatch.setitem(entry._COMMANDS, "boom", "tests.unit.boom:boom")
        monkeypatch.setattr(type(cli), "get_command", lambda self, _ctx, name: self.commands.get(name))

    return add


def test_an_error_of_agentq_is_one_line_with_its_remedy(with_command):
    with_command(StoreUnavailable("the store is locked"))
    result = CliRunner().invoke(cli, ["boom"])
    assert result.exit_code == 1
    assert result.output == "error: the store is locked\n  `agentq doctor` looks for the cause\n"


def test_debug_shows_the_traceback(with_command):
    with_command(NotFound("no run"))
    result = CliRunner().invoke(cli, ["--debug", "boom"])
    assert isinstance(result.exception, NotFound)


def test_a_defect_is_a_line_too_and_says_how_to_see_more(with_command, capsys):
    with_command(ZeroDivisionError("oops"))
    with pytest.raises(SystemExit) as ended:
        entry.main(["boom"])
    assert ended.value.code == 70
    err = capsys.readouterr().err
    assert "ZeroDivisionError: oops" in err
    assert "--debug" in err
    assert "Traceback" not in err


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completion_prints_a_script(shell):
    out = CliRunner().invoke(cli, ["completion", shell]).output
    assert "_AGENTQ_COMPLETE" in out


def test_a_worker_loads_neither_tables_nor_metrics_nor_the_http_server():
    program = (
        "import sys, agentq.cli.main, agentq.cli.worker;"
        "print([n for n in ('rich', 'structlog', 'prometheus_client', 'http.server', 'pydantic') if n in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_an_interrupt_is_an_exit_code_and_no_word(with_command):
    with_command(KeyboardInterrupt())
    result = CliRunner().invoke(cli, ["boom"])
    assert (result.exit_code, result.output.strip()) == (130, "")

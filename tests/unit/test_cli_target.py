import sys
import textwrap

import pytest

from agentq.cli.problem import Problem
from agentq.cli.target import app_of, load_app, load_task

HELLO = """
    from agentq import AgentQ, Context

    aq = AgentQ("hello")

    @aq.task
    async def agent(ctx: Context, goal: str) -> str:
        return goal

    number = 3
"""


@pytest.fixture
def module(tmp_path, monkeypatch):
    """Write a module into the working directory; it is forgotten afterwards."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    before = set(sys.modules)

    def write(text, name="mod_under_test"):
        (tmp_path / f"{name}.py").write_text(textwrap.dedent(text))
        return name

    yield write
    for name in set(sys.modules) - before:
        if name.startswith("mod_"):
            del sys.modules[name]


def refusal(call, target):
    with pytest.raises(Problem) as refused:
        call(target)
    return f"{refused.value.message}\n{refused.value.hint}"


def test_a_module_of_the_working_directory_is_found(module):
    name = module(HELLO)
    assert load_app(f"{name}:aq").name == "hello"
    assert load_task(f"{name}:agent").name == "agent"
    assert app_of(load_task(f"{name}:agent")) is load_app(f"{name}:aq")


def test_an_app_is_found_through_its_task_and_a_task_through_its_app(module):
    name = module(HELLO)
    assert load_app(f"{name}:agent").name == "hello"
    assert load_task(f"{name}:aq").name == "agent"


def test_a_path_and_a_module_with_a_single_app_need_no_more(module, tmp_path):
    name = module(HELLO)
    assert load_app(str(tmp_path / f"{name}.py")).name == "hello"
    assert load_app(f"{name}.py:aq").name == "hello"
    assert load_app(name).name == "hello"


def test_a_module_that_is_not_there_names_those_that_are(module):
    module(HELLO, "mod_hello")
    said = refusal(load_app, "mod_helo:aq")
    assert "no module named 'mod_helo'" in said
    assert "did you mean mod_hello?" in said


def test_a_name_that_is_not_there_is_guessed_and_the_others_are_listed(module):
    name = module(HELLO)
    said = refusal(load_task, f"{name}:agnet")
    assert "did you mean agent?" in said
    assert f"AgentQ: {name}:aq" in said
    assert f"tasks: {name}:agent" in said


def test_something_that_is_neither(module):
    assert "is an int, neither an AgentQ nor a task" in refusal(load_app, f"{module(HELLO)}:number")


def test_a_missing_dependency_of_the_module_is_told_apart_from_a_missing_module(module):
    said = refusal(load_app, f"{module('import mod_not_installed')}:aq")
    assert "imports 'mod_not_installed', which is not installed" in said
    assert "pip install" in said


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("x = 1 / 0", "ZeroDivisionError: division by zero"),
        ("def (", "syntax error"),
        ("from agentq import AgentQ\naq = AgentQ('not a name!')", "use up to 63 letters"),
    ],
)
def test_a_module_that_cannot_be_imported_says_why_and_where(module, text, said):
    problem = refusal(load_app, f"{module(text)}:aq")
    assert said in problem
    assert "line" in problem


def test_an_app_with_several_tasks_does_not_say_which(module):
    name = module(HELLO + "\n    @aq.task\n    async def other(ctx: Context) -> None: ...\n")
    said = refusal(load_task, f"{name}:aq")
    assert f"{name}:agent {name}:other" in said


def test_nothing_before_the_colon():
    assert "names no module" in refusal(load_app, ":aq")

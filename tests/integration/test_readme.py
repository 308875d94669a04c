"""What the README shows is true: its commands are the ones that are checked, its program runs and survives a kill."""

import ast
import importlib
import os
import re
import shutil
import signal
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import pytest

from agentq import testing
from agentq.testing.wait import wait_until_sync
from tests.helpers.llm import endpoint

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text()
PATIENCE_S = 60.0


def blocks(language: str) -> list[str]:
    """The README's code blocks of one language."""
    return re.findall(rf"^```{language}\n(.*?)^```$", README, re.MULTILINE | re.DOTALL)


def program() -> str:
    """The first program."""
    return next(block for block in blocks("python") if "AgentQ(" in block)


@pytest.fixture
def hello(tmp_path: Path) -> Path:
    """A copy of the folder that the README's commands are given in."""
    return Path(shutil.copytree(ROOT / "examples" / "hello", tmp_path / "hello", ignore=shutil.ignore_patterns("*.db*", "__*")))


def run(folder: Path, environment: dict[str, str]) -> "subprocess.Popen[str]":
    """The README's command that starts the program."""
    clean = {name: value for name, value in os.environ.items() if not name.startswith(("AGENTQ_", "OPENAI_"))}
    command = [sys.executable, "-m", "agentq", "run", "hello:agent", "goal=How long is a lease?", "--key", "g1"]
    return subprocess.Popen(
        command,
        cwd=folder,
        env={**clean, **environment, "PYTHONPATH": str(ROOT)},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def answers(prompt: str) -> str:
    """Wants two files, then knows."""
    return "A lease lasts 30 s and is renewed every 5 s." if "recorded once" in prompt else "READ leases.md steps.md"


def test_the_two_commands_are_where_ci_looks_for_them():
    commands = [line for line in README.splitlines() if line.startswith("python3 -m venv ")]
    assert len(commands) == 2
    assert commands[0].endswith("agentq demo")
    assert commands[1].endswith("pytest -q")
    assert commands == [line for block in blocks("sh") for line in block.splitlines() if line.startswith("python3 -m venv ")]


@pytest.mark.parametrize("block", blocks("python"), ids=lambda block: block.strip().splitlines()[0][:40])
def test_python_blocks_compile(block: str):
    compile(block, "README.md", "exec", flags=ast.PyCF_ALLOW_TOP_LEVEL_AWAIT)


def test_the_first_program_is_the_example_and_about_twenty_lines():
    source = (ROOT / "examples" / "hello" / "hello.py").read_text()
    docstring = ast.parse(source).body[0]
    assert program().strip() == "\n".join(source.splitlines()[docstring.end_lineno :]).strip()
    assert len([line for line in program().splitlines() if line.strip()]) <= 25


@pytest.mark.parametrize("name", ["test_it_reads_before_it_answers", "test_it_survives_everything"])
async def test_the_tests_pass_that_the_readme_shows(name: str, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.syspath_prepend(ROOT / "examples" / "hello")
    monkeypatch.delitem(sys.modules, "hello", raising=False)
    shown: dict[str, Any] = {}
    exec(next(block for block in blocks("python") if name in block), shown)  # noqa: S102 - it is our README
    try:
        await shown[name]()
    finally:
        del sys.modules["hello"]


def the_letter(namespace: dict[str, Any]) -> dict[str, Any]:
    """Run the README's second program on top of its first."""
    block = next(block for block in blocks("python") if "Signal(" in block)
    exec(block, namespace)  # noqa: S102 - it is our README
    return namespace


@pytest.mark.parametrize(("ok", "sent"), [(True, ["Dear bees"]), (False, [])])
async def test_the_letter_is_sent_when_a_person_says_so(monkeypatch: pytest.MonkeyPatch, ok: bool, sent: list[str]):  # noqa: FBT001
    monkeypatch.syspath_prepend(ROOT / "examples" / "hello")
    monkeypatch.delitem(sys.modules, "hello", raising=False)
    hello = importlib.import_module("hello")
    try:
        shown = the_letter(vars(hello))
        done: list[str] = []
        by = await testing.run(
            shown["letter"].bind("bees"),
            steps={shown["ask"]: lambda prompt: "Dear bees", shown["send"]: done.append},
            signals={shown["approved"]: shown["Verdict"](ok=ok, by="ann")},
        )
        assert (by, done) == ("ann", sent)
        answer = re.search(r"`agentq runs signal RUN approved '(.*?)'`", README)
        assert answer is not None
        assert shown["approved"].decode(answer[1].encode()) == shown["Verdict"](ok=True, by="ann")
    finally:
        del sys.modules["hello"]


def test_the_first_program_runs(hello: Path):
    with endpoint(answers) as llm, run(hello, llm.environment) as process:
        output, _ = process.communicate(timeout=PATIENCE_S)
        assert process.returncode == 0, output
        assert "A lease lasts 30 s and is renewed every 5 s." in output
        assert len(llm.answered) == 2


def test_the_first_program_pays_for_no_answer_twice(hello: Path):
    slow, asked = threading.Event(), threading.Event()

    def script(prompt: str) -> str:
        if "recorded once" in prompt and not slow.is_set():
            asked.set()
            slow.wait(PATIENCE_S)
        return answers(prompt)

    with endpoint(script) as llm:
        with run(hello, llm.environment) as first:
            wait_until_sync("the second question is asked", asked.is_set, timeout_s=PATIENCE_S)
            first.send_signal(signal.SIGKILL)
            first.communicate()
        slow.set()
        paid = [prompt for prompt in llm.answered if "recorded once" not in prompt]
        with run(hello, llm.environment) as second:
            output, _ = second.communicate(timeout=PATIENCE_S)
        assert second.returncode == 0, output
        assert "A lease lasts 30 s and is renewed every 5 s." in output
        assert [prompt for prompt in llm.answered if "recorded once" not in prompt] == paid
        assert len(paid) == 1


def test_the_same_key_gives_the_same_result_without_a_question(hello: Path):
    with endpoint(answers) as llm:
        for _ in range(2):
            with run(hello, llm.environment) as process:
                output, _ = process.communicate(timeout=PATIENCE_S)
            assert process.returncode == 0, output
            assert "A lease lasts 30 s and is renewed every 5 s." in output
        assert len(llm.answered) == 2

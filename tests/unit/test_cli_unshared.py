"""Transactional steps on a store that shares no transactions: said at the start, not after the payment."""

import json
import subprocess
import sys

import pytest
from click.testing import CliRunner

from agentq import AgentQ
from agentq.cli.main import cli
from agentq.cli.working import unshared

CODE = """
from agentq import AgentQ, Context

aq = AgentQ("billing")

@aq.step(effect="transactional")
async def book(n: int) -> int:
    return n

@aq.task
async def process(ctx: Context) -> int:
    return 1
"""


@pytest.fixture
def folder(tmp_path, monkeypatch):
    (tmp_path / "unshared.py").write_text(CODE)
    monkeypatch.chdir(tmp_path)
    monkeypatch.delitem(sys.modules, "unshared", raising=False)


@pytest.mark.usefixtures("folder")
def test_doctor_says_that_it_is_broken():
    done = CliRunner().invoke(cli, ["doctor", "unshared:aq", "--json", "--store", "./x.db"])
    assert done.exit_code == 1
    (finding,) = [one for one in json.loads(done.stdout) if one["what"] == "steps"]
    assert finding["said"].endswith("x.db shares no transactions: every run will fail there")
    assert finding["said"].startswith("step book is transactional, and ")
    assert "postgresql://" in finding["remedy"]


@pytest.mark.usefixtures("folder")
@pytest.mark.parametrize("words", [["run", "unshared:process"], ["job", "unshared:aq", "--wait", "0s"]])
def test_run_and_job_warn(words):
    done = subprocess.run(
        [sys.executable, "-m", "agentq", *words, "--store", "./x.db"], capture_output=True, text=True, check=False, timeout=60
    )
    assert done.stderr.count("step book is transactional") == 1
    assert "warning: " in done.stderr


def test_all_is_said_in_one_line_and_nothing_where_nothing_is_wrong():
    aq = AgentQ("a")

    @aq.step(effect="transactional", name="charge")
    async def one() -> None: ...

    @aq.step(effect="transactional")
    async def book() -> None: ...

    @aq.step
    async def plain() -> None: ...

    assert unshared(aq, "./x.db").startswith("steps book, charge are transactional, and ")
    assert unshared(AgentQ("b"), "./x.db") == ""
    pytest.importorskip("asyncpg")
    assert unshared(aq, "postgresql://h/db") == ""

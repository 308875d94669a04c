"""What an app says when it is opened with settings that cannot be meant."""

import pytest
from click.testing import CliRunner

from agentq import AgentQ
from agentq.cli.main import cli
from agentq.errors import InvalidArgument, StoreUnnamed


@pytest.fixture(autouse=True)
def _nothing_is_set(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("AGENTQ_STORE", "")
    monkeypatch.delenv("AGENTQ_BROKER", raising=False)


async def test_behind_a_broker_the_missing_store_is_named_as_what_is_missing():
    with pytest.raises(StoreUnnamed, match=r"^store: nothing is set; behind a broker .* set AGENTQ_STORE or store="):
        async with AgentQ("a", broker="kafka://127.0.0.1:9"):
            pass


async def test_a_broker_of_no_known_kind_is_told_before_the_store_that_is_missing():
    with pytest.raises(InvalidArgument, match=r"^broker: 'rabbitmq://x' .*use sqs://"):
        async with AgentQ("a", broker="rabbitmq://x"):
            pass


async def test_an_empty_store_is_not_the_default_one():
    with pytest.raises(InvalidArgument, match=r"^store: "):
        async with AgentQ("a", store=""):
            pass


@pytest.mark.parametrize("command", ["queues", "top", "doctor", "worker"])
@pytest.mark.parametrize("option", ["--store", "--broker"])
def test_an_empty_option_is_an_error(command, option):
    result = CliRunner().invoke(cli, [command, *(["x:y"] if command == "worker" else []), option, ""])
    assert result.exit_code == 2
    assert f"{option} is empty" in result.output


@pytest.mark.parametrize("words", [["queues"], ["top", "--once"]])
def test_behind_a_broker_no_file_that_nobody_named_is_read(words, monkeypatch):
    monkeypatch.setenv("AGENTQ_BROKER", "kafka://127.0.0.1:9")
    result = CliRunner().invoke(cli, words)
    assert result.exit_code == 1
    assert "store: nothing is set" in result.output


def test_doctor_says_one_thing_of_a_store_that_nobody_named(monkeypatch):
    monkeypatch.setenv("AGENTQ_BROKER", "kafka://127.0.0.1:9")
    result = CliRunner().invoke(cli, ["doctor"])
    assert result.exit_code == 1
    assert [line.split()[0] for line in result.output.splitlines() if " store " in line[:12]] == ["✗"]

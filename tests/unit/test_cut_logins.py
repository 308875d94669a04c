"""A password in a url that has a typing error, or was put there as it is: told how to write it, and never shown."""

import pytest
from click.testing import CliRunner

from agentq.brokers import open_broker
from agentq.cli.main import cli
from agentq.errors import InvalidArgument
from agentq.redact import is_maimed, login_is_cut
from agentq.settings import redacted
from agentq.stores import open_store

PASSWORDS = ["hunter2/x", "x/hunter2", "hunter2?x", "hunter2#x", "hun@ter2/hunter2"]


@pytest.mark.parametrize("password", PASSWORDS)
@pytest.mark.parametrize(
    "form",
    [
        "kafka://me:{}@h:9092",
        "kafka://me:{}@h:9092/x-{{queue}}?security=SASL_SSL",
        "sqs://me:{}@us-east-1",
        "sqs://us-east-1?endpoint=http://me:{}@h:1",
        "sqs://us-east-1?payloads=s3://me:{}@bucket",
        "redis://me:{}@h",
    ],
)
def test_a_broker_refuses_it_without_showing_it(form: str, password: str) -> None:
    with pytest.raises(InvalidArgument) as refused:
        open_broker(form.format(password), app="a")
    assert "hunter2" not in str(refused.value)


@pytest.mark.parametrize("password", PASSWORDS)
def test_a_store_refuses_it_without_showing_it(password: str) -> None:
    with pytest.raises(InvalidArgument, match="%2F") as refused:
        open_store(f"postgresql://me:{password}@h:5432/db?schema=s")
    assert "hunter2" not in str(refused.value)


@pytest.mark.parametrize(
    "url",
    [
        "postgresql://me:hun%2Fter@h/db?options=-c%20a@b",
        "postgresql://h:5432/db?user=me@cloud",
        "postgresql://[::1]/db?user=me@cloud",
        "postgresql://me@/db?host=/run/pg",
        "kafka://me:h@nter@h1:9092,h2/x",
        "sqlite:///a@b.db",
        "./a@b.db",
    ],
)
def test_what_is_well_is_left_alone(url: str) -> None:
    assert not login_is_cut(url)


MAIMED = [
    "postgresql:/me:hunter2@h:5432/db",
    "postgresql:me:hunter2@h:5432/db",
    "postgresql//me:hunter2@h:5432/db",
    "postgresql/me:hunter2@h:5432/db",
    "postgres:/me:hunter2@h/db",
    "POSTGRESQL:/me:hunter2@h/db",
    "'postgresql://me:hunter2@h/db'",
    "jdbc:postgresql://me:hunter2@h/db",
    "//me:hunter2@h:5432/db",
    "me:hunter2@h/db",
    "me:x/hunter2@h/db",
    "postgresql://me:hunter2@x@h:5432/db",
    "postgresql://me:hunter2[x@h:5432/db",
    "postgresql://me:hunter2",
    "postgresql://me:x@h:hunter2/db",
]


@pytest.mark.parametrize("url", MAIMED)
def test_a_store_with_a_typing_error_is_refused_without_showing_it(url: str) -> None:
    with pytest.raises(InvalidArgument, match="write ") as refused:
        open_store(url)
    assert "hunter2" not in str(refused.value)
    if is_maimed(url):
        assert redacted(url) == "***"


@pytest.mark.parametrize("url", MAIMED)
@pytest.mark.parametrize("command", ["queues", "doctor"])
def test_no_command_shows_it(command: str, url: str) -> None:
    result = CliRunner().invoke(cli, [command, "--store", url])
    assert result.exit_code == 1
    assert "hunter2" not in result.output
    assert "write " in result.output


@pytest.mark.parametrize(
    "url", ["./a:b@c.db", "/srv/a:b@c.db", "sqlite:a:b@c.db", "C:\\a:b@c.db", "a@b.db", "postgres.db", "postgres/agentq.db"]
)
def test_a_file_with_such_a_name_is_a_file(url: str) -> None:
    assert not is_maimed(url)

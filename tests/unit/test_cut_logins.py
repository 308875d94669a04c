"""A password that was put into a url as it is, with a / or # in it: told how to write it, and never shown."""

import pytest

from agentq.brokers import open_broker
from agentq.errors import InvalidArgument
from agentq.redact import login_is_cut
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

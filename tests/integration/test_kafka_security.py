"""Doors that ask who is there: SASL with passwords and tokens, and TLS."""

import base64
import json
import logging
import time
from collections.abc import Iterator
from urllib.parse import quote

import pytest

from agentq.errors import BrokerError, InvalidArgument
from tests.helpers import kafka
from tests.helpers.kafka import PASSWORD, USER, Doors
from tests.helpers.kafka_lab import Lab, messages, send, take


@pytest.fixture(scope="module")
def doors() -> Iterator[Doors]:
    if kafka.GIVEN:
        pytest.skip("a broker of the user's own has doors of its own")
    with kafka.guarded() as doors:
        yield doors


def token() -> str:
    """An unsecured one, as the tests' broker takes it."""
    now = int(time.time())
    parts = [{"alg": "none"}, {"sub": USER, "iat": now, "exp": now + 3600}]
    return ".".join(base64.urlsafe_b64encode(json.dumps(part).encode()).rstrip(b"=").decode() for part in parts) + "."


async def token_later() -> tuple[str, int]:
    return token(), 3600_000


def nonsense() -> str:
    return "nonsense"


def nothing() -> None:
    return None


LOGIN = f"{USER}:{quote(PASSWORD, safe='')}@"
HERE = __name__


async def works(doors: Doors, url: str) -> None:
    lab = Lab(doors.plain)
    await lab.create()
    lab.url = url
    async with lab.inbox() as (broker, inbox):
        assert all(finding.ok for finding in await broker.inspect(["q"]))
        await send(broker, *messages(0, 3))
        assert len(await take(inbox, 3)) == 3
        assert PASSWORD not in broker.where


@pytest.mark.parametrize("mechanism", ["PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512"])
async def test_passwords(doors: Doors, mechanism: str, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    await works(doors, f"kafka://{LOGIN}{doors.login}?security=SASL_PLAINTEXT&mechanism={mechanism}")
    assert PASSWORD not in caplog.text


@pytest.mark.parametrize("function", ["token", "token_later"])
async def test_tokens(doors: Doors, function: str, monkeypatch: pytest.MonkeyPatch) -> None:
    await works(doors, f"kafka://{doors.login}?security=SASL_PLAINTEXT&token={_hook(monkeypatch, function)}")


async def test_tls(doors: Doors) -> None:
    await works(doors, f"kafka://{doors.tls}?ca={doors.ca}")


@pytest.mark.parametrize("mechanism", ["PLAIN", "SCRAM-SHA-256"])
async def test_a_wrong_password_is_a_refusal(doors: Doors, mechanism: str) -> None:
    lab = Lab(doors.plain)
    lab.url = f"kafka://{USER}:wrong@{doors.login}?security=SASL_PLAINTEXT&mechanism={mechanism}"
    async with lab.inbox() as (broker, inbox):
        [answer] = await broker.send(messages(0, 1))
        assert type(answer) is BrokerError
        assert "check user, password or token" in str(answer)
        with pytest.raises(BrokerError, match="check user"):
            await inbox.receive(1)
        [finding] = await broker.inspect(["q"])
        assert "check user" in finding.text
        assert "wrong" not in finding.text


async def test_a_certificate_that_nobody_vouches_for_is_a_refusal(doors: Doors) -> None:
    lab = Lab(doors.plain)
    lab.url = f"kafka://{doors.tls}?security=SSL"
    async with lab.broker() as broker:
        [answer] = await broker.send(messages(0, 1))
    assert type(answer) is BrokerError
    assert "check ca=" in str(answer)


async def test_a_token_that_the_broker_does_not_take(doors: Doors, monkeypatch: pytest.MonkeyPatch) -> None:
    lab = Lab(doors.plain)
    lab.url = f"kafka://{doors.login}?security=SASL_PLAINTEXT&token={_hook(monkeypatch, 'nonsense')}"
    async with lab.broker() as broker:
        [answer] = await broker.send(messages(0, 1))
    assert type(answer) is BrokerError


@pytest.mark.parametrize(
    ("parameters", "named"),
    [
        ("ca=/nowhere.pem", "broker: ca"),
        ("ca={ca}&cert=/nowhere.pem", "broker: cert"),
        ("token=no.such:function", "broker: token"),
        ("token=json:no_such", "broker: token"),
    ],
)
async def test_files_and_functions_that_are_not_there(doors: Doors, parameters: str, named: str) -> None:
    lab = Lab(doors.plain)
    lab.url = f"kafka://{doors.tls}?{parameters.format(ca=doors.ca)}"
    with pytest.raises(InvalidArgument, match=named):
        async with lab.broker() as broker:
            await broker.send(messages(0, 1))


def _hook(monkeypatch: pytest.MonkeyPatch, function: str) -> str:
    import sys  # noqa: PLC0415
    import types  # noqa: PLC0415

    module = types.ModuleType("kafka_tokens")
    module.__dict__.update(token=token, token_later=token_later, nonsense=nonsense)
    monkeypatch.setitem(sys.modules, "kafka_tokens", module)
    return f"kafka_tokens:{function}"

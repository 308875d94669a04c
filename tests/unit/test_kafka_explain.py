"""What a person is told who cannot get into a Kafka cluster: a reason, and words that nobody took for a secret."""

import asyncio
from types import SimpleNamespace

import pytest

pytest.importorskip("aiokafka")

from agentq.brokers import open_broker
from agentq.brokers.kafka import KafkaBroker, inbox
from agentq.brokers.kafka.failures import failure
from agentq.brokers.kafka.reading import Reading
from agentq.errors import InvalidArgument
from agentq.intake.admitting import dead_letter
from agentq.redact import redact


async def told(form: str) -> str:
    """What doctor says of a server that hangs up after the first bytes, as a plain listener does to TLS."""

    async def hang_up(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(5)
        writer.close()

    server = await asyncio.start_server(hang_up, "127.0.0.1", 0)
    async with server:
        where = f"127.0.0.1:{server.sockets[0].getsockname()[1]}"
        async with open_broker(form.format(where), app="a") as broker:
            (finding,) = await broker.inspect(["q"], fix=False)
    return finding.text.replace(where, "SERVER")


@pytest.mark.parametrize(
    ("form", "said"),
    [
        (
            "kafka://u:p@{}",
            (
                "connect to SERVER: the TLS handshake failed (security=SASL_SSL, which a login implies); "
                "a listener without TLS needs security=SASL_PLAINTEXT"
            ),
        ),
        (
            "kafka://{}?security=SSL",
            "connect to SERVER: the TLS handshake failed (security=SSL); a listener without TLS needs security=PLAINTEXT",
        ),
        (
            "kafka://{}",
            (
                "connect to SERVER: KafkaConnectionError: Connection at SERVER closed; if it wants TLS or a login, say so: "
                "security=SSL, or kafka://user:password@host"
            ),
        ),
    ],
)
async def test_a_listener_of_another_kind_is_named_as_the_reason(form: str, said: str) -> None:
    text = await told(form)
    assert text == said
    assert redact(text) == said


def test_an_error_without_words_is_told_by_its_kind() -> None:
    assert str(failure(ConnectionResetError(), "receive")) == "receive: ConnectionResetError"


def test_a_topic_and_a_message_of_it_are_named_as_people_know_them() -> None:
    assert KafkaBroker("kafka://h1,h2:1/inv.{queue}", app="inv").place("mail") == "inv.mail (Kafka h1:9092,h2:1)"
    reading = Reading("inv.mail", 1, source="kafka:6a35df8a", queue="mail", offset=0)
    record = SimpleNamespace(value=b"?", headers=(), partition=1, offset=36, timestamp=0, timestamp_type=0)
    letter = dead_letter(inbox._delivery(reading, record), "no JSON", where="kafka://h1", now=1.0)
    assert letter.origin == "inv.mail/1/36 of kafka://h1"


@pytest.mark.parametrize(
    ("url", "said"),
    [
        ("kafka://h:1?security=SASL_PLAINTEXT&mechanism=SCRAM-SHA-512", "SCRAM-SHA-512 needs kafka://user:password@host"),
        ("kafka://h:1?security=SASL_SSL&token=json:no_such", "token (the name of a function): 'json:no_such' does not fit"),
    ],
)
async def test_a_remedy_and_a_functions_name_are_not_masked(url: str, said: str) -> None:
    async def use() -> None:
        async with open_broker(url, app="a") as broker:
            await broker.inspect(["q"], fix=False)

    with pytest.raises(InvalidArgument) as refused:
        await use()
    assert said in redact(str(refused.value))

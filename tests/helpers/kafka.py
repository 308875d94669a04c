"""Apache Kafka for the tests: one broker of their own, or the user's by AGENTQ_TEST_KAFKA=host:port."""

import contextlib
import os
import secrets
import shutil
import subprocess
import tempfile
from collections.abc import AsyncIterator, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from agentq.testing.wait import wait_until_sync
from tests.helpers import java
from tests.helpers.processes import STARTING_S, ServerProcess, free_port
from tests.helpers.servers import unreachable

GIVEN = os.environ.get("AGENTQ_TEST_KAFKA")  # read early: no test sees settings from outside
USER, PASSWORD = "alice", "wonder/land@1"
CLUSTER = "YWdlbnRxLXRlc3QtMDAwMQ"

_PROPERTIES = """
process.roles=broker,controller
node.id=1
controller.quorum.voters=1@127.0.0.1:{controller}
listeners=PLAIN://127.0.0.1:{port},CONTROLLER://127.0.0.1:{controller}{listeners}
advertised.listeners=PLAIN://127.0.0.1:{port}{listeners}
listener.security.protocol.map=PLAIN:PLAINTEXT,CONTROLLER:PLAINTEXT,WHO:SASL_PLAINTEXT,TLS:SSL
controller.listener.names=CONTROLLER
inter.broker.listener.name=PLAIN
log.dirs={folder}/data
auto.create.topics.enable=false
offsets.topic.num.partitions=4
offsets.topic.replication.factor=1
transaction.state.log.num.partitions=2
transaction.state.log.replication.factor=1
transaction.state.log.min.isr=1
share.coordinator.state.topic.replication.factor=1
share.coordinator.state.topic.num.partitions=1
group.initial.rebalance.delay.ms=0
broker.session.timeout.ms=2000
broker.heartbeat.interval.ms=200
group.min.session.timeout.ms=1000
log.initial.task.delay.ms=200
log.retention.check.interval.ms=60000
file.delete.delay.ms=1000
num.network.threads=2
num.io.threads=4
"""
_SECURITY = """
listener.name.who.sasl.enabled.mechanisms=PLAIN,SCRAM-SHA-256,SCRAM-SHA-512,OAUTHBEARER
listener.name.who.plain.sasl.jaas.config=org.apache.kafka.common.security.plain.PlainLoginModule required \
user_{user}="{password}";
listener.name.who.scram-sha-256.sasl.jaas.config=org.apache.kafka.common.security.scram.ScramLoginModule required;
listener.name.who.scram-sha-512.sasl.jaas.config=org.apache.kafka.common.security.scram.ScramLoginModule required;
listener.name.who.oauthbearer.sasl.jaas.config=org.apache.kafka.common.security.oauthbearer.OAuthBearerLoginModule required \
unsecuredLoginStringClaim_sub="broker";
listener.name.tls.ssl.keystore.type=PEM
listener.name.tls.ssl.keystore.location={folder}/server.pem
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Doors:
    """A broker and its ways in, each as host:port."""

    plain: str
    login: str
    """SASL_PLAINTEXT: PLAIN and SCRAM for `USER` and `PASSWORD`, OAUTHBEARER for any unsecured token."""
    tls: str
    ca: str


@contextlib.contextmanager
def server() -> Iterator[str]:
    """host:port of a running broker."""
    if GIVEN:
        yield GIVEN
        return
    with own() as process:
        yield f"127.0.0.1:{process.port}"


@contextlib.contextmanager
def own() -> Iterator[ServerProcess]:
    """A running broker that the caller may kill, freeze and start again; it keeps its topics then."""
    folder = Path(tempfile.mkdtemp(prefix="agentq-kafka-"))
    try:
        yield from _running(folder, free_port(), "", "", scram=False)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


@contextlib.contextmanager
def guarded() -> Iterator[Doors]:
    """A running broker with doors that ask who is there."""
    openssl = shutil.which("openssl")
    if openssl is None:
        unreachable("Kafka", "no openssl here to make a certificate with")
    folder = Path(tempfile.mkdtemp(prefix="agentq-kafka-"))
    try:
        command = [
            *(openssl, "req", "-x509", "-nodes", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-days", "2"),
            *("-subj", "/CN=127.0.0.1", "-addext", "subjectAltName=IP:127.0.0.1"),
            *("-keyout", f"{folder}/key.pem", "-out", f"{folder}/ca.pem"),
        ]
        subprocess.run(command, check=True, capture_output=True)
        (folder / "server.pem").write_text((folder / "key.pem").read_text() + (folder / "ca.pem").read_text())
        port, login, tls = free_port(), free_port(), free_port()
        listeners = f",WHO://127.0.0.1:{login},TLS://127.0.0.1:{tls}"
        extra = _SECURITY.format(user=USER, password=PASSWORD, folder=folder)
        for _ in _running(folder, port, listeners, extra, scram=True):
            yield Doors(plain=f"127.0.0.1:{port}", login=f"127.0.0.1:{login}", tls=f"127.0.0.1:{tls}", ca=f"{folder}/ca.pem")
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _running(folder: Path, port: int, listeners: str, extra: str, *, scram: bool) -> Iterator[ServerProcess]:
    properties = folder / "server.properties"
    text = _PROPERTIES.format(port=port, controller=free_port(), folder=folder, listeners=listeners)
    properties.write_text(text + extra)
    program = [
        java.program("Kafka"),
        "-Xmx384m",
        "-XX:+UseSerialGC",
        "-XX:TieredStopAtLevel=1",
        "-cp",
        java.class_path("kafka"),
    ]
    users = [f"--add-scram=SCRAM-SHA-{bits}=[name={USER},password={PASSWORD}]" for bits in (256, 512) if scram]
    form = [*program, "kafka.tools.StorageTool", "format", "-t", CLUSTER, "-c", str(properties), *users]
    done = subprocess.run(form, capture_output=True, text=True, check=False)
    if done.returncode:
        unreachable("Kafka", f"its folder could not be prepared: {(done.stdout + done.stderr)[-600:]}")
    log = folder / "log"
    process = _Kafka("Kafka", [*program, "kafka.Kafka", str(properties)], port=port, log=log)
    try:
        process.start()
        yield process
    finally:
        process.stop()


class _Kafka(ServerProcess):
    """Ready when it says so: it listens earlier than it answers."""

    def start(self) -> None:
        said = self._said()
        super().start()
        wait_until_sync("Kafka says that it started", lambda: self._said() > said, timeout_s=STARTING_S, every_s=0.05)

    def _said(self) -> int:
        return self._log.read_text(errors="replace").count("Kafka Server started") if self._log.exists() else 0


def fresh(name: str = "t") -> str:
    """An app's name of the test's own, by which its topics and its group are its own, too."""
    return f"{name}{secrets.token_hex(5)}"


@contextlib.asynccontextmanager
async def admin(address: str) -> AsyncIterator[Any]:
    """The library's client for administration."""
    from aiokafka.admin import AIOKafkaAdminClient  # noqa: PLC0415 - tests of other brokers need none

    client = AIOKafkaAdminClient(bootstrap_servers=address)
    await client.start()
    try:
        yield client
    finally:
        await client.close()


async def create(address: str, topic: str, partitions: int = 1, settings: Mapping[str, str] | None = None) -> None:
    """Make a topic."""
    from aiokafka.admin import NewTopic  # noqa: PLC0415 - as above

    async with admin(address) as client:
        answer = await client.create_topics([NewTopic(topic, partitions, 1, topic_configs=dict(settings or {}))])
        assert all(code == 0 for _, code, *_ in answer.topic_errors), answer


async def delete(address: str, topic: str) -> None:
    """Delete a topic."""
    async with admin(address) as client:
        answer = await client.delete_topics([topic])
        assert all(code == 0 for _, code, *_ in answer.topic_error_codes), answer


async def trim(address: str, topic: str, partition: int, before: int) -> None:
    """Delete what lies before an offset, as retention does."""
    from aiokafka import TopicPartition  # noqa: PLC0415 - as above
    from aiokafka.admin import RecordsToDelete  # noqa: PLC0415

    async with admin(address) as client:
        await client.delete_records({TopicPartition(topic, partition): RecordsToDelete(before)})

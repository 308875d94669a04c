"""Any program can submit: the examples in other languages, against real servers, and what their messages say to us."""

import asyncio
import http.server
import importlib.util
import json
import os
import secrets
import shutil
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from agentq import wire
from agentq.message import Envelope, keyed_run_id
from agentq.testing.wait import wait_until_sync
from tests.helpers import java
from tests.helpers.servers import unreachable

PRODUCERS = Path(__file__).parents[2] / "examples" / "producers"
PATIENCE_S = 60.0
KEYS = {"AWS_ACCESS_KEY_ID": "AKIDEXAMPLE", "AWS_SECRET_ACCESS_KEY": "wJalr/+K7", "AWS_REGION": "eu-central-1"}


def program(name: str) -> str:
    """Where it is; without it the test is left out."""
    found = shutil.which(name)
    if found is None:
        unreachable(name, "it is not installed here")
    return found


def run(*words: str, **environment: str) -> str:
    kept = {name: value for name, value in os.environ.items() if not name.startswith("AWS_")}
    done = subprocess.run(words, capture_output=True, text=True, timeout=PATIENCE_S, check=False, env={**kept, **environment})
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def arrived(body: bytes, attributes: Mapping[str, str]) -> tuple[Envelope, dict[str, Any]]:
    """What intake makes of a message, and the arguments that the task then gets."""
    spec = importlib.util.spec_from_file_location("producers_app", PRODUCERS / "app.py")
    app = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(app)
    found = wire.read(
        body=body, app=app.aq.name, queue="reports", delivery_id="m1", attributes=attributes, sent_at=None, now=time.time()
    )
    return found.envelope, app.aq.tasks[found.envelope.task].arguments.decode(found.envelope.args)


def sqs(url: str, action: str, **fields: Any) -> dict[str, Any]:
    headers = {"X-Amz-Target": f"AmazonSQS.{action}", "Content-Type": "application/x-amz-json-1.0"}
    request = urllib.request.Request(url, data=json.dumps(fields).encode(), headers=headers)  # noqa: S310 - loopback
    with urllib.request.urlopen(request, timeout=PATIENCE_S) as reply:  # noqa: S310 - loopback
        return json.loads(reply.read() or b"{}")


@pytest.fixture
def queue(elasticmq_url: str) -> Iterator[str]:
    url = sqs(elasticmq_url, "CreateQueue", QueueName=f"shop-reports-{secrets.token_hex(4)}")["QueueUrl"]
    yield url
    sqs(url, "DeleteQueue", QueueUrl=url)


def received(queue: str) -> tuple[bytes, dict[str, str]]:
    (message,) = sqs(queue, "ReceiveMessage", QueueUrl=queue, WaitTimeSeconds=5, MessageAttributeNames=["All"])["Messages"]
    attributes = {name: value["StringValue"] for name, value in message.get("MessageAttributes", {}).items()}
    return message["Body"].encode(), attributes


@pytest.mark.parametrize("keys", [{}, KEYS], ids=["unsigned", "signed"])
def test_a_shell_script_submits_through_sqs(queue, keys):
    program("curl")
    run(str(PRODUCERS / "sqs.sh"), queue, '{"topic": "k8s & \\"co\\"", "pages": 1}', 'order "7"\\', **keys)
    envelope, arguments = arrived(*received(queue))
    assert envelope.id == keyed_run_id("shop", None, "report", 'order "7"\\')
    assert arguments == {"topic": 'k8s & "co"', "pages": 1}
    assert (envelope.queue, envelope.args_hash) == ("reports", wire.args_hash(envelope.args))


def test_a_worker_runs_what_a_shell_script_submits(elasticmq_url, queue, tmp_path):
    program("curl")
    name = queue.rpartition("/")[2].replace("shop-reports", "{app}-{queue}")
    environment = {
        **{name: value for name, value in os.environ.items() if not name.startswith("AWS_")},
        "AWS_ACCESS_KEY_ID": "x",
        "AWS_SECRET_ACCESS_KEY": "x",
        "PYTHONPATH": str(PRODUCERS.parents[1]),
        "AGENTQ_STORE": f"sqlite:///{tmp_path / 'agentq.db'}",
        "AGENTQ_BROKER": f"sqs://eu-central-1/{name}?endpoint={elasticmq_url}&wait=1",
    }
    agentq = [sys.executable, "-m", "agentq"]
    run(str(PRODUCERS / "sqs.sh"), queue, '{"topic": "k8s"}', "order-1")
    run_id = keyed_run_id("shop", None, "report", "order-1")

    def result() -> Any:
        shown = subprocess.run(
            [*agentq, "runs", "show", run_id, "--json"], capture_output=True, timeout=PATIENCE_S, check=False, env=environment
        )
        return shown.returncode == 0 and json.loads(shown.stdout).get("result")

    with subprocess.Popen([*agentq, "worker", "app:aq"], cwd=PRODUCERS, env=environment) as worker:
        try:
            wait_until_sync("the report is written", result, timeout_s=PATIENCE_S)
            assert result() == "What k8s is\nWhat k8s costs"
        finally:
            worker.terminate()
    assert worker.returncode == 0


def test_without_a_key_each_message_is_a_run(queue):
    program("curl")
    run(str(PRODUCERS / "sqs.sh"), queue, '{"topic": "k8s"}')
    envelope, _ = arrived(*received(queue))
    assert (envelope.key, envelope.id) == (None, wire.broker_run_id("m1"))


def test_a_script_that_is_refused_says_so(elasticmq_url):
    program("curl")
    with pytest.raises(AssertionError, match="NonExistentQueue"):
        run(str(PRODUCERS / "sqs.sh"), f"{elasticmq_url}/000000000000/nothing-here", "{}")


def test_a_few_lines_of_javascript_submit_through_sqs(queue):
    run(program("node"), str(PRODUCERS / "sqs.mjs"), queue, "Käse & Brot", "acme")
    envelope, arguments = arrived(*received(queue))
    assert arguments == {"topic": "Käse & Brot"}
    assert (envelope.tenant, envelope.tags) == ("acme", {"from": "node"})
    assert 0 < envelope.due_at - envelope.submitted_at <= 5


@pytest.fixture
async def topic(kafka_address: str) -> AsyncIterator[str]:
    admin = pytest.importorskip("aiokafka.admin")
    name = f"shop.reports-{secrets.token_hex(4)}"
    client = admin.AIOKafkaAdminClient(bootstrap_servers=kafka_address)
    await client.start()
    try:
        await client.create_topics([admin.NewTopic(name, 1, 1)])
        yield name
        await client.delete_topics([name])
    finally:
        await client.close()


async def test_a_few_lines_of_java_submit_through_kafka(kafka_address, topic):
    aiokafka = pytest.importorskip("aiokafka")
    java_program = java.program("the Java producer")
    if "jdk.compiler" not in run(java_program, "--list-modules"):
        unreachable("the Java producer", "this Java cannot run source code; install a JDK")
    words = (kafka_address, topic, '{"topic": "Käse"}', "acme")
    said = await asyncio.to_thread(
        run, java_program, "-Dfile.encoding=UTF-8", "-cp", java.class_path("kafka"), str(PRODUCERS / "Submit.java"), *words
    )
    assert said.split() == [topic, "0", "0"]
    consumer = aiokafka.AIOKafkaConsumer(topic, bootstrap_servers=kafka_address, auto_offset_reset="earliest")
    await consumer.start()
    try:
        record = await asyncio.wait_for(consumer.getone(), PATIENCE_S)
    finally:
        await consumer.stop()
    envelope, arguments = arrived(record.value, {name: value.decode() for name, value in record.headers})
    assert arguments == {"topic": "Käse"}
    assert (envelope.tenant, envelope.priority, record.key) == ("acme", 5, b"acme")


@contextmanager
def listener() -> Iterator[tuple[str, list[Any]]]:
    """A server that keeps what it is sent."""
    kept: list[Any] = []

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            kept.append((self.path, dict(self.headers), body))
            self.send_response(200)
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, *_: object) -> None:
            """Keep quiet."""

    with http.server.HTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}", kept
        finally:
            server.shutdown()
            thread.join()


@pytest.mark.parametrize("session", ["", "a session/token=="], ids=["long-lived", "temporary"])
def test_the_script_signs_as_aws_wants_it(session):
    program("curl")
    auth = pytest.importorskip("botocore.auth")
    awsrequest = pytest.importorskip("botocore.awsrequest")
    credentials = pytest.importorskip("botocore.credentials")
    with listener() as (url, kept):
        run(str(PRODUCERS / "sqs.sh"), f"{url}/123456789012/q", '{"topic": "a+b"}', **KEYS, AWS_SESSION_TOKEN=session)
    ((path, headers, body),) = kept
    given = headers.pop("Authorization")
    signed = given.partition("SignedHeaders=")[2].partition(",")[0].split(";")
    request = awsrequest.AWSRequest(method="POST", url=f"{url}{path}", data=body)
    for name, value in headers.items():
        if name.lower() in signed:
            request.headers[name] = value
    request.context["timestamp"] = headers["X-Amz-Date"]
    keys = credentials.Credentials(KEYS["AWS_ACCESS_KEY_ID"], KEYS["AWS_SECRET_ACCESS_KEY"], session or None)
    signer = auth.SigV4Auth(keys, "sqs", KEYS["AWS_REGION"])
    expected = signer.signature(signer.string_to_sign(request, signer.canonical_request(request)), request)
    assert given.endswith(f"Signature={expected}")
    assert f"Credential=AKIDEXAMPLE/{headers['X-Amz-Date'][:8]}/eu-central-1/sqs/aws4_request" in given
    assert ("x-amz-security-token" in signed) is bool(session)

"""Any program can submit: the examples in other languages, against real servers, and what their messages say to us."""

import http.server
import importlib.util
import json
import os
import secrets
import shutil
import subprocess
import threading
import time
import urllib.request
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from agentq import wire
from agentq.message import Envelope, keyed_run_id
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
    assert 0 < envelope.due_at - time.time() <= 60


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

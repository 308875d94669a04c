"""ElasticMQ, an SQS-compatible server, for the tests: one of their own, or the user's by AGENTQ_TEST_SQS=http://host:port."""

import contextlib
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

from tests.helpers import java
from tests.helpers.processes import ServerProcess, free_port

GIVEN = os.environ.get("AGENTQ_TEST_SQS")  # read early: no test sees settings from outside

_CONFIGURATION = """
include classpath("application.conf")
node-address {{ protocol = http, host = "127.0.0.1", port = {port}, context-path = "" }}
rest-sqs {{ enabled = true, bind-port = {port}, bind-hostname = "127.0.0.1", sqs-limits = strict }}
rest-stats {{ enabled = false }}
queues-storage {{ enabled = {durable}, path = "{folder}/queues.conf" }}
messages-storage {{ enabled = {durable}, uri = "jdbc:h2:{folder}/messages;WRITE_DELAY=0" }}
"""


@contextlib.contextmanager
def server() -> Iterator[str]:
    """The endpoint of a running server."""
    if GIVEN:
        yield GIVEN
        return
    with own() as process:
        yield endpoint(process)


@contextlib.contextmanager
def own(*, durable: bool = False, options: tuple[str, ...] = ("-XX:TieredStopAtLevel=1",)) -> Iterator[ServerProcess]:
    """A running server that the caller may stop, freeze and start again; ``durable``, it keeps its messages then."""
    folder = Path(tempfile.mkdtemp(prefix="agentq-sqs-"))
    port = free_port()
    settings = folder / "elasticmq.conf"
    settings.write_text(_CONFIGURATION.format(port=port, durable=str(durable).lower(), folder=folder))
    command = [
        *(java.program("ElasticMQ"), "-Xmx256m", "-XX:+UseSerialGC", *options, f"-Dconfig.file={settings}"),
        *("-cp", java.class_path("elasticmq"), "org.elasticmq.server.Main"),
    ]
    process = ServerProcess("ElasticMQ", command, port=port, log=folder / "log")
    try:
        process.start()
        yield process
    finally:
        process.stop()
        shutil.rmtree(folder, ignore_errors=True)


def endpoint(process: ServerProcess) -> str:
    """Where that server is reached."""
    return f"http://127.0.0.1:{process.port}"

"""moto: the shapes, limits and errors of AWS (SQS, S3) for the tests. A queue in it costs O(depth): few messages only."""

import contextlib
import importlib.util
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

from tests.helpers.processes import ServerProcess, free_port
from tests.helpers.servers import unreachable


@contextlib.contextmanager
def server() -> Iterator[str]:
    """The endpoint of a running server."""
    with own() as process:
        yield f"http://127.0.0.1:{process.port}"


@contextlib.contextmanager
def own() -> Iterator[ServerProcess]:
    """A running server that the caller may stop, freeze and start again; what was in it is then gone."""
    if importlib.util.find_spec("moto") is None:
        unreachable("moto", "pip install 'moto[server]'")
    port = free_port()
    with tempfile.TemporaryDirectory(prefix="agentq-moto-") as folder:
        command = [sys.executable, "-W", "ignore", "-m", "moto.server", "-H", "127.0.0.1", "-p", str(port)]
        process = ServerProcess("moto", command, port=port, log=Path(folder) / "log")
        try:
            process.start()
            yield process
        finally:
            process.stop()

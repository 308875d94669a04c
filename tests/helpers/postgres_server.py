"""A PostgreSQL of the test's own that it may stop, freeze and start again."""

from __future__ import annotations

import contextlib
import os
import shutil
import tempfile
import warnings
from collections.abc import Iterator
from pathlib import Path

from tests.helpers.postgres import REMEDY
from tests.helpers.servers import unreachable


class Server:
    """A running server; ``url`` is its Unix socket's."""

    def __init__(self, folder: Path) -> None:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            try:
                import pgserver  # noqa: PLC0415 - tests of other stores need none
            except ImportError as error:
                unreachable("PostgreSQL", f"{error}; {REMEDY}")
        self.pgserver = pgserver
        self.data = folder / "data"
        self.url = f"postgresql://postgres@/postgres?host={self.data}"
        self.start()

    def start(self) -> None:
        """Return when it answers."""
        self.server = self.pgserver.get_server(self.data, cleanup_mode="stop")

    def stop(self) -> None:
        """Shut it down; connections are cut."""
        self.server.cleanup()

    def signal(self, number: int) -> None:
        """To the postmaster and every process of it."""
        pid = self.server.get_pid()
        for task in Path(f"/proc/{pid}/task").glob("*/children"):
            for child in task.read_text().split():
                with contextlib.suppress(ProcessLookupError):
                    os.kill(int(child), number)
        os.kill(pid, number)


@contextlib.contextmanager
def own() -> Iterator[Server]:
    """A server for the length of the block."""
    folder = Path(tempfile.mkdtemp(prefix="agentq-pg-"))
    folder.chmod(0o755)  # run by root, the server has a user of its own
    try:
        started = Server(folder)
        try:
            yield started
        finally:
            started.stop()
    finally:
        shutil.rmtree(folder, ignore_errors=True)

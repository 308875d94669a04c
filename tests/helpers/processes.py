"""A server of the tests' own: a child process that listens on a loopback port, and can be stopped, frozen and started again."""

import signal
import socket
import subprocess
from collections.abc import Sequence
from pathlib import Path

from agentq.testing.wait import wait_until_sync
from tests.helpers.servers import unreachable

STARTING_S = 90.0
"""A JVM on a busy machine takes its time."""
ENDING_S = 10.0


def free_port() -> int:
    """A loopback port that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def listens(port: int) -> bool:
    """Whether somebody accepts connections there."""
    with socket.socket() as probe:
        probe.settimeout(1)
        return probe.connect_ex(("127.0.0.1", port)) == 0


class ServerProcess:
    """``command`` as a process that is ready once it accepts connections on ``port``. Its output is kept in ``log``."""

    def __init__(self, name: str, command: Sequence[str], *, port: int, log: Path) -> None:
        self.name = name
        self.port = port
        self._command = list(command)
        self._log = log
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Return when it accepts connections; where it ends instead, the test is left out with its last words."""
        with self._log.open("ab") as log:
            self._process = process = subprocess.Popen(
                self._command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True
            )
        try:
            wait_until_sync(
                f"{self.name} listens on {self.port}",
                lambda: process.poll() is not None or listens(self.port),
                timeout_s=STARTING_S,
                every_s=0.05,
            )
        except TimeoutError as error:
            self.kill()
            unreachable(self.name, f"{error}; {self._last_words()}")
        if process.poll() is not None:
            self._process = None
            unreachable(self.name, f"it ended with {process.returncode}: {self._last_words()}")

    def stop(self) -> None:
        """Let it end in order, frozen or not, or kill it where it does not."""
        if self._process is None:
            return
        self._process.terminate()
        self._process.send_signal(signal.SIGCONT)
        try:
            self._process.wait(ENDING_S)
        except subprocess.TimeoutExpired:
            self.kill()
        self._process = None

    def kill(self) -> None:
        """End it at once, as a lost machine does."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None

    def pause(self) -> None:
        """Freeze it: connections stay, answers do not come."""
        self._signal(signal.SIGSTOP)

    def resume(self) -> None:
        """Let it go on."""
        self._signal(signal.SIGCONT)

    def _signal(self, number: signal.Signals) -> None:
        assert self._process is not None, f"{self.name} does not run"
        self._process.send_signal(number)

    def _last_words(self) -> str:
        return self._log.read_text(errors="replace")[-600:]

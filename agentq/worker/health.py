"""A small HTTP server in its own thread, so that probes are answered while the event loop is blocked.

``/healthz`` and ``/readyz`` answer 200 or 503 with the reason as text, ``/status`` JSON, ``/metrics`` Prometheus text.
"""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable, Mapping
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Final, Self, TypeAlias

import msgspec

Check: TypeAlias = Callable[[], tuple[bool, str]]
"""Answers whether it is so, and why or why not, in a few words. Called in a thread of the server; must not block."""

PATHS: Final = ("/healthz", "/readyz", "/status", "/metrics")
_TEXT: Final = "text/plain; charset=utf-8"
_SHUTDOWN_POLL_S: Final = 0.1
"""How long `HealthServer.close` may have to wait for the accepting thread."""
_CLIENT_TIMEOUT_S: Final = 10.0
"""A client that sends nothing is dropped after so long, so that it does not hold a thread."""


class HealthServer:
    """Serves what its callables answer. A context manager; `start` and `close` by hand are fine too."""

    def __init__(
        self,
        *,
        alive: Check,
        ready: Check,
        status: Callable[[], Mapping[str, Any]],
        metrics: Callable[[], tuple[bytes, str]],
        host: str = "0.0.0.0",  # noqa: S104 - a kubelet probes the pod's address, not its loopback
        port: int = 0,
    ) -> None:
        """Bind ``host`` and ``port`` now (0 picks a free one); `OSError` if that is not possible."""
        self._answers: dict[str, Callable[[], _Answer]] = {
            "/healthz": lambda: _checked(alive),
            "/readyz": lambda: _checked(ready),
            "/status": lambda: _Answer(HTTPStatus.OK, msgspec.json.encode(status(), enc_hook=str), "application/json"),
            "/metrics": lambda: _Answer(HTTPStatus.OK, *metrics()),
        }
        self._server = _Server((host, port), _Handler, self._answers)
        self._thread: threading.Thread | None = None

    @property
    def port(self) -> int:
        """The port that is really bound."""
        return int(self._server.server_address[1])

    def start(self) -> Self:
        """Begin to answer."""
        self._thread = threading.Thread(
            target=self._server.serve_forever, args=(_SHUTDOWN_POLL_S,), name="agentq-health", daemon=True
        )
        self._thread.start()
        return self

    def close(self) -> None:
        """Stop answering and free the port. Twice is fine."""
        thread, self._thread = self._thread, None
        if thread is not None:
            self._server.shutdown()
            thread.join()
        self._server.server_close()

    def __enter__(self) -> Self:
        """Start."""
        return self.start()

    def __exit__(self, *_exc: object) -> None:
        """Close."""
        self.close()


class _Answer:
    """Status, body and content type of a response."""

    __slots__ = ("body", "kind", "status")

    def __init__(self, status: HTTPStatus, body: bytes, kind: str = _TEXT) -> None:
        self.status, self.body, self.kind = status, body, kind


def _checked(check: Check) -> _Answer:
    good, reason = check()
    return _Answer(
        HTTPStatus.OK if good else HTTPStatus.SERVICE_UNAVAILABLE, f"{reason or ('ok' if good else 'no')}\n".encode()
    )


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    allow_reuse_address = True

    def __init__(
        self, address: tuple[str, int], handler: type[BaseHTTPRequestHandler], answers: Mapping[str, Callable[[], _Answer]]
    ) -> None:
        self.answers = answers
        if ":" in address[0]:
            self.address_family = socket.AF_INET6
        super().__init__(address, handler)

    def server_bind(self) -> None:
        """Bind without asking DNS for the host's name, which the base class does and which can take seconds in a pod."""
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        self.socket.bind(self.server_address)
        self.server_address = self.socket.getsockname()
        self.server_name, self.server_port = str(self.server_address[0]), int(self.server_address[1])

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Stay silent: a client that went away is no event of ours."""


class _Handler(BaseHTTPRequestHandler):
    server: _Server
    timeout = _CLIENT_TIMEOUT_S

    def version_string(self) -> str:
        """Name ourselves, not the Python version."""
        return "agentq"

    def do_GET(self) -> None:  # the base class gives the name
        """Answer with the body."""
        answer = self._answer()
        self._head(answer)
        self.wfile.write(answer.body)

    def do_HEAD(self) -> None:  # the base class gives the name
        """Answer without the body."""
        self._head(self._answer())

    def do_POST(self) -> None:  # the base class gives the name
        """Refuse: nothing can be changed here."""
        self._head(_Answer(HTTPStatus.METHOD_NOT_ALLOWED, b""), allow="GET, HEAD")

    do_PUT = do_DELETE = do_PATCH = do_OPTIONS = do_POST  # noqa: N815 - the base class gives the names

    def _answer(self) -> _Answer:
        path = self.path.partition("?")[0].rstrip("/") or "/"
        if path == "/":
            return _Answer(HTTPStatus.OK, ("\n".join(PATHS) + "\n").encode())
        answer = self.server.answers.get(path)
        if answer is None:
            return _Answer(HTTPStatus.NOT_FOUND, f"no such path; there are {' '.join(PATHS)}\n".encode())
        try:
            return answer()
        except Exception as error:  # noqa: BLE001 - whatever fails is the answer
            return _Answer(HTTPStatus.INTERNAL_SERVER_ERROR, f"{type(error).__name__}: {error}\n".encode())

    def _head(self, answer: _Answer, *, allow: str = "") -> None:
        self.send_response(answer.status)
        self.send_header("Content-Type", answer.kind)
        self.send_header("Content-Length", str(len(answer.body)))
        self.send_header("Cache-Control", "no-store")
        if allow:
            self.send_header("Allow", allow)
        self.end_headers()

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - the base class gives the name
        """Log nothing: probes come every second."""

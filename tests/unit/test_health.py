import asyncio
import http.client
import json
import socket
import threading

import pytest

from agentq.worker.health import PATHS, HealthServer


class State:
    def __init__(self):
        self.alive = (True, "heartbeat 1 s ago")
        self.ready = (True, "ready")

    def status(self):
        return {"worker": "w1", "slots": 8, "store": {"ok": True}}


@pytest.fixture
def state():
    return State()


@pytest.fixture
def server(state):
    with HealthServer(
        alive=lambda: state.alive,
        ready=lambda: state.ready,
        status=lambda: state.status(),  # noqa: PLW0108 - a test replaces it
        metrics=lambda: (b"agentq_drains_total 0\n", "text/plain; version=0.0.4"),
        host="127.0.0.1",
    ) as running:
        yield running


def ask(server, path, method="GET"):
    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=5)
    try:
        connection.request(method, path)
        answer = connection.getresponse()
        return answer.status, answer.read(), answer.headers
    finally:
        connection.close()


def test_a_healthy_worker_answers_200_with_its_reason(server):
    assert ask(server, "/healthz")[:2] == (200, b"heartbeat 1 s ago\n")
    assert ask(server, "/readyz")[:2] == (200, b"ready\n")


@pytest.mark.parametrize("path", ["/healthz", "/readyz"])
def test_an_unhealthy_worker_answers_503_with_the_reason(server, state, path):
    state.alive = state.ready = (False, "draining")
    assert ask(server, path)[:2] == (503, b"draining\n")


def test_status_is_json_and_metrics_keep_their_content_type(server):
    code, body, headers = ask(server, "/status")
    assert (code, json.loads(body)["slots"], headers["Content-Type"]) == (200, 8, "application/json")
    code, body, headers = ask(server, "/metrics")
    assert (code, body, headers["Content-Type"]) == (200, b"agentq_drains_total 0\n", "text/plain; version=0.0.4")


def test_a_query_and_a_trailing_slash_do_not_matter(server):
    assert ask(server, "/healthz/?x=1")[0] == 200


def test_an_unknown_path_is_404_and_names_those_there_are(server):
    code, body, _ = ask(server, "/nope")
    assert code == 404
    assert all(path.encode() in body for path in PATHS)
    assert ask(server, "/")[1].decode().split() == list(PATHS)


def test_head_sends_the_length_and_no_body(server):
    code, body, headers = ask(server, "/healthz", "HEAD")
    assert (code, body, headers["Content-Length"]) == (200, b"", str(len(b"heartbeat 1 s ago\n")))


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE"])
def test_nothing_can_be_changed(server, method):
    code, _, headers = ask(server, "/healthz", method)
    assert (code, headers["Allow"]) == (405, "GET, HEAD")


def test_a_check_that_raises_is_a_500_with_its_reason(server, state):
    state.status = lambda: 1 / 0
    assert ask(server, "/status")[:2] == (500, b"ZeroDivisionError: division by zero\n")


def test_nothing_is_written_to_stderr(server, capfd):
    ask(server, "/nope")
    with socket.create_connection(("127.0.0.1", server.port)) as rude:
        rude.sendall(b"GARBAGE\r\n\r\n")
        rude.recv(4096)
    with socket.create_connection(("127.0.0.1", server.port)) as rude:
        rude.sendall(b"GET /healthz")
    assert capfd.readouterr() == ("", "")


async def test_it_answers_while_the_event_loop_is_blocked(server):
    answered = threading.Event()
    codes = []

    def probe():
        codes.append(ask(server, "/healthz")[0])
        answered.set()

    prober = threading.Thread(target=probe)
    loop = asyncio.get_running_loop()
    loop.call_soon(prober.start)
    loop.call_soon(answered.wait, 10)  # blocks the loop until the probe is answered
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    prober.join()
    assert codes == [200]


def test_a_silent_client_does_not_keep_others_waiting(server):
    with socket.create_connection(("127.0.0.1", server.port)):
        assert ask(server, "/healthz")[0] == 200


def test_close_frees_the_port_and_may_be_called_twice(state):
    one = HealthServer(
        alive=lambda: state.alive, ready=lambda: state.ready, status=dict, metrics=lambda: (b"", ""), host="127.0.0.1"
    )
    port = one.start().port
    one.close()
    one.close()
    two = HealthServer(
        alive=lambda: state.alive,
        ready=lambda: state.ready,
        status=dict,
        metrics=lambda: (b"", ""),
        host="127.0.0.1",
        port=port,
    )
    two.close()


def test_a_port_that_is_taken_is_an_os_error(server):
    with pytest.raises(OSError, match=r"in use"):
        HealthServer(alive=tuple, ready=tuple, status=dict, metrics=tuple, host="127.0.0.1", port=server.port)


def test_binding_asks_no_name_server(monkeypatch):
    monkeypatch.setattr(socket, "getfqdn", lambda *_: pytest.fail("asked for a name"))
    HealthServer(alive=tuple, ready=tuple, status=dict, metrics=tuple, host="127.0.0.1").close()

"""Runs from synchronous code: a WSGI application as Django or Flask would be one, and a worker beside it.

agentq worker django_like:aq                                     # in one terminal
python django_like.py                                            # in another
curl -X POST -d k8s http://127.0.0.1:8000/reports                # 202 and a run id
curl http://127.0.0.1:8000/reports/RUN                           # its state, then its result
"""

import json
import time
from collections.abc import Callable, Iterable
from typing import Any
from wsgiref.simple_server import make_server

from agentq import AgentQ, SyncContext
from agentq.errors import NotFound

aq = AgentQ("reports")


@aq.step
def collect(topic: str) -> list[str]:
    time.sleep(0.1)  # in place of a slow call
    return [f"{topic} is large", f"{topic} is deep"]


@aq.task
def report(ctx: SyncContext, topic: str) -> str:
    ctx.progress(0.5, "collecting")
    return "; ".join(collect(topic))


def create(topic: str) -> tuple[str, dict[str, Any]]:
    handle = aq.blocking(report.enqueue(topic))
    return "202 Accepted", {"id": handle.id}


def show(run_id: str) -> tuple[str, dict[str, Any]]:
    handle = report.handle(run_id)
    try:
        status = aq.blocking(handle.status())
    except NotFound:
        return "404 Not Found", {"error": "no such report"}
    result = aq.blocking(handle.result()) if status.state == "succeeded" else None
    return "200 OK", {"state": status.state, "progress": status.progress, "result": result}


def application(environ: dict[str, Any], start: Callable[..., Any]) -> Iterable[bytes]:
    body = environ["wsgi.input"].read(int(environ.get("CONTENT_LENGTH") or 0)).decode()
    posted = environ["REQUEST_METHOD"] == "POST"
    status, reply = create(body) if posted else show(environ["PATH_INFO"].rpartition("/")[2])
    start(status, [("Content-Type", "application/json")])
    return [json.dumps(reply).encode()]


if __name__ == "__main__":
    make_server("127.0.0.1", 8000, application).serve_forever()

"""`aq.blocking` in a process that was forked after its parent had used it: gunicorn --preload, uWSGI, multiprocessing."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

PROGRAM = """
import os, sys
from agentq import AgentQ, Context

aq = AgentQ("t", store=sys.argv[1])

@aq.task
async def task(ctx: Context, n: int) -> int:
    return n

aq.blocking(task.enqueue(1))
child = os.fork()
if child == 0:
    handle = aq.blocking(task.enqueue(2))
    print("child", aq.blocking(handle.status()).state, flush=True)
    sys.exit(0)
code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
print("parent", code, aq.blocking(task.enqueue(3)).id != "")
"""


def test_a_forked_child_opens_the_app_anew(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, f"sqlite:///{tmp_path}/a.db"], capture_output=True, text=True, timeout=60, check=False
    )
    assert done.stdout.splitlines() == ["child queued", "parent 0 True"], done.stderr

"""What a test left behind: threads, processes, asyncio tasks."""

import asyncio
import os
import threading
from pathlib import Path

PATIENCE_S = 5.0
"""How long a thread or child that is on its way out may take; long, because a busy CI machine is slow."""


def threads() -> set[threading.Thread]:
    """Live threads of this process, the ones that libraries keep for ever left out."""
    return {thread for thread in threading.enumerate() if not _kept(thread)}


def _kept(thread: threading.Thread) -> bool:
    # asyncio's and anyio's default executors keep idle threads by design and end them with the loop or the process.
    return thread.name.startswith(("asyncio_", "AnyIO worker", "pytest_timeout", "pydevd"))


def children() -> set[int]:
    """Pids of direct children that are alive or were never waited for; empty where the kernel does not tell."""
    found: set[int] = set()
    for task in Path(f"/proc/{os.getpid()}/task").glob("*"):
        try:
            found.update(int(pid) for pid in (task / "children").read_text().split())
        except OSError:
            continue
    return {pid for pid in found if "resource_tracker" not in command_line(pid)}


def command_line(pid: int) -> str:
    """How ``pid`` was started; says so if it is a zombie or gone."""
    try:
        words = Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace").strip()
    except OSError:
        return "(gone)"
    return words or "(a zombie: nobody waited for it)"


def tasks() -> set["asyncio.Task[object]"]:
    """Unfinished tasks of the running loop, the current one left out."""
    return asyncio.all_tasks() - {asyncio.current_task()}

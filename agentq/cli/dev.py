"""``agentq dev``: a worker that begins anew whenever a source file changes."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Final

import click

from agentq.cli.problem import EX_SIGINT, note, warn
from agentq.cli.reading import broker_option, given_urls, store_option
from agentq.cli.teach import Teaching
from agentq.cli.working import worker_options

_LOOK_S: Final = 0.4
_PATIENCE_S: Final = 5.0
"""For the worker to hand its runs back before it is told to stop at once, and again before it is killed."""
_SKIPPED: Final = frozenset(
    {".git", ".venv", "venv", "__pycache__", "node_modules", ".mypy_cache", ".ruff_cache", ".tox", "site-packages"}
)


@click.command(cls=Teaching, short_help="A worker that begins anew when a .py file changes.")
@click.argument("target", metavar="MODULE:AQ")
@click.option("-c", "--concurrency", metavar="N", type=click.IntRange(1), help="Slots: runs at a time. Default 8.")
@click.option(
    "--watch", "folders", multiple=True, type=click.Path(exists=True), help="Watch this too; repeat it. Default: here."
)
@worker_options
@store_option
@broker_option
def dev(target: str, *, folders: tuple[str, ...], store_url: str | None, broker_url: str | None, **given: Any) -> None:
    r"""Work on the runs of an AgentQ, and begin anew when a .py file changes.

    Runs stop at their next step, and the changed code goes on with them there: edit an agent while it works.

    \b
    Examples:
      agentq dev hello:aq
      agentq dev hello:aq --watch ../shared --log-level debug
    """
    words = ["--drain", "3s", "--log", given["log_format"] or "console"]
    for option, value in (("--log-level", given["log_level"]), ("--concurrency", given["concurrency"])):
        words += [option, str(value)] if value is not None else []
    for name in given["queues"]:
        words += ["--queue", name]
    roots = [Path.cwd(), *map(Path, folders)]
    note(f"watching {', '.join(str(root) for root in roots)} · Ctrl-C stops")
    command = [sys.executable, "-m", "agentq", "worker", target, "--with-parent", *words]
    sys.exit(_loop(command, given_urls(store_url, broker_url), roots))


def _loop(command: list[str], urls: Mapping[str, str], roots: list[Path]) -> int:
    environ = {**os.environ, **urls, "PYTHONPATH": os.pathsep.join(filter(None, sys.path)), "PYTHONDONTWRITEBYTECODE": "1"}
    seen = stamps(roots)
    before = signal.signal(signal.SIGTERM, signal.default_int_handler)
    process = None
    try:
        while True:
            process = subprocess.Popen(command, env=environ, stdin=subprocess.PIPE, process_group=0)  # noqa: S603 - ourselves
            changed, seen = _until_changed(process, roots, seen)
            note(f"{changed} changed: beginning anew")
            _stop(process)
    except KeyboardInterrupt:
        if process is not None:
            _stop(process)
        return EX_SIGINT
    finally:
        signal.signal(signal.SIGTERM, before)


def _until_changed(process: subprocess.Popen[bytes], roots: list[Path], seen: dict[Path, int]) -> tuple[str, dict[Path, int]]:
    """Return the file that changed and how things are now; says once if the worker has ended meanwhile."""
    told = False
    while True:
        time.sleep(_LOOK_S)
        now = stamps(roots)
        if changed := sorted(path for path in now.keys() | seen.keys() if now.get(path) != seen.get(path)):
            return str(changed[0].name), now
        if not told and process.poll() is not None:
            told = True
            warn(f"the worker has ended with code {process.returncode}; it begins anew when a file changes")


def _stop(process: subprocess.Popen[bytes]) -> None:
    """Drain, then press, then kill."""
    for which in (signal.SIGTERM, signal.SIGTERM, signal.SIGKILL):
        if process.poll() is not None:
            break
        process.send_signal(which)
        try:
            process.wait(_PATIENCE_S)
        except subprocess.TimeoutExpired:
            continue
    if process.stdin is not None:
        process.stdin.close()


def stamps(roots: list[Path]) -> dict[Path, int]:
    """Return when each Python file under ``roots`` was last changed, in nanoseconds."""
    return {path: stamp for root in roots for path, stamp in _files(root)}


def _files(root: Path) -> Iterator[tuple[Path, int]]:
    for folder, folders, names in os.walk(root):
        folders[:] = [name for name in folders if name not in _SKIPPED and not name.startswith(".")]
        for name in names:
            if name.endswith(".py"):
                path = Path(folder, name)
                try:
                    yield path, path.stat().st_mtime_ns
                except OSError:
                    continue

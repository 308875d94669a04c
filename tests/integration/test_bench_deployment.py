"""The bench of interruptions keeps its workers up as Kubernetes keeps pods up; what it says of a library rests on that."""

import os
import sys
from pathlib import Path

from agentq.testing.wait import wait_until_sync
from tests.bench.interruption.deployment import Deployment

POD = """
import os, signal, sys, time
from pathlib import Path
notes, ending = Path(sys.argv[1]), sys.argv[2]
if os.fork() == 0:
    written = notes / f"{os.getpgrp()}.part"
    written.write_text(str(os.getpid()))
    written.rename(notes / f"{os.getpgrp()}.child")
    signal.pause()
def told(*_):
    (notes / f"{os.getpid()}.told").touch()
    if ending == "polite":
        os._exit(0)
signal.signal(signal.SIGTERM, told)
(notes / f"{os.getpid()}.up").touch()
while ending != "brief":
    signal.pause()
"""


def deployment(folder: Path, ending: str, *, grace_s: float = 30) -> Deployment:
    command = [sys.executable, "-c", POD, str(folder), ending]
    return Deployment(command, os.environ, grace_s=grace_s, log=folder / "log")


def pods(folder: Path, what: str = "up") -> set[int]:
    return {int(path.stem) for path in folder.glob(f"*.{what}")}


def wait_for(folder: Path, count: int) -> set[int]:
    wait_until_sync(f"{count} pods are up", lambda: len(pods(folder)) == count == len(pods(folder, "child")))
    return pods(folder)


def runs(folder: Path, pod: int) -> bool:
    """Whether its child does, which nobody tells anything."""
    try:
        status = Path("/proc", (folder / f"{pod}.child").read_text(), "status").read_text()
    except OSError:
        return False
    return "\nState:\tZ" not in status


def wait_until_gone(folder: Path, pod: int) -> None:
    wait_until_sync("all of the pod is gone", lambda: not runs(folder, pod))


def test_a_rollout_tells_the_old_pod_and_starts_the_new_one_at_once(tmp_path: Path):
    kept = deployment(tmp_path, "polite")
    kept.start()
    try:
        [old] = wait_for(tmp_path, 1)
        kept.roll_out()
        wait_until_sync("the old pod was told", lambda: pods(tmp_path, "told") == {old})
        [new] = wait_for(tmp_path, 2) - {old}
        wait_until_sync("the old pod is gone", lambda: kept.look() or old in kept.ended)
        wait_until_gone(tmp_path, old)
        assert runs(tmp_path, new)
        assert kept.restarts == 0
    finally:
        kept.stop()
    assert set(kept.ended) == {old, new}


def test_after_the_grace_what_did_not_go_is_killed(tmp_path: Path):
    kept = deployment(tmp_path, "deaf", grace_s=0)
    kept.start()
    try:
        [old] = wait_for(tmp_path, 1)
        kept.roll_out()
        kept.look()
        assert set(kept.ended) == {old}
        wait_until_gone(tmp_path, old)
    finally:
        kept.stop(end_s=0)


def test_a_crash_takes_the_whole_pod_without_a_word(tmp_path: Path):
    kept = deployment(tmp_path, "polite")
    kept.start()
    try:
        [old] = wait_for(tmp_path, 1)
        kept.crash()
        wait_until_gone(tmp_path, old)
        assert pods(tmp_path, "told") == set()
        assert wait_for(tmp_path, 2) > {old}
    finally:
        kept.stop()


def test_a_pod_that_ends_by_itself_is_replaced(tmp_path: Path):
    kept = deployment(tmp_path, "brief")
    kept.start()
    try:
        wait_until_sync("it was replaced", lambda: kept.look() or kept.restarts >= 1)
    finally:
        kept.stop()

"""What ``agentq doctor`` looks at. Each check yields findings: what is so, how bad it is, what to do."""

from __future__ import annotations

import os
import resource
import shutil
import tempfile
import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Final

from agentq.cli.target import did_you_mean
from agentq.cli.text import count, duration
from agentq.message import Census, Reply, Run, RunQuery, RunState, SetWorker, WorkerState

if TYPE_CHECKING:
    from agentq.app import AgentQ
    from agentq.settings import Settings
    from agentq.stores.base import Store

_NETWORK: Final = frozenset({
    *("nfs", "nfs4", "cifs", "smb3", "smbfs", "9p", "ceph", "glusterfs", "lustre", "afs", "virtiofs"),
    *("fuse.sshfs", "fuse.glusterfs", "fuse.s3fs", "fuse.gcsfuse"),
})  # fmt: skip
"""File systems on which SQLite's WAL, which is shared memory, does not work between machines, or not at all."""
_MIB: Final = 1 << 20
_LOW_BYTES: Final = 1024 * _MIB
_EMPTY_BYTES: Final = 64 * _MIB
_SLOW_SYNC_S: Final = 0.02
_CLOCK_S: Final = 2.0
_SERVER_CLOCK_S: Final = 5.0
_FEW_FILES: Final = 1024
_SHORT_LEASE_S: Final = 10.0
_QUIET_BEATS: Final = 3
_DAY_S: Final = 86400.0


class Level(StrEnum):
    """How bad a finding is."""

    GOOD = "ok"
    ODD = "warning"
    BROKEN = "broken"


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that was looked at."""

    level: Level
    what: str
    """The thing, in a word or two."""
    said: str
    remedy: str = ""


def _good(what: str, said: str) -> Finding:
    return Finding(Level.GOOD, what, said)


def _odd(what: str, said: str, remedy: str) -> Finding:
    return Finding(Level.ODD, what, said, remedy)


def _broken(what: str, said: str, remedy: str) -> Finding:
    return Finding(Level.BROKEN, what, said, remedy)


def environment(found: Settings) -> Iterator[Finding]:
    """Settings that mean nothing, leases that leave no room, too few file descriptors."""
    for text in found.warnings:
        yield _odd("settings", text, "look for a typing error; `agentq worker --help` names the variables")
    work = found.worker
    said = f"lease {duration(work.lease_s)}, heartbeat {duration(work.heartbeat_s)}, fence {duration(work.fence_s)}"
    if work.lease_s < _SHORT_LEASE_S:
        yield _odd("lease", said, "a lease under 10 s is lost by a pause of the machine; AGENTQ_LEASE=30s")
    elif work.heartbeat_s * 2 > work.fence_s:
        yield _odd("lease", said, "one lost heartbeat fences the worker; let AGENTQ_HEARTBEAT be a quarter of AGENTQ_FENCE")
    else:
        yield _good("lease", said)
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    if 0 <= soft < _FEW_FILES:
        yield _odd("open files", f"at most {soft}", f"ulimit -n {_FEW_FILES}")


def file(path: Path) -> Iterator[Finding]:
    """Permissions, file system, speed and room of the place of a SQLite file."""
    folder = path.resolve().parent
    if not folder.is_dir():
        yield _broken("folder", f"{folder} is not there", f"mkdir -p {folder}")
        return
    if not os.access(folder, os.W_OK | os.X_OK):
        yield _broken(
            "folder", f"{folder} cannot be written", "SQLite needs to write beside its file: change the owner or the mount"
        )
        return
    for one in (path, path.with_name(f"{path.name}-wal"), path.with_name(f"{path.name}-shm")):
        if one.exists() and not os.access(one, os.R_OK | os.W_OK):
            yield _broken("permissions", f"{one} cannot be written by user {os.getuid()}", f"chown {os.getuid()} {one}")
    yield from _file_system(folder)
    yield from _room(folder)
    try:
        took = _sync_s(folder)
    except OSError as error:
        yield _broken(
            "disk", f"{folder} takes no write: {error.strerror}", "make room, or look for a quota or a read-only mount"
        )
        return
    if took > _SLOW_SYNC_S:
        yield _odd("disk", f"a synchronised write takes {duration(took)}", "every step waits for one: use a local disk")
    else:
        yield _good("disk", f"a synchronised write takes {duration(took)}")


def _file_system(folder: Path) -> Iterator[Finding]:
    kind, point = _mount(folder)
    if kind in _NETWORK:
        yield _broken(
            "file system",
            f"{folder} is on {kind} ({point})",
            "SQLite's WAL needs a local file system; several machines need PostgreSQL",
        )
    elif kind in {"overlay", "tmpfs"} and os.environ.get("KUBERNETES_SERVICE_HOST"):
        yield _odd(
            "file system", f"{kind}: what is stored goes with the pod", "mount a volume and let AGENTQ_STORE point to it"
        )
    elif kind == "tmpfs":
        yield _odd("file system", "tmpfs: what is stored is gone after a reboot", "use a disk unless that is meant")
    elif kind:
        yield _good("file system", f"{kind}, local")


def _mount(folder: Path) -> tuple[str, str]:
    """Return type and mount point of the file system that holds ``folder``; empty where /proc does not tell."""
    best = ("", "")
    try:
        lines = Path("/proc/self/mounts").read_text().splitlines()
    except OSError:
        return best
    for line in lines:
        _, point, kind, *_ = line.split(" ")
        point = point.replace("\\040", " ")
        if (folder == Path(point) or Path(point) in folder.parents) and len(point) >= len(best[1]):
            best = (kind, point)
    return best


def _room(folder: Path) -> Iterator[Finding]:
    usage = shutil.disk_usage(folder)
    said = f"{usage.free / _MIB / 1024:.1f} GiB free"
    if usage.free < _EMPTY_BYTES:
        yield _broken("room", said, "make room: nothing can be recorded on a full disk")
    elif usage.free < _LOW_BYTES:
        yield _odd("room", said, "make room, or shorten AGENTQ_RETENTION")
    else:
        yield _good("room", said)


def _sync_s(folder: Path) -> float:
    """Return the median of five small synchronised writes, in seconds."""
    times = []
    with tempfile.NamedTemporaryFile(dir=folder, prefix=".agentq-doctor-") as probe:
        for _ in range(5):
            began = time.perf_counter()
            probe.write(b"agentq" * 100)
            probe.flush()
            os.fsync(probe.fileno())
            times.append(time.perf_counter() - began)
    return sorted(times)[2]


async def store(opened: Store, found: Settings, app: AgentQ | None) -> list[Finding]:
    """What is in the store, and whether it answers and accepts writes."""
    if lacking := await _rights(opened):
        return lacking
    began = time.perf_counter()
    reply = await opened.command(SetWorker(worker_id="doctor-looks", state=WorkerState.ACTIVE))
    took = time.perf_counter() - began
    findings = [
        _good("store", f"{opened.where} answers, a write took {duration(took)}")
        if reply is Reply.NOT_FOUND
        else _odd("store", f"{opened.where} answered {reply.value} to a question about nothing", "another agentq made it?")
    ]
    census = await opened.census()
    runs = {state: await opened.runs(RunQuery(states=(state,), limit=1000)) for state in (RunState.RUNNING, RunState.FAILED)}
    newest = await opened.runs(RunQuery(limit=20))
    findings += _clocks(census, newest)
    findings += await _server_clock(opened)
    findings += _workers(census, found)
    findings += _orphans(runs[RunState.RUNNING], census)
    findings += _dead(runs[RunState.FAILED])
    findings += _letters(census)
    queued = await opened.runs(RunQuery(states=(RunState.QUEUED,), limit=1000))
    findings += _backlog(census, queued, app)
    findings += _tasks(queued, census, app)
    return findings


def _clocks(census: Census, newest: Iterable[Run]) -> Iterator[Finding]:
    """Compare this machine's clock with the times that others wrote."""
    now = time.time()
    ahead = max([run.submitted_at for run in newest] + [worker.seen_at for worker in census.workers] + [now]) - now
    if ahead > _CLOCK_S:
        said = f"times in the store are {duration(ahead)} ahead of this machine's clock"
        yield _odd("clock", said, "set the clock by NTP; delays and deadlines are wall time (leases are not)")
    else:
        yield _good("clock", "no time in the store lies ahead of this machine's clock")


async def _server_clock(opened: Store) -> list[Finding]:
    """Compare this machine's clock with that of the store's server, where the store can tell it."""
    ask = getattr(opened, "now", None)
    if ask is None:
        return []
    before = time.time()
    there = float(await ask())
    after = time.time()
    apart = there - (before + after) / 2
    if abs(apart) - (after - before) / 2 <= _SERVER_CLOCK_S:
        return [_good("server clock", "agrees with this machine's clock")]
    said = f"the store's server is {duration(abs(apart))} {'ahead of' if apart > 0 else 'behind'} this machine's clock"
    return [
        _odd("server clock", said, "set both by NTP; delays and deadlines given here are off by that much (leases are not)")
    ]


async def _rights(opened: Store) -> list[Finding]:
    """What a worker may not do here, where the store can tell it."""
    ask = getattr(opened, "lacking", None)
    said = await ask() if ask is not None else ""
    return [_broken("rights", said, "")] if said else []


def _workers(census: Census, found: Settings) -> Iterator[Finding]:
    now = time.time()
    quiet_s = _QUIET_BEATS * found.worker.heartbeat_s
    quiet = [worker for worker in census.workers if worker.state is WorkerState.LOST or now - worker.seen_at > quiet_s]
    for worker in quiet:
        yield _odd(
            "worker",
            f"{worker.id[:8]} ({worker.pod or worker.host}) was last seen {duration(now - worker.seen_at)} ago",
            "it has died or cannot reach the store; its runs are taken over when their leases end",
        )
    lively = [worker for worker in census.workers if worker not in quiet]
    if lively:
        slots = sum(worker.slots for worker in lively)
        yield _good("workers", f"{count(len(lively), 'worker')}, {count(slots, 'slot')}")


def _orphans(running: Iterable[Run], census: Census) -> Iterator[Finding]:
    lost = [run for run in running if run.lease_s is not None and run.lease_s < 0]
    if lost and all(worker.state is WorkerState.LOST for worker in census.workers):
        said = f"{count(len(lost), 'run')} lost {'its' if len(lost) == 1 else 'their'} worker, and there is no other"
        yield _odd("runs", said, "start one: agentq worker module:aq takes them over at once")
    elif lost:
        yield _odd(
            "runs",
            f"{count(len(lost), 'run')} wait to be taken over",
            "workers do that when a slot is free: agentq workers list",
        )


def _dead(failed: Iterable[Run]) -> Iterator[Finding]:
    now = time.time()
    recent = [run for run in failed if now - (run.finished_at or now) < _DAY_S]
    poisoned = [run for run in recent if run.deaths]
    if poisoned:
        shown = " ".join(run.id for run in poisoned[:3])
        said = (
            f"{count(len(poisoned), 'run')} killed {'its' if len(poisoned) == 1 else 'their'} process again and again: {shown}"
        )
        yield _odd("dead runs", said, "memory? a crash in C code? see `agentq runs show`, then `agentq runs retry`")
    others = len(recent) - len(poisoned)
    if others:
        yield _odd("failed runs", f"{others} in the last day", "agentq runs list --state failed")


def _backlog(census: Census, queued: Sequence[Run], app: AgentQ | None) -> Iterator[Finding]:
    for stats in census.queues:
        served = any(stats.queue in worker.queues and worker.state is WorkerState.ACTIVE for worker in census.workers)
        if stats.runnable and not served:
            apps = {run.app for run in queued if run.queue == stats.queue}
            strange = app is not None and app.name not in apps and bool(apps)
            of = f" of {' and '.join(sorted(apps))}" if strange else ""
            said = f"{stats.queue} has {count(stats.runnable, 'run')}{of} and no worker that serves it"
            yield _odd("queue", said, _whose(stats.queue, app, strange=strange))


def _whose(queue: str, app: AgentQ | None, *, strange: bool) -> str:
    """Say who could serve a queue that nobody serves."""
    if strange:
        return f"start a worker of that app: agentq worker MODULE:AQ --queue {queue}"
    serve = f"agentq worker module:aq --queue {queue}"
    if app is None or queue in app.queues or not app.queues:
        return serve
    guess = did_you_mean(queue, app.queues)
    hint = f" ({guess})" if guess else ""
    return f"no task of {app.name} uses it{hint}: cancel the runs (agentq runs list --queue {queue}), or {serve}"


def _letters(census: Census) -> Iterator[Finding]:
    letters = sum(stats.dead for stats in census.queues)
    if letters:
        said = f"{count(letters, 'message')} could not become {'a run' if letters == 1 else 'runs'}"
        yield _odd("dead letters", said, "agentq dead list")


def _tasks(queued: Iterable[Run], census: Census, app: AgentQ | None) -> Iterator[Finding]:
    known = {task for worker in census.workers for task in worker.tasks} | set(app.tasks if app else ())
    if not known:
        return
    unknown = sorted({run.task for run in queued} - known)
    if unknown:
        guesses = [f"{task} ({guess})" if (guess := did_you_mean(task, sorted(known))) else task for task in unknown]
        yield _odd(
            "tasks",
            f"queued, but known to no worker: {' '.join(guesses)}",
            "deploy code that registers them, or cancel the runs",
        )

"""How much memory the process may use and uses, as its cgroup says: whether to take more, and when to begin anew."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from agentq.telemetry import emit

_V2 = Path("/sys/fs/cgroup")
_V1 = Path("/sys/fs/cgroup/memory")
_NO_LIMIT = 1 << 60
"""cgroup v1 writes a number near 2**63 for no limit."""


@dataclass(frozen=True, slots=True, kw_only=True)
class MemoryUse:
    """Bytes used, without what the kernel can drop at once, and the limit."""

    used: int
    limit: int

    @property
    def share(self) -> float:
        """Used share of the limit."""
        return self.used / self.limit


def memory_use(root: Path | None = None) -> MemoryUse | None:
    """Read the cgroup's memory; None where there is no limit or no cgroup.

    Args:
        root: a cgroup file system in place of the machine's own.

    """
    v2, v1 = (root, root) if root is not None else (_V2, _V1)
    limit, used = _number(v2 / "memory.max"), _number(v2 / "memory.current")
    stat, field = v2 / "memory.stat", "inactive_file"
    if limit is None:
        limit, used = _number(v1 / "memory.limit_in_bytes"), _number(v1 / "memory.usage_in_bytes")
        stat, field = v1 / "memory.stat", "total_inactive_file"
    if limit is None or used is None or limit <= 0 or limit >= _NO_LIMIT:
        return None
    cache = _stat(stat, field)
    return MemoryUse(used=max(0, used - cache), limit=limit)


def over(share: float | None, root: Path | None = None) -> MemoryUse | None:
    """The memory in use if it is above ``share`` of the limit; None if it is not, or nothing limits it."""
    if share is None:
        return None
    use = memory_use(root)
    return use if use is not None and use.share > share else None


class Door:
    """Whether memory allows a worker to take more; says so when it closes."""

    def __init__(self, worker: str, share: float | None) -> None:
        """Close above ``share`` of the limit; None never closes."""
        self._worker = worker
        self._share = share
        self.is_open = True
        """As it was when last looked at."""

    def open(self) -> bool:
        """Look."""
        use = over(self._share)
        if self.is_open and use is not None:
            emit("worker.admission", worker=self._worker, memory_mb=use.used >> 20, limit_mb=use.limit >> 20)
        self.is_open = use is None
        return self.is_open


def _number(path: Path) -> int | None:
    try:
        text = path.read_text().strip()
    except OSError:
        return None
    return int(text) if text.isdecimal() else None


def _stat(path: Path, name: str) -> int:
    try:
        lines = path.read_text().splitlines()
    except OSError:
        return 0
    for line in lines:
        key, _, value = line.partition(" ")
        if key == name and value.strip().isdecimal():
            return int(value)
    return 0

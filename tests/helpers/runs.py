"""Submissions, claims and entries with every field filled in that a test of a store does not care about."""

from agentq.message import ClaimRequest, Entry, EntryKind, Envelope

LEASE_S = 60.0


def envelope(run_id: str, **more) -> Envelope:
    given = {"app": "app", "task": "task", "queue": "queue", "args": b"{}", "args_hash": "h", "submitted_at": 1.0}
    return Envelope(id=run_id, **given | more)


def request(worker: str = "w", **more) -> ClaimRequest:
    given = {"app": "app", "queues": ("queue",), "tasks": ("task",), "limit": 100, "lease_s": LEASE_S}
    return ClaimRequest(worker=worker, **given | more)


def entry(seq: int, **more) -> Entry:
    given = {"kind": EntryKind.DONE, "step": "step", "occurrence": seq, "value": b"1"}
    return Entry(seq=seq, **given | more)

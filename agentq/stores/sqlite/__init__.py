"""The embedded store: one SQLite file, shared by the processes of one machine."""

from agentq.stores.sqlite.store import SQLiteStore

__all__ = ["SQLiteStore"]

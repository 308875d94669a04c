"""The cluster's store: one PostgreSQL schema, shared by every process that reaches the server."""

from agentq.stores.postgres.store import PostgresStore

__all__ = ["PostgresStore"]

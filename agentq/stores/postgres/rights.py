"""What the user in the url may do with the tables, asked before a worker says that it is ready."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from agentq.stores.postgres.connection import Db

# `meta` is written by whoever makes or migrates the tables, which is another user where rights are kept apart.
_LACKING: Final = """
select c.relname::text, current_user::text from pg_class c join pg_namespace s on s.oid = c.relnamespace
where s.nspname = $1 and c.relkind in ('r', 'p', 'S') and c.relname <> 'meta' and not case when c.relkind = 'S'
  then has_sequence_privilege(c.oid, 'usage')
  else has_table_privilege(c.oid, 'select') and has_table_privilege(c.oid, 'insert')
    and has_table_privilege(c.oid, 'update') and has_table_privilege(c.oid, 'delete') end
  -- the sequence of an identity column asks for no right of its own
  and not exists (select from pg_depend d where d.classid = 'pg_class'::regclass and d.objid = c.oid and d.deptype = 'i')
order by 1
"""
_NAMED: Final = 3


async def lacking(db: Db) -> str:
    """Which rights of a worker the user has not, and the statements that grant them; empty if it has all."""
    found = await db.fetch(_LACKING, db.names.schema)
    if not found:
        return ""
    user, schema = found[0][1], db.names.schema
    names = [name for name, _ in found]
    named = ", ".join(names[:_NAMED]) + (f" and {len(names) - _NAMED} more" if len(names) > _NAMED else "")
    return (
        f"{db.where}: user {user} may not write {named}; as the owner of schema {schema}: "
        f'grant select, insert, update, delete on all tables in schema {schema} to "{user}"; '
        f'grant usage on all sequences in schema {schema} to "{user}"'
    )

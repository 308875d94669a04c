"""The tables, and how an older schema becomes a newer one: versioned steps that only ever add."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from agentq.errors import StoreError, StoreIncompatible, StoreMissing
from agentq.stores.postgres.connection import PATIENT_S

if TYPE_CHECKING:
    from agentq.stores.postgres.connection import Db
    from agentq.stores.postgres.pool import Pool

_FIRST: Final = """
create table ~.lane (
  id int generated always as identity primary key,
  app text not null, queue text not null, task text not null,
  unique (app, queue, task)
);

create sequence ~.run_n;

-- Times are seconds since the epoch, on the server's clock where they decide something.
create table ~.run (
  n bigint primary key default nextval('~.run_n'),
  id text collate "C" not null unique,
  lane int not null,
  state smallint not null,
  ready boolean not null default false,       -- a claim may take it now
  priority bigint not null default 0,
  rank float8 not null,                       -- due time by which equals are ordered
  since float8 not null,                      -- when it last became runnable
  due_at float8,                              -- queued: not before; waiting: the earliest timer
  wake_at float8,                             -- the next event that needs no person
  epoch int not null default 0,
  token bigint,                               -- of the running claim
  settled bigint,                             -- seal of the last settlement, so that its repetition is recognised
  owner text,
  lease_until float8,
  claimed int not null default 0,             -- journal length at the last claim
  claimed_at float8,
  beat_at float8,                             -- the last sign of life of this claim
  attempt int not null default 1,
  paused boolean not null default false,
  cancelling boolean not null default false,
  suspect boolean not null default false,
  watched boolean not null default false,     -- some run opened a wait for its end
  deaths int not null default 0,
  takeovers int not null default 0,
  submitted_at float8 not null,
  started_at float8,
  finished_at float8,
  running_s float8 not null default 0,
  deadline float8,
  timeout_s float8,
  max_attempts bigint,
  key text,
  tenant text,
  tags bytea,
  args_hash text not null,
  version text,
  parent_id text collate "C",
  root_id text collate "C",
  fork_of text,
  traceparent text,
  progress float8,
  progress_note text not null default '',
  tokens bigint not null default 0,
  cost_nanos bigint not null default 0,
  failure bytea,
  args bytea,
  args_blob text,
  result bytea,
  result_blob text
) with (fillfactor = 80, autovacuum_vacuum_scale_factor = 0.02, autovacuum_vacuum_threshold = 1000,
        autovacuum_analyze_scale_factor = 0.05, autovacuum_vacuum_cost_delay = 0);
create index run_lane on ~.run (lane, state, n);
create index run_live on ~.run (lane, state) where state < 4;
create index run_ready on ~.run (lane, priority desc, rank, n) where ready;
create index run_wake on ~.run (wake_at) where wake_at is not null;
create index run_lease on ~.run (lease_until) where lease_until is not null;
create index run_paused on ~.run (lane, state) where paused and state < 4;
create index run_finished on ~.run (finished_at) where finished_at is not null;
create index run_parent on ~.run (parent_id) where parent_id is not null;
create index run_root on ~.run (root_id) where root_id is not null and state < 4;
create index run_tenant on ~.run (tenant, n) where tenant is not null;

create table ~.journal (
  run bigint not null,
  seq int not null,
  kind smallint not null,
  occurrence int not null,
  attempt int not null,
  epoch int not null,
  tokens bigint not null,
  cost_nanos bigint not null,
  started_at float8 not null,
  ended_at float8 not null,
  branch text not null,
  step text not null,
  args_hash text not null,
  blob text,
  value bytea,
  primary key (run, seq)
) with (autovacuum_vacuum_scale_factor = 0.02, autovacuum_vacuum_threshold = 10000,
        autovacuum_vacuum_insert_scale_factor = 0.1, autovacuum_vacuum_cost_delay = 0);
create unique index journal_once on ~.journal (run, occurrence, kind, attempt, step, branch);

create table ~.wait (
  run bigint not null,
  branch text not null,
  step text not null,
  occurrence int not null,
  kind text not null,
  ref text collate "C" not null,
  due_at float8,
  ask text,
  attempt int not null,                       -- of the `waited` entry that will close it
  primary key (run, branch, step, occurrence)
) with (autovacuum_vacuum_scale_factor = 0.02, autovacuum_vacuum_threshold = 1000, autovacuum_vacuum_cost_delay = 0);
create index wait_child on ~.wait (ref) where kind = 'child';

create table ~.signal (
  n bigint generated always as identity primary key,
  run bigint not null,
  name text not null,
  signal_id text not null,
  payload bytea not null,
  consumed boolean not null default false,
  unique (run, name, signal_id)
);
create index signal_open on ~.signal (run, name, n) where not consumed;

create table ~.snapshot (
  run bigint not null,
  branch text not null,
  seq int not null,                           -- of the `saved` entry that it belongs to
  payload bytea not null,
  primary key (run, branch)
);

create table ~.stream (
  run bigint not null,
  "offset" bigint not null,
  epoch int not null,
  n bigint not null,
  topic text not null,
  branch text not null,
  at float8 not null,
  payload bytea not null,
  primary key (run, "offset"),
  unique (run, epoch, n)
);

create table ~.blob (sha text collate "C" primary key, data bytea not null);
create table ~.blob_ref (run bigint not null, sha text collate "C" not null, primary key (run, sha));
create index blob_ref_sha on ~.blob_ref (sha);

create table ~.worker (
  id text primary key,
  state text not null,
  seen_at float8 not null,                    -- for people
  seen float8 not null,                       -- decides; differs from seen_at only in tests
  lease_s float8 not null,
  data bytea not null
) with (fillfactor = 50, autovacuum_vacuum_scale_factor = 0.02, autovacuum_vacuum_threshold = 200);
"""

_SECOND: Final = """
alter table ~.run
  add column ordering_key text,
  add column line bigint,                     -- hash of (app, queue, ordering key): see the module `lines`
  add column behind boolean not null default false,
  add column losses int not null default 0;   -- of suspects whose worker's lease ran out
create index run_line on ~.run (line, behind, n) where line is not null and state < 4;

-- Lines whose front has ended: the next claim hands them over.
create table ~.vacant (n bigint generated always as identity primary key, line bigint not null, since float8)
  with (autovacuum_vacuum_scale_factor = 0.02, autovacuum_vacuum_threshold = 500, autovacuum_vacuum_cost_delay = 0);

-- By triggers, because a worker of the version before ends ordered runs too, and knows nothing of lines.
create function ~.keep_behind() returns trigger language plpgsql as $$
begin
  new.ready := false;
  return new;
end $$;
create trigger keep_behind before update of ready on ~.run for each row when (new.behind and new.ready)
  execute function ~.keep_behind();
create function ~.vacate() returns trigger language plpgsql as $$
begin
  insert into ~.vacant (line, since) values (new.line, new.finished_at);
  return null;
end $$;
create trigger vacate after update of state on ~.run for each row
  when (new.line is not null and new.state >= 4 and old.state < 4 and not old.behind) execute function ~.vacate();

create table ~.early (
  n bigint generated always as identity primary key,
  run_id text collate "C" not null,
  kind text not null,                         -- cancel, pause, resume, send
  name text,
  signal_id text,
  payload bytea,
  kept_at float8 not null,
  unique (run_id, name, signal_id)
);
create index early_kept on ~.early (kept_at);

create table ~.tombstone (
  id text collate "C" primary key, args_hash text not null, state smallint not null, until float8 not null
);
create index tombstone_until on ~.tombstone (until);

create table ~.parcel (sha text collate "C" primary key, kept_at float8 not null);
create index parcel_kept on ~.parcel (kept_at);

create sequence ~.letter_n;
create table ~.letter (
  n bigint primary key,
  id text collate "C" not null unique,
  queue text not null,
  body bytea not null,
  reason text not null,
  attributes bytea not null,
  origin text not null,
  received_at float8 not null
);
create index letter_queue on ~.letter (queue, n);

create table ~.position (
  source text not null, partition int not null, "offset" bigint not null,
  primary key (source, partition)
);

-- Called in the statement that has just inserted runs. What it reads is newer than that statement: whoever keeps a command for
-- a run that is not there, or sweeps one, has held the run's id against the insertion until then. A child heeds no tombstone.
create function ~.received(ids text[], wall float8, out gone text[], out dead text[]) language plpgsql volatile as $$
declare
  expected text[];
  told record;
begin
  select array_agg(t.id) into gone
  from ~.tombstone t join ~.run r on r.id = t.id where t.id = any(ids) and t.until > wall and r.parent_id is null;
  if gone is not null then
    delete from ~.run where id = any(gone);
  end if;
  if exists (select 1 from ~.early) then
    select array_agg(u.id) into expected
    from unnest(ids) as u (id) where exists (select 1 from ~.early e where e.run_id = u.id);
  end if;
  if expected is not null then
    for told in
      select e.*, r.n as run from ~.early e join ~.run r on r.id = e.run_id where e.run_id = any(expected) order by e.n
    loop
      case told.kind
        when 'cancel' then
          update ~.run set state = 6, ready = false, due_at = null, wake_at = null, finished_at = wall, behind = false
          where n = told.run and state < 4;
          dead := array_append(dead, told.run_id);
        when 'send' then
          insert into ~.signal (run, name, signal_id, payload)
          select n, told.name, told.signal_id, told.payload from ~.run where n = told.run and state < 4
          on conflict do nothing;
        else
          update ~.run set paused = told.kind = 'pause',
            ready = told.kind = 'resume' and not behind and (due_at is null or due_at <= wall),
            wake_at = least(case when told.kind = 'resume' and not behind and due_at > wall then due_at end, deadline)
          where n = told.run and state < 4;
      end case;
      delete from ~.early where n = told.n;
    end loop;
  end if;
end $$;

insert into ~.meta (key, value) values ('identity', gen_random_uuid()::text);
"""

MIGRATIONS: Final[tuple[str, ...]] = (_FIRST, _SECOND)
"""Step *i* takes a schema of version *i* to version *i* + 1. A released step is never edited."""
OLDEST: Final = 1
"""The oldest agentq, by the version of its schema, that can work with what `MIGRATIONS` leaves."""

_LOCK: Final = 0x61677471
"""First half of the advisory lock, ``agtq``; the other half is a hash of the schema's name."""


async def migrate(pool: Pool, *, create: bool = True) -> str:
    """Bring the schema to the newest version, in one transaction that no other process shares; answer its identity.

    A schema that is newer than this code is taken as it is, where its newer steps say that older code still fits: so two
    versions run side by side during a rollout.

    Raises:
        StoreMissing: there are no tables yet, and none are to be made (``create``).
        StoreIncompatible: the schema was made for a newer agentq only.
        StoreError: the schema belongs to another program, or the database is not in UTF-8.
    """
    async with pool.transaction() as db:
        version = await _version(db)
        if not version and not create:
            raise StoreMissing(f"there is no agentq schema {db.names.schema} at {db.where}")
    if version < len(MIGRATIONS):
        async with pool.transaction(PATIENT_S) as db:
            await _migrate(db)
    async with pool.transaction() as db:
        return str(await db.value("select value from ~.meta where key = 'identity'"))


async def _migrate(db: Db) -> None:
    name = db.names.schema
    await db.connection.execute("set local lock_timeout = 0")
    await db.value("select pg_advisory_xact_lock($1, hashtext($2))", _LOCK, name)
    # Another process may have migrated while we waited for the lock.
    version = await _version(db)
    if version >= len(MIGRATIONS):
        return
    if version == 0:
        if not await db.value("select 1 from pg_namespace where nspname = $1", name):
            await db.connection.execute(f'create schema "{name}"')
        await db.connection.execute(db.names.text("create table ~.meta (key text primary key, value text not null)"))
    for step in MIGRATIONS[version:]:
        await db.connection.execute(db.names.text(step))
    for key, value in (("version", len(MIGRATIONS)), ("oldest", OLDEST)):
        await db.fetch(
            "insert into ~.meta (key, value) values ($1, $2) on conflict (key) do update set value = excluded.value",
            key,
            str(value),
        )


async def _version(db: Db) -> int:
    """The schema's version; 0 where there is none yet."""
    encoding = await db.value("select current_setting('server_encoding')")
    if encoding != "UTF8":
        raise StoreError(f"{db.where}: the database is in {encoding}; create one with encoding UTF8")
    # By the catalogue and not by a cast to regclass: the schema itself may not be there, or not ours to see.
    tables = (
        "select array_agg(c.relname::text) from pg_class c join pg_namespace s on s.oid = c.relnamespace where s.nspname = $1"
    )
    there = await db.value(tables, db.names.schema) or []
    if "meta" not in there:
        if there:
            raise StoreError(f"{db.where}: schema {db.names.schema} is another program's; give agentq one of its own (schema=)")
        return 0
    kept = dict(await db.fetch("select key, value from ~.meta"))
    version, oldest = int(kept.get("version", 0)), int(kept.get("oldest", 0))
    if oldest > len(MIGRATIONS):
        raise StoreIncompatible(
            f"{db.where} has schema {version}, which needs an agentq that knows {oldest}; this one knows {len(MIGRATIONS)}."
            " Upgrade agentq here, or name another schema"
        )
    return version

"""The tables, and how an older file becomes a newer one: versioned steps that only ever add."""

from __future__ import annotations

import sqlite3
from typing import Final

from agentq.errors import StoreError, StoreIncompatible

APPLICATION_ID: Final = 0x61677471
"""``agtq``: tells our files from those of other programs."""

SEQ_BITS: Final = 22
"""A journal key is ``run.n << SEQ_BITS | seq``: one b-tree, clustered by run, four million entries a run."""
SEQ_MASK: Final = (1 << SEQ_BITS) - 1
STREAM_BITS: Final = 30
STREAM_MASK: Final = (1 << STREAM_BITS) - 1

_FIRST: Final = """
create table meta (key text primary key, value text not null) without rowid;

create table lane (id integer primary key, app text not null, queue text not null, task text not null,
  unique (app, queue, task));

create table run (
  n integer primary key,
  id text not null unique,
  lane integer not null,
  state integer not null,
  ready integer not null default 0,    -- 1: a claim may take it now
  priority integer not null default 0,
  rank real not null,                  -- due time by which equals are ordered
  since real not null,                 -- wall time at which it last became runnable
  due_at real,                         -- queued: not before; waiting: the earliest timer
  wake_at real,                        -- wall time of the next event that needs no person
  epoch integer not null default 0,
  token integer,                       -- of the running claim
  settled integer,                     -- seal of the last settlement, so that its repetition is recognised
  owner text,
  lease_until real,                    -- steady clock
  claimed integer not null default 0,  -- journal length at the last claim
  claimed_at real,                     -- steady clock
  beat_at real,                        -- steady clock; the last sign of life of this claim
  attempt integer not null default 1,
  paused integer not null default 0,
  cancelling integer not null default 0,
  suspect integer not null default 0,
  deaths integer not null default 0,
  takeovers integer not null default 0,
  submitted_at real not null,
  started_at real,
  finished_at real,
  running_s real not null default 0,
  deadline real,
  timeout_s real,
  max_attempts integer,
  key text,
  tenant text,
  tags blob,
  args_hash text not null,
  version text,
  parent_id text,
  root_id text,
  fork_of text,
  traceparent text,
  progress real,
  progress_note text not null default '',
  tokens integer not null default 0,
  cost_nanos integer not null default 0,
  failure blob,
  args blob,
  args_blob text,
  result blob,
  result_blob text
);
create index run_lane on run (lane, state);
create index run_ready on run (lane, priority desc, rank, n, since, suspect, ready) where ready = 1;
create index run_wake on run (wake_at) where wake_at is not null;
create index run_lease on run (lease_until) where lease_until is not null;
create index run_paused on run (lane, state, paused) where paused = 1;
create index run_finished on run (finished_at) where finished_at is not null;
create index run_parent on run (parent_id) where parent_id is not null;
create index run_root on run (root_id, ready) where root_id is not null;
create index run_tenant on run (tenant) where tenant is not null;

create table journal (
  k integer primary key,
  run integer not null,
  kind integer not null,
  branch text not null,
  step text not null,
  occurrence integer not null,
  attempt integer not null,
  epoch integer not null,
  args_hash text not null,
  started_at real not null,
  ended_at real not null,
  tokens integer not null,
  cost_nanos integer not null,
  blob text,
  value blob
);
create unique index journal_once on journal (run, kind, branch, step, occurrence, attempt);

create table wait (
  run integer not null,
  branch text not null,
  step text not null,
  occurrence integer not null,
  kind text not null,
  ref text not null,
  due_at real,
  ask text,
  attempt integer not null,            -- of the `waited` entry that will close it
  primary key (run, branch, step, occurrence)
) without rowid;
create index wait_child on wait (ref) where kind = 'child';

create table signal (
  n integer primary key,
  run integer not null,
  name text not null,
  signal_id text not null,
  payload blob not null,
  consumed integer not null default 0,
  unique (run, name, signal_id)
);
create index signal_open on signal (run, name) where consumed = 0;

create table snapshot (
  run integer not null,
  branch text not null,
  seq integer not null,                -- of the `saved` entry that it belongs to
  payload blob not null,
  primary key (run, branch)
);

create table stream (
  k integer primary key,               -- run << STREAM_BITS | offset
  run integer not null,
  epoch integer not null,
  n integer not null,
  topic text not null,
  branch text not null,
  at real not null,
  payload blob not null
);
create unique index stream_once on stream (run, epoch, n);

create table blob (sha text primary key, data blob not null);
create table blob_ref (run integer not null, sha text not null, primary key (run, sha)) without rowid;
create index blob_ref_sha on blob_ref (sha);

create table worker (
  id text primary key,
  state text not null,
  seen_at real not null,               -- wall clock, for people
  seen real not null,                  -- steady clock, decides
  lease_s real not null,
  data blob not null
) without rowid;
"""

_SECOND: Final = """
alter table run add column ordering_key text;
alter table run add column behind integer not null default 0;
alter table run add column losses integer not null default 0;
create index run_holder on run (lane, ordering_key) where ordering_key is not null and behind = 0 and state < 4;
create index run_behind on run (lane, ordering_key, n, paused, behind) where behind = 1;

create table letter (                  -- dead letters
  n integer primary key,
  id text not null unique,
  queue text not null,
  body blob not null,
  reason text not null,
  attributes blob,
  origin text not null,
  received_at real not null
);
create index letter_queue on letter (queue);

create table position (
  source text not null,
  partition integer not null,
  next integer not null,               -- offset of the next message to read
  primary key (source, partition)
) without rowid;

create table parcel (                  -- arguments that wait for the run that they belong to
  sha text primary key,
  at real not null,                    -- wall time at which they were last given
  data blob not null
);
create index parcel_at on parcel (at);

create table early (                   -- commands for runs that nobody has heard of yet
  k integer primary key,
  run_id text not null,
  at real not null,
  command blob not null
);
create index early_run on early (run_id);
create index early_at on early (at);

create table tombstone (               -- what is still known of a run that was swept
  id text primary key,
  args_hash text not null,
  state integer not null,
  finished_at real not null
) without rowid;
create index tombstone_finished on tombstone (finished_at);
"""

MIGRATIONS: Final[tuple[str, ...]] = (_FIRST, _SECOND)
"""Step *i* takes a file of version *i* to version *i* + 1. A released step is never edited."""


def migrate(db: sqlite3.Connection, where: str) -> None:
    """Bring the file to the newest version, in one transaction. ``db`` is in autocommit mode.

    Raises:
        StoreIncompatible: the file was written by a newer agentq.
        StoreError: the file belongs to another program.
    """
    if _version(db, where) == len(MIGRATIONS):
        return
    db.execute("begin immediate")
    try:
        # Another process may have migrated while we waited for the lock.
        for step in MIGRATIONS[_version(db, where) :]:
            for statement in step.split(";\n"):
                if statement.strip():
                    db.execute(statement)
        db.execute(f"pragma application_id = {APPLICATION_ID}")
        db.execute(f"pragma user_version = {len(MIGRATIONS)}")
        db.execute("commit")
    finally:
        if db.in_transaction:
            db.execute("rollback")


def _version(db: sqlite3.Connection, where: str) -> int:
    version = int(db.execute("pragma user_version").fetchone()[0])
    owner = int(db.execute("pragma application_id").fetchone()[0])
    if owner != APPLICATION_ID and (version or owner or db.execute("select 1 from sqlite_schema limit 1").fetchone()):
        raise StoreError(f"{where} is another program's database; give agentq a file of its own (AGENTQ_STORE)")
    if version > len(MIGRATIONS):
        raise StoreIncompatible(
            f"{where} has schema {version}, this agentq knows {len(MIGRATIONS)}; upgrade agentq here, or use another file"
        )
    return version

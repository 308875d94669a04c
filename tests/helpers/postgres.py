"""A PostgreSQL for the tests: one of their own, started once per test run, or the user's by AGENTQ_TEST_POSTGRES."""

import asyncio
import contextlib
import os
import secrets
import shutil
import signal
import socket
import subprocess
import tempfile
import warnings
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

from agentq.testing.wait import wait_until_sync
from tests.helpers.servers import unreachable

GIVEN = os.environ.get("AGENTQ_TEST_POSTGRES")  # read early: no test sees settings from outside
REMEDY = "pip install asyncpg pgserver, or AGENTQ_TEST_POSTGRES=postgresql://user:password@host/database"


@contextlib.contextmanager
def server() -> Iterator[str]:
    """The url of a running server. Ours listens on a Unix socket in a temporary folder, and ends with the block."""
    if GIVEN:
        yield GIVEN
        return
    try:
        import asyncpg  # noqa: F401, PLC0415 - tests of other stores need none

        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # it warns of a missing XDG_RUNTIME_DIR
            import pgserver  # noqa: PLC0415
    except ImportError as error:
        unreachable("PostgreSQL", f"{error}; {REMEDY}")
    folder = Path(tempfile.mkdtemp(prefix="agentq-pg-"))
    folder.chmod(0o755)  # run by root, the server has a user of its own
    try:
        try:
            started = pgserver.get_server(folder / "data", cleanup_mode="stop")
        except Exception as error:  # noqa: BLE001 - whatever it is: there is no server
            unreachable("PostgreSQL", f"{error!r}; {REMEDY}")
        try:
            url = f"postgresql://postgres@/postgres?host={folder / 'data'}"
            asyncio.run(_hurry(url))
            yield url
        finally:
            started.cleanup()
    finally:
        shutil.rmtree(folder, ignore_errors=True)


async def _hurry(url: str) -> None:
    import asyncpg  # noqa: PLC0415

    connection = await asyncpg.connect(url)
    # What is tested is what becomes of transactions, not whether the machine's disk keeps its word.
    await connection.execute("alter system set fsync = off")
    await connection.execute("alter system set synchronous_commit = off")
    await connection.fetchval("select pg_reload_conf()")
    await connection.close()


def with_schema(url: str, schema: str) -> str:
    """``url`` with a schema of its own."""
    return f"{url}{'&' if '?' in url else '?'}schema={schema}"


@contextlib.asynccontextmanager
async def connected(url: str) -> AsyncIterator:
    """A connection of the test's own."""
    import asyncpg  # noqa: PLC0415

    from agentq.stores.postgres.address import address  # noqa: PLC0415

    connection = await asyncpg.connect(address(url).dsn)
    try:
        yield connection
    finally:
        await connection.close(timeout=5)


async def waits_for(user: Any) -> bool:
    """Whether anybody waits for a lock of ``user``'s."""
    query = "select exists (select 1 from pg_locks where not granted and $1 = any(pg_blocking_pids(pid)))"
    return await user.fetchval(query, user.get_server_pid())


@contextlib.asynccontextmanager
async def fresh_schema(url: str) -> AsyncIterator[str]:
    """The url of a schema that nobody else uses; it is dropped afterwards."""
    schema = f"test_{secrets.token_hex(6)}"
    try:
        yield with_schema(url, schema)
    finally:
        async with connected(url) as connection:
            await connection.execute(f"drop schema if exists {schema} cascade")


_POOLER = """
[databases]
postgres = host={data} dbname=postgres user=postgres
[pgbouncer]
listen_addr = 127.0.0.1
listen_port = {port}
unix_socket_dir =
auth_type = any
pool_mode = transaction
default_pool_size = 3
max_client_conn = 500
logfile = {folder}/log
pidfile = {folder}/pid
"""


@contextlib.contextmanager
def pooler(url: str) -> Iterator[str]:
    """The url of the same server behind PgBouncer, where that is installed; else straight, with the settings for a pooler."""
    program = shutil.which("pgbouncer") or shutil.which("pgbouncer", path="/usr/sbin")
    if GIVEN or program is None:
        yield f"{url}{'&' if '?' in url else '?'}notify=off"
        return
    data = Path(url.partition("host=")[2])
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    folder = data.parent / "pooler"
    folder.mkdir()
    owner = data.stat()  # who alone may reach the server's socket; the pooler refuses to be root
    os.chown(folder, owner.st_uid, owner.st_gid)
    settings = folder / "pgbouncer.ini"
    settings.write_text(_POOLER.format(data=data, port=port, folder=folder))
    subprocess.run([program, "-q", "-d", settings], check=True, user=owner.st_uid, group=owner.st_gid, extra_groups=[])
    wait_until_sync("the pooler has begun", (folder / "pid").exists)
    try:
        yield f"postgresql://postgres@127.0.0.1:{port}/postgres?notify=off"
    finally:
        os.kill(int((folder / "pid").read_text()), signal.SIGTERM)

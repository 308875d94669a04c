"""A PostgreSQL for the tests: one of their own, started once per test run, or the user's by AGENTQ_TEST_POSTGRES."""

import asyncio
import contextlib
import os
import secrets
import shutil
import tempfile
import warnings
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

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

    connection = await asyncpg.connect(url)
    try:
        yield connection
    finally:
        await connection.close(timeout=5)


@contextlib.asynccontextmanager
async def fresh_schema(url: str) -> AsyncIterator[str]:
    """The url of a schema that nobody else uses; it is dropped afterwards."""
    schema = f"test_{secrets.token_hex(6)}"
    try:
        yield with_schema(url, schema)
    finally:
        async with connected(url) as connection:
            await connection.execute(f"drop schema if exists {schema} cascade")

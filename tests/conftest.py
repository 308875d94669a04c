"""Every test leaves the process as it found it: no thread, no child process, no asyncio task, no AGENTQ_* setting."""

import asyncio
import inspect
import os
from collections.abc import AsyncIterator, Iterator

import pytest

from agentq.testing.wait import wait_until_sync
from tests.helpers import elasticmq, kafka, leaks, moto, postgres


@pytest.fixture(autouse=True)
def _no_leaks(request: pytest.FixtureRequest) -> Iterator[None]:
    if inspect.iscoroutinefunction(getattr(request, "function", None)):
        request.getfixturevalue("_no_leaked_tasks")
    threads, children = leaks.threads(), leaks.children()
    yield
    try:
        wait_until_sync(
            "the test's threads and processes have ended",
            lambda: leaks.threads() <= threads and leaks.children() <= children,
            timeout_s=leaks.PATIENCE_S,
        )
    except TimeoutError:
        left = [repr(thread) for thread in leaks.threads() - threads]
        left += [f"process {pid}: {leaks.command_line(pid)}" for pid in leaks.children() - children]
        pytest.fail("the test left behind: " + "; ".join(left), pytrace=False)


@pytest.fixture
async def _no_leaked_tasks() -> AsyncIterator[None]:
    before = leaks.tasks()
    yield
    for _ in range(10):  # a task that was cancelled needs a turn or two of the loop to end
        if not leaks.tasks() - before:
            return
        await asyncio.sleep(0)
    if left := leaks.tasks() - before:
        pytest.fail("the test left tasks behind: " + "; ".join(map(repr, left)), pytrace=False)


@pytest.fixture(autouse=True)
def _no_settings_from_outside(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in os.environ if name.startswith("AGENTQ_")]:
        monkeypatch.delenv(name)


@pytest.fixture(scope="session")
def postgres_url() -> Iterator[str]:
    """A PostgreSQL server, once per test run."""
    with postgres.server() as url:
        yield url


@pytest.fixture(scope="session")
def pooled_url(postgres_url: str) -> Iterator[str]:
    """The same server behind a transaction pooler."""
    with postgres.pooler(postgres_url) as url:
        yield url


@pytest.fixture(scope="session")
def elasticmq_url() -> Iterator[str]:
    """The endpoint of an SQS-compatible server, once per test run."""
    with elasticmq.server() as url:
        yield url


@pytest.fixture(scope="session")
def moto_url() -> Iterator[str]:
    """The endpoint of moto's server (SQS and S3 as AWS answers), once per test run."""
    with moto.server() as url:
        yield url


@pytest.fixture(scope="session")
def kafka_address() -> Iterator[str]:
    """host:port of a Kafka broker, once per test run."""
    with kafka.server() as address:
        yield address

"""The leak detection that guards every test sees what it is there to see."""

import asyncio
import subprocess
import sys
import threading

from tests.helpers import leaks


def test_sees_a_thread():
    before, stop = leaks.threads(), threading.Event()
    thread = threading.Thread(target=stop.wait)
    thread.start()
    assert leaks.threads() - before == {thread}
    stop.set()
    thread.join()
    assert leaks.threads() == before


def test_sees_a_child_process_until_it_is_waited_for():
    before = leaks.children()
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as process:
        assert leaks.children() - before == {process.pid}
    assert leaks.children() == before


async def test_sees_a_task():
    before = leaks.tasks()
    task = asyncio.create_task(asyncio.Event().wait())
    assert leaks.tasks() - before == {task}
    task.cancel()
    await asyncio.wait({task})
    assert leaks.tasks() == before

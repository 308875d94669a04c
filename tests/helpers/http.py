"""One request to a server on the loopback, from a test with an event loop."""

import asyncio
import urllib.error
import urllib.request


async def get(port, path):
    """Status and text of the answer."""
    return await asyncio.to_thread(_get, f"http://127.0.0.1:{port}{path}")


def _get(url):
    try:
        with urllib.request.urlopen(url, timeout=10) as answer:  # noqa: S310 - http alone
            return answer.status, answer.read().decode()
    except urllib.error.HTTPError as error:
        return error.code, error.read().decode()

"""What every client of the cluster is made with: servers, encryption, and who we are."""

from __future__ import annotations

import asyncio
import importlib
import inspect
import ssl
from collections.abc import Callable
from typing import Any, Final, cast

from aiokafka.abc import AbstractTokenProvider

from agentq.brokers.kafka.address import Address
from agentq.errors import InvalidArgument

_HOOK: Final = "broker: token (the name of a function)"
"""It is no secret, and not written like one."""
REQUEST_S: Final = 12.0
"""How long one request may take: longer than a rebalance, during which a join waits for the other members."""


def options(address: Address, client: str) -> dict[str, Any]:
    """Keyword arguments for any of the library's clients; reads the certificates and finds the token's function.

    Raises:
        InvalidArgument: a file or the function is not there.
    """
    return {
        "bootstrap_servers": list(address.servers),
        "client_id": f"agentq-{address.app}-{client}",
        "request_timeout_ms": int(REQUEST_S * 1000),
        "security_protocol": address.security,
        "ssl_context": _encryption(address) if address.security.endswith("SSL") else None,
        "sasl_mechanism": address.mechanism or "PLAIN",
        "sasl_plain_username": address.user,
        "sasl_plain_password": address.password,
        "sasl_oauth_token_provider": _Tokens(address.token) if address.token else None,
    }


def _encryption(address: Address) -> ssl.SSLContext:
    try:
        context = ssl.create_default_context(cafile=address.ca)
    except (OSError, ssl.SSLError) as error:
        raise InvalidArgument("broker: ca", address.ca, f"name a file with certificates in PEM ({error})") from error
    if address.cert:
        try:
            context.load_cert_chain(address.cert, address.key)
        except (OSError, ssl.SSLError) as error:
            raise InvalidArgument("broker: cert", address.cert, f"name a certificate and its key= in PEM ({error})") from error
    return context


class _Tokens(AbstractTokenProvider):  # type: ignore[misc]  # the library has no types
    """Asks the user's function for a token, whenever a connection is made."""

    def __init__(self, hook: str) -> None:
        self._hook = hook
        self._function = _found(hook)

    async def token(self) -> str:
        if inspect.iscoroutinefunction(self._function):
            answer = await self._function()
        else:  # it may ask a metadata service, and block
            answer = await asyncio.to_thread(self._function)
            if inspect.isawaitable(answer):
                answer = await answer
        if isinstance(answer, tuple):  # token and expiry, as the signer for MSK returns them
            answer = answer[0]
        if not isinstance(answer, str):
            raise InvalidArgument(_HOOK, type(answer).__name__, f"{self._hook} must return a str")
        return answer


def _found(hook: str) -> Callable[[], Any]:
    module, _, path = hook.partition(":")
    try:
        found: Any = importlib.import_module(module)
        for name in path.split("."):
            found = getattr(found, name)
    except (ImportError, AttributeError) as error:
        raise InvalidArgument(_HOOK, hook, f"name a function that can be imported ({error})") from error
    if not callable(found):
        raise InvalidArgument(_HOOK, hook, "name a function")
    return cast("Callable[[], Any]", found)

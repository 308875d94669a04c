"""What AWS answers when it refuses, in agentq's words: what may work later, and what a person must change."""

from __future__ import annotations

import asyncio
from typing import Final

import aiohttp
from botocore.exceptions import (
    BotoCoreError,
    ClientError,
    CredentialRetrievalError,
    NoCredentialsError,
    PartialCredentialsError,
    TokenRetrievalError,
)

from agentq.errors import BrokerError, BrokerUnavailable

TROUBLE: Final = (BotoCoreError, ClientError, aiohttp.ClientError, asyncio.TimeoutError, OSError)
"""Everything that the client raises when a request does not succeed."""

_EXPIRED: Final = frozenset(
    {
        *("ExpiredToken", "ExpiredTokenException", "RequestExpired", "TokenRefreshRequired"),
        *("InvalidClientTokenId", "UnrecognizedClientException", "InvalidToken"),
    }
)
_WITHOUT_CREDENTIALS: Final = (NoCredentialsError, PartialCredentialsError, CredentialRetrievalError, TokenRetrievalError)
_MISSING: Final = frozenset({"QueueDoesNotExist", "NonExistentQueue"})
_DENIED: Final = frozenset({"AccessDenied", "AccessDeniedException", "KmsAccessDenied", "AuthorizationError"})
_LATER: Final = frozenset(
    {
        *("Throttling", "ThrottlingException", "ThrottledException", "RequestThrottled", "RequestThrottledException"),
        *("TooManyRequestsException", "RequestLimitExceeded", "SlowDown", "KmsThrottled", "OverLimit"),
        *("InternalError", "InternalFailure", "ServiceUnavailable", "RequestTimeout", "QueueDeletedRecently"),
    }
)
_SKEWED: Final = frozenset({"RequestTimeTooSkewed", "RequestInTheFuture"})
_SKEWED_WORDS: Final = ("Signature expired", "Signature not yet current")
_SERVER_FAULT: Final = 500
_TOO_MANY: Final = 429


class Refused(BrokerError):
    """SQS or S3 refused a request, and would refuse it again."""

    def __init__(self, message: str, code: str) -> None:
        """Keep AWS's own ``code``."""
        super().__init__(message)
        self.code = code


class Missing(Refused):
    """There is no such queue."""


class Denied(Refused):
    """The credentials do not allow it."""


def code_of(error: BaseException) -> str:
    """AWS's code for what went wrong, without the prefix of the older protocol."""
    if not isinstance(error, ClientError):
        return ""
    return str(error.response.get("Error", {}).get("Code", "")).rpartition(".")[2]


def outdated(error: BaseException) -> bool:
    """Whether newer credentials than this client has may help."""
    return isinstance(error, _WITHOUT_CREDENTIALS) or code_of(error) in _EXPIRED


def translated(error: BaseException, operation: str, what: str) -> BrokerError:
    """The error to raise for what the client raised in ``operation`` on ``what``."""
    doing = f"{operation} on {what}"
    if isinstance(error, _WITHOUT_CREDENTIALS):
        return BrokerError(f"{doing}: no credentials for AWS ({error}); give the pod a role, or set AWS_PROFILE")
    if not isinstance(error, ClientError):
        return BrokerUnavailable(f"{doing}: {type(error).__name__}: {error}")
    return _answered(error, doing, what)


def _answered(error: ClientError, doing: str, what: str) -> BrokerError:
    code = code_of(error)
    status = error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0)
    said = f"{code or status}: {error.response.get('Error', {}).get('Message', '')}".rstrip(": ")
    if code in _MISSING:
        return Missing(f"{doing}: there is no queue {what} here; `agentq doctor --fix` makes it", code)
    if code in _DENIED:
        return Denied(f"{doing}: access denied ({said}); `agentq doctor --iam` prints what is needed", code)
    if code in _SKEWED or any(words in said for words in _SKEWED_WORDS):
        return BrokerUnavailable(f"{doing}: {said}; set this machine's clock")
    if code in _EXPIRED or code in _LATER or status >= _SERVER_FAULT or status == _TOO_MANY:
        return BrokerUnavailable(f"{doing}: {said}")
    return Refused(f"{doing}: {said}", code)

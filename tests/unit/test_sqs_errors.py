"""What AWS answers, told apart: what may work later, and what a person must change."""

import pytest

pytest.importorskip("aiobotocore")

import aiohttp
from botocore.exceptions import ClientError, EndpointConnectionError, NoCredentialsError, ReadTimeoutError

from agentq.brokers.sqs.errors import outdated, translated
from agentq.errors import BrokerError, BrokerUnavailable


def refusal(code: str, status: int = 400, message: str = "said so") -> ClientError:
    answer = {"Error": {"Code": code, "Message": message}, "ResponseMetadata": {"HTTPStatusCode": status}}
    return ClientError(answer, "SendMessageBatch")


@pytest.mark.parametrize(
    "error",
    [
        refusal("ThrottlingException"),
        refusal("RequestThrottled", 403),
        refusal("OverLimit", 403),
        refusal("ExpiredToken", 403),
        refusal("InvalidClientTokenId", 403),
        refusal("RequestTimeTooSkewed", 403),
        refusal("InvalidSignatureException", 403, "Signature expired: 20261122 is now earlier than …"),
        refusal("InvalidSignatureException", 403, "Signature not yet current: 20261122 is still later than …"),
        refusal("AWS.SimpleQueueService.QueueDeletedRecently"),
        refusal("InternalFailure", 500),
        refusal("502", 502, "Bad Gateway"),
        refusal("", 503),
        refusal("", 429),
        EndpointConnectionError(endpoint_url="http://127.0.0.1:1"),
        ReadTimeoutError(endpoint_url="http://127.0.0.1:1"),
        aiohttp.ClientPayloadError(),
        TimeoutError(),
        ConnectionResetError(),
    ],
)
def test_it_may_work_later(error):
    assert isinstance(translated(error, "send", "q"), BrokerUnavailable)


def test_a_clock_that_is_off_is_named():
    error = refusal("InvalidSignatureException", 403, "Signature expired: 20261122 is now earlier than …")
    assert "clock" in str(translated(error, "send", "q"))


@pytest.mark.parametrize(
    ("error", "says"),
    [
        (refusal("AWS.SimpleQueueService.NonExistentQueue"), "agentq doctor --fix"),
        (refusal("QueueDoesNotExist"), "agentq doctor --fix"),
        (refusal("AccessDenied", 403), "agentq doctor --iam"),
        (refusal("AccessDeniedException"), "agentq doctor --iam"),
        (refusal("InvalidParameterValue"), "said so"),
        (NoCredentialsError(), "no credentials"),
    ],
)
def test_a_person_must_change_something(error, says):
    found = translated(error, "send", "q")
    assert isinstance(found, BrokerError)
    assert not isinstance(found, BrokerUnavailable)
    assert says in str(found)
    assert str(found).startswith("send on q: ")


@pytest.mark.parametrize(
    ("error", "yes"),
    [
        (refusal("ExpiredTokenException"), True),
        (refusal("UnrecognizedClientException"), True),
        (NoCredentialsError(), True),
        (refusal("AccessDenied", 403), False),
        (TimeoutError(), False),
    ],
)
def test_newer_credentials_help_where_these_have_run_out(error, yes):
    assert outdated(error) is yes

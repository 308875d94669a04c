"""What the library raises, as the two errors of the contract: what may work later, and what a person must change."""

from __future__ import annotations

from typing import Final

from aiokafka import errors

from agentq.errors import BrokerError, BrokerUnavailable

_REMEDIES: Final[dict[type[BaseException], str]] = {
    errors.TopicAuthorizationFailedError: "allow this user Describe, Read and Write on the topic",
    errors.GroupAuthorizationFailedError: "allow this user Describe and Read on the consumer group",
    errors.ClusterAuthorizationFailedError: "allow this user IdempotentWrite (or Create, to create topics) on the cluster",
    errors.SaslAuthenticationFailed: "check user, password or token",
    errors.AuthenticationFailedError: "check user, password or token",
    errors.AuthenticationMethodNotSupported: "the listener does not take this mechanism: check mechanism= and the port",
    errors.UnsupportedSaslMechanismError: "the listener does not take this mechanism: check mechanism= and the port",
    errors.IllegalSaslStateError: "the listener does not take SASL: check security= and the port",
    errors.UnknownTopicOrPartitionError: "create the topic: agentq doctor --fix",
    errors.InvalidTopicError: "choose another name for the queue or the topic",
    errors.MessageSizeTooLargeError: "raise max.message.bytes of the topic, or lower max_bytes= in the broker's url",
    errors.PolicyViolationError: "the cluster's policy forbids it",
    errors.InvalidReplicationFactorError: "set replication= in the broker's url to what the cluster has",
    errors.InconsistentGroupProtocolError: "another kind of consumer is in this group: choose another group=",
    errors.InvalidSessionTimeoutError: "the cluster does not allow this session=",
    errors.InvalidGroupIdError: "choose another group=",
    errors.UnsupportedCodecError: "install what reads it: pip install 'agentq[kafka]'",
}


def failure(error: BaseException, what: str) -> BrokerError:
    """``error`` during ``what``, in the words of the contract."""
    if isinstance(error, BrokerError):
        return error
    text = f"{what}: {str(error) or type(error).__name__}"
    for kind, remedy in _REMEDIES.items():
        if isinstance(error, kind):
            return BrokerError(f"{text}; {remedy}")
    return BrokerUnavailable(text)

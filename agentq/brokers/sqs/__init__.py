"""Amazon SQS, and servers that speak like it: ``sqs://region/{app}-{queue}``, the url of `agentq.brokers.sqs.address`."""

from agentq.brokers.sqs.broker import SQSBroker

__all__ = ["SQSBroker"]

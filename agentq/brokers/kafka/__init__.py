"""Apache Kafka as an inbox: one topic per queue, one consumer group per app, offsets kept by the store."""

from agentq.brokers.kafka.broker import KafkaBroker

__all__ = ["KafkaBroker"]

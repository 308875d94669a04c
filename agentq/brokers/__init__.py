"""Where runs come in from other systems: the contract, and its implementations by url."""

from __future__ import annotations

from typing import TYPE_CHECKING

from agentq.errors import InvalidArgument
from agentq.settings import redacted

if TYPE_CHECKING:
    from agentq.brokers.base import Broker

__all__ = ["open_broker"]


def open_broker(url: str, *, app: str) -> Broker:
    """The broker behind ``url``, to be opened with ``async with``.

    ``sqs://region/{app}-{queue}`` (see `agentq.brokers.sqs`) or ``kafka://host:port/{app}.{queue}`` (see
    `agentq.brokers.kafka`); the path is the template of a queue's name there, and may be left out.

    Raises:
        InvalidArgument: no broker is known for such a url, or what it needs is not installed.
    """
    scheme = url.partition(":")[0].lower()
    try:
        if scheme == "sqs":
            from agentq.brokers.sqs import SQSBroker  # noqa: PLC0415 - the client is an extra

            return SQSBroker(url, app=app)
        if scheme == "kafka":
            from agentq.brokers.kafka import KafkaBroker  # noqa: PLC0415 - as above

            return KafkaBroker(url, app=app)
    except ModuleNotFoundError as error:
        if (error.name or "agentq").partition(".")[0] == "agentq":
            raise  # that is ours; whatever else is missing comes with the extra, the client's own needs too
        raise InvalidArgument("broker", f"{scheme}://…", f"install the client: pip install 'agentq[{scheme}]'") from error
    raise InvalidArgument("broker", redacted(url), "use sqs://region/name-{queue} or kafka://host:port/name.{queue}")

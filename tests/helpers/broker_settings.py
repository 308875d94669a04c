"""The brokers that the clauses are run on, each with what it can and what it needs."""

import json
import uuid
from typing import Any

from agentq.brokers.base import Broker
from agentq.testing.broker import MemoryBroker
from agentq.testing.clock import SimulatedClock
from agentq.testing.conformance.brokers import Setting
from tests.helpers import kafka
from tests.helpers.cut import Cut
from tests.helpers.processes import free_port

GIVE_UP_AFTER = 5
BRIEFLY_S = 2


def in_memory(cls: type[MemoryBroker] = MemoryBroker, **kind: Any) -> Setting:
    """A broker of this process, on a clock that the clauses move."""
    clock, name = SimulatedClock(), uuid.uuid4().hex

    def make() -> MemoryBroker:
        return cls(name, clock=clock, give_up_after=GIVE_UP_AFTER, wait_s=0.05, **kind)

    keeper = make()

    def unreachable() -> MemoryBroker:
        broker = cls(clock=clock, **kind)
        broker.trouble.down = True
        return broker

    async def pass_time(seconds: float) -> None:
        clock.advance(seconds)

    async def stop() -> None:
        keeper.trouble.down = True

    async def start() -> None:
        keeper.trouble.down = False

    return Setting(
        open=make,
        pass_time=pass_time,
        wall=clock.wall,
        quiet_s=0.05,
        give_up_after=GIVE_UP_AFTER,
        queues_are_made=False,
        unreachable=unreachable,
        stop=stop,
        start=start,
    )


def in_memory_and_real_time(**kind: Any) -> Setting:
    """A broker of this process, on the machine's clock."""
    broker = MemoryBroker(visibility_s=1.0, wait_s=0.02, **kind)
    return Setting(open=lambda: broker, redelivery_s=1.0, queues_are_made=False)


def on_sqs(endpoint: str, template: str = "", *, load: int = 200, cut: Cut | None = None) -> Setting:
    """SQS, by a server that speaks like it; ``cut`` is the wire through which ``endpoint`` leads."""
    from agentq.brokers.sqs import SQSBroker  # noqa: PLC0415 - the client is an extra
    from tests.helpers import sqs  # noqa: PLC0415 - as above

    app = sqs.new_app()

    def make(at: str = endpoint) -> SQSBroker:
        return SQSBroker(sqs.url(at, template), app=app)

    async def ask(broker: Broker, queue: str, **attributes: str) -> None:
        assert isinstance(broker, SQSBroker)
        await broker._clients.ask("set_queue_attributes", broker._address.name(queue), Attributes=attributes)

    async def prepare(broker: Broker, queue: str) -> None:
        assert isinstance(broker, SQSBroker)
        assert all(finding.ok for finding in await broker.inspect([queue], fix=True))
        name = broker._address.name(queue)
        answer = await broker._clients.ask("get_queue_attributes", name, AttributeNames=["RedrivePolicy"])
        policy = json.loads(answer["Attributes"]["RedrivePolicy"]) | {"maxReceiveCount": GIVE_UP_AFTER}
        await ask(broker, queue, RedrivePolicy=json.dumps(policy))

    async def hide_briefly(broker: Broker, queue: str) -> None:
        await ask(broker, queue, VisibilityTimeout=str(BRIEFLY_S))

    return Setting(
        open=make,
        prepare=prepare,
        hide_briefly=hide_briefly,
        redelivery_s=BRIEFLY_S,
        give_up_after=GIVE_UP_AFTER,
        load=load,
        unreachable=lambda: make(f"http://127.0.0.1:{free_port()}"),
        stop=cut.cut if cut else None,
        start=cut.mend if cut else None,
    )


def on_kafka(address: str) -> Setting:
    """Kafka: what an inbox has lost by leaving is there for the next."""
    from agentq.brokers.kafka import KafkaBroker  # noqa: PLC0415 - the client is an extra

    app = kafka.fresh()

    def make(at: str = address) -> KafkaBroker:
        return KafkaBroker(f"kafka://{at}?partitions=3", app=app)

    return Setting(
        open=make,
        redelivery_s=0.0,
        patience_s=20.0,
        at_once_s=20.0,
        unreachable=lambda: make(f"127.0.0.1:{free_port()}"),
    )

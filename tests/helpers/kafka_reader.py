"""A worker's inbox in a process of its own: says what it reads, acknowledges nothing, and is killed."""

import asyncio
import sys

from agentq.brokers.kafka import KafkaBroker


async def positions(source: str) -> dict[int, int]:
    return {}


async def main(url: str, app: str) -> None:
    async with KafkaBroker(url, app=app) as broker, broker.inbox(["q"], positions) as inbox:
        while True:
            for delivery in await inbox.receive(100):
                print(delivery.id, flush=True)


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))

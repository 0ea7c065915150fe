"""Fixtures of the bus: brokers of both kinds, logs with executors."""

import asyncio
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest

from bus.amqp_broker import AmqpBroker
from bus.broker import Broker
from bus.memory_broker import MemoryBroker


@pytest.fixture(params=["memory", pytest.param("rabbitmq", marks=pytest.mark.live)])
async def broker(request: pytest.FixtureRequest) -> AsyncIterator[Broker]:
    """Each broker in turn."""
    if request.param == "memory":
        broker: Any = MemoryBroker()
    else:
        url = request.getfixturevalue("rabbitmq")
        await wipe(url)
        broker = AmqpBroker(url)
    await broker.start()
    yield broker
    await broker.close()


async def wipe(url: str) -> None:
    """Delete every queue and exchange that a test may have left behind."""
    import aiormq

    async with aiormq.connect(url) as connection:
        channel = await connection.channel()
        for queue in ("reports", "host.h1", "host.h2", "events.g", *(f"events.g.{n}" for n in range(16))):
            await channel.queue_delete(queue)
        for exchange in ("cumulog.events", "cumulog.pokes", "cumulog.reports"):
            await channel.exchange_delete(exchange)


async def until(true: Callable[[], Any], seconds: float = 10.0) -> None:
    """Wait until something is so; fail when it does not come about."""
    async with asyncio.timeout(seconds):
        while not true():
            await asyncio.sleep(0.005)

"""Fixtures of the bus: brokers of both kinds, logs with executors."""

import asyncio
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest

from bus.amqp_broker import AmqpBroker
from bus.broker import Broker
from bus.execute import Executor
from bus.log import Log
from bus.memory_broker import MemoryBroker
from bus.memory_log import MemoryLog
from bus.postgres_log import PostgresLog
from tests.bus import words  # noqa: F401  its kind must be known before the schema is walked


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
        for queue in ("reports", "beats", "host.h1", "host.h2"):
            await channel.queue_delete(queue)
        for exchange in ("cumulog.events", "cumulog.pokes", "cumulog.reports"):
            await channel.exchange_delete(exchange)


async def until(true: Callable[[], Any], seconds: float = 10.0) -> None:
    """Wait until something is so; fail when it does not come about."""
    async with asyncio.timeout(seconds):
        while not true():  # noqa: ASYNC110  what is waited for sets no event
            await asyncio.sleep(0.005)


@pytest.fixture(params=["memory", "postgres"])
def log(request: pytest.FixtureRequest) -> Log:
    """Each log in turn."""
    return MemoryLog() if request.param == "memory" else PostgresLog(request.getfixturevalue("pool"))


@pytest.fixture
async def executor(log: Log) -> AsyncIterator[Executor]:
    executor = Executor(log)
    yield executor
    await executor.close()


@pytest.fixture
async def other(log: Log) -> AsyncIterator[Executor]:
    """A second process's executor on the same log."""
    executor = Executor(log)
    yield executor
    await executor.close()

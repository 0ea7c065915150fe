"""The relay and everything behind it, over a real RabbitMQ that is restarted, purged and wiped meanwhile."""

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any

import asyncpg
import pytest

from bus.amqp_broker import AmqpBroker, AmqpSubscription
from bus.checkpoint import PostgresCheckpoints
from bus.consumer import Reactions
from bus.execute import Executor
from bus.log import PARTITIONS
from bus.mirror import Mirrors
from bus.postgres_log import PostgresLog
from bus.rabbitmq_server import RabbitServer
from bus.relay import Relay
from bus.tail import Tail
from tests.bus.conftest import until, wipe
from tests.bus.test_consumer import Follow
from tests.bus.words import TALLY, Add, wish

pytestmark = [pytest.mark.live, pytest.mark.xdist_group("rabbitmq")]


@pytest.fixture
def tasks() -> Iterator[Callable[..., Any]]:
    started: list[asyncio.Task[None]] = []

    def start(coroutine: Any) -> asyncio.Task[None]:
        started.append(asyncio.ensure_future(coroutine))
        return started[-1]

    yield start
    for task in started:
        task.cancel()


class Process:
    """One role's worth of parts, as `serve` puts them together."""

    def __init__(self, pool: asyncpg.Pool, url: str) -> None:
        self.log = PostgresLog(pool)
        self.broker = AmqpBroker(url)
        self.executor = Executor(self.log, self.broker.hand_on)
        self.relay = Relay(pool, self.broker)
        self.checkpoints = PostgresCheckpoints(pool)
        self.mirrors = Mirrors(self.log, self.broker)

    async def close(self) -> None:
        await self.executor.close()
        await self.mirrors.close()
        await self.broker.close()


@pytest.fixture
async def processes(pool: asyncpg.Pool, rabbitmq: str) -> AsyncIterator[list[Process]]:
    await wipe(rabbitmq)
    processes = [Process(pool, rabbitmq) for _ in range(2)]
    for process in processes:
        await process.broker.start()
    yield processes
    for process in processes:
        await process.close()


async def test_what_one_process_appends_another_hears_of_at_once(processes: list[Process], tasks: Callable[..., Any]):
    here, there = processes
    tasks(here.relay.run())
    tasks(there.relay.run())
    await until(lambda: here.relay.leading or there.relay.leading)
    tail = Tail(there.log, await there.broker.watch(), 0)
    await here.executor.execute(wish("warm", Add()))
    assert await tail.next(5) is not None
    clock = asyncio.get_running_loop().time
    for n in range(5):
        before = clock()
        await here.executor.execute(wish("a", Add()))
        batch = await tail.next(5)
        assert batch is not None
        assert batch.last == n + 2
        assert clock() - before < 0.5
    assert tail.repairs == 0
    await tail.close()


async def test_reactions_run_over_rabbitmq_shared_by_two_processes(
    processes: list[Process], pool: asyncpg.Pool, tasks: Callable[..., Any]
):
    shares = [frozenset(range(8)), frozenset(range(8, PARTITIONS))]
    follows = []
    for process, share in zip(processes, shares, strict=True):
        tasks(process.relay.run())
        follows.append(Follow(process.executor))
        tasks(Reactions(process.log, process.executor, process.broker, process.checkpoints, [follows[-1]], share).run())
    await asyncio.gather(*(processes[n % 2].executor.execute(wish(f"s{n}", Add())) for n in range(60)))

    async def counts() -> set[int]:
        return {row[0] for row in await pool.fetch("SELECT (state ->> 'count')::int FROM documents")}

    async with asyncio.timeout(20):
        while await counts() != {3}:  # noqa: ASYNC110
            await asyncio.sleep(0.02)
    seen = [set(follow.seen) for follow in follows]
    assert seen[0]
    assert seen[1]
    assert not seen[0] & seen[1]


async def test_deleted_queues_purged_messages_and_closed_connections_lose_nothing(
    processes: list[Process], rabbitmq: str, tasks: Callable[..., Any]
):
    here, there = processes
    tasks(here.relay.run())
    mirror = there.mirrors.of(TALLY)
    await there.mirrors.start()
    subscription = await there.broker.subscribe("g")
    tail = Tail(there.log, subscription, 0)
    seen: list[int] = []

    async def read() -> None:
        while True:
            batch = await tail.next(1)
            seen.extend(event.position for event in (batch.events if batch else ()))

    tasks(read())
    for n in range(6):
        await asyncio.gather(*(here.executor.execute(wish(f"s{k}", Add())) for k in range(20)))
        match n:
            case 1:
                _lose_what_waits(there.broker)
            case 3:
                await wipe(rabbitmq)
            case 4:
                here.broker._publishing.drop()
                there.broker._consuming.drop()
    await until(lambda: len(seen) >= 120, 30)
    assert seen == list(range(1, 121))
    await until(lambda: sum(d.state.count for d in mirror.values()) == 120, 30)


def _lose_what_waits(broker: AmqpBroker) -> None:
    """A purge, seen from the reader: what was on its way is gone."""
    for subscription in (setup.__self__ for setup in broker._consuming._setups):
        if isinstance(subscription, AmqpSubscription):
            while not subscription._waiting.empty():
                subscription._waiting.get_nowait()


@pytest.mark.slow
async def test_everything_survives_a_broker_that_is_killed(pool: asyncpg.Pool, short_folder: Path, tasks: Any):
    server = RabbitServer(short_folder / "killed-bus")
    await asyncio.to_thread(server.start)
    here, there = Process(pool, server.url), Process(pool, server.url)
    try:
        for process in (here, there):
            await process.broker.start()
            tasks(process.relay.run())
        follow = Follow(there.executor)
        tasks(Reactions(there.log, there.executor, there.broker, there.checkpoints, [follow]).run())
        heard: list[bytes] = []

        async def hear(host: str, message: bytes) -> None:
            heard.append(message)

        await here.broker.listen(hear)
        link = await there.broker.link("h1")
        await here.executor.execute(*(wish(f"a{n}", Add()) for n in range(20)))
        assert server.pid is not None
        await asyncio.to_thread(_kill, server)
        await here.executor.execute(*(wish(f"b{n}", Add()) for n in range(20)))

        async def settled(prefix: str) -> bool:
            rows = await pool.fetch("SELECT (state ->> 'count')::int FROM documents WHERE id LIKE $1", prefix + "%")
            return {row[0] for row in rows} == {3}

        async with asyncio.timeout(20):  # without any broker
            while not await settled("b"):  # noqa: ASYNC110
                await asyncio.sleep(0.05)
        await asyncio.to_thread(server.start)
        await until(lambda: here.broker._publishing.up.is_set() and there.broker._consuming.up.is_set(), 30)
        await here.executor.execute(*(wish(f"c{n}", Add()) for n in range(20)))
        async with asyncio.timeout(20):
            while not await settled("c"):  # noqa: ASYNC110
                await asyncio.sleep(0.05)

        async def reported() -> None:
            while b"back" not in heard:
                try:
                    await link.report(b"back")
                except ConnectionError:
                    await asyncio.sleep(0.1)
                await asyncio.sleep(0.05)

        await asyncio.wait_for(reported(), 20)
        await here.broker.tell("h1", b"hello")
        assert await asyncio.wait_for(link.receive(), 5) == b"hello"
    finally:
        for process in (here, there):
            await process.close()
        await asyncio.to_thread(server.stop)


def _kill(server: RabbitServer) -> None:
    import os
    import signal

    assert server.pid is not None
    os.kill(server.pid, signal.SIGKILL)
    if server._process is not None:
        server._process.wait()

"""What the bus costs: python bench/relay.py [EVENTS]

Appends go through the relay and RabbitMQ to a reader in another connection. Two figures: events per second from the
first append to the last event read, and how long one append takes to be read while nothing else happens. A PostgreSQL
of its own with fsync on, a RabbitMQ of its own (Debian's), one process for all three roles.
"""

import asyncio
import os
import statistics
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

import uvloop

from bus.amqp_broker import AmqpBroker
from bus.execute import Executor
from bus.postgres import EmbeddedPostgres
from bus.postgres_log import PostgresLog, connect, install
from bus.rabbitmq_server import RabbitServer
from bus.relay import Relay
from bus.tail import Tail
from tests.bus.words import Add, wish

CALLERS = 64
IDLE_APPENDS = 200


async def main(dsn: str, url: str, events: int) -> None:
    pool = await connect(dsn)
    await install(pool)
    log = PostgresLog(pool)
    here, there = AmqpBroker(url, "bench appends"), AmqpBroker(url, "bench reads")
    await here.start()
    await there.start()
    executor = Executor(log, here.hand_on)
    relay = Relay(pool, here)
    relaying = asyncio.create_task(relay.run())
    while not relay.leading:  # noqa: ASYNC110
        await asyncio.sleep(0.01)
    tail = Tail(log, await there.watch(), await log.head())

    async def read(until: int) -> None:
        while tail.position < until:
            await tail.next(1.0)

    await executor.execute(wish("warm", Add()))
    await read(1)
    base = await log.head()
    started = time.perf_counter()
    reading = asyncio.create_task(read(base + events))

    async def call(n: int) -> None:
        for k in range(events // CALLERS // 10):
            await executor.execute(*(wish(f"s{n}-{k % 20}", Add()) for _ in range(10)))

    await asyncio.gather(*(call(n) for n in range(CALLERS)))
    appended = time.perf_counter() - started
    left = base + events - await log.head()
    if left:
        await executor.execute(*(wish("rest", Add()) for _ in range(left)))
    await reading
    seconds = time.perf_counter() - started
    print(f"appended {events} events in {appended:.2f} s; read all {seconds:.2f} s after the first append:")
    print(f"  {events / seconds:,.0f} events/s through log, relay, RabbitMQ and reader; holes repaired: {tail.repairs}")
    waits = []
    for _ in range(IDLE_APPENDS):
        await asyncio.sleep(0.01)
        await executor.execute(wish("idle", Add()))
        written = time.perf_counter()
        await read(await log.head())
        waits.append((time.perf_counter() - written) * 1000)
    waits.sort()
    print(f"  one append, read {statistics.median(waits):.1f} ms after its commit (p99 {waits[-3]:.1f} ms)")
    relaying.cancel()
    await asyncio.gather(relaying, return_exceptions=True)
    await executor.close()
    await here.close()
    await there.close()
    await pool.close()


if __name__ == "__main__":
    count = int(sys.argv[1]) if len(sys.argv) > 1 else 64_000
    with tempfile.TemporaryDirectory(prefix="cumulog-") as name:
        folder = Path(name)
        folder.chmod(0o711)
        postgres, rabbitmq = EmbeddedPostgres(folder), RabbitServer(folder)
        postgres.start()
        rabbitmq.start()
        try:
            print(f"{os.cpu_count()} cores")
            uvloop.run(main(postgres.dsn("postgres"), rabbitmq.url, count))
        finally:
            rabbitmq.stop()
            postgres.stop()

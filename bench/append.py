"""What appending costs: python bench/append.py [SECONDS]

64 callers of one event each, then commands of 100 events each, documents included; one process, a PostgreSQL of its own
with fsync on. Streams are hot and cold: every caller goes round twenty of its own.
"""

import asyncio
import sys
import tempfile
import time
from datetime import datetime
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))

import uvloop
from msgspec.structs import replace

from bus.execute import Aggregate, Executor, Wish
from bus.postgres import EmbeddedPostgres
from bus.postgres_log import PostgresLog, connect, install
from schema.event import Command, Event, Kind, State

CALLERS = 64
STREAMS = 20
BATCH = 100


class Counted(Event):
    by: int = 1
    note: str = ""


class Counter(State):
    name: str = ""
    count: int = 0
    note: str = ""


class Count(Command):
    events: int = 1


def evolve(counter: Counter, event: Counted, at: datetime) -> Counter:
    return replace(counter, count=counter.count + event.by, note=event.note)


def decide(counter: Counter, command: Count) -> list[Counted]:
    return [Counted(note=f"{counter.count + n:>64}") for n in range(command.events)]


COUNTERS = Aggregate(Kind("counter", Counter, Counted, evolve), decide, {Count: {"any"}})


async def measure(name: str, executor: Executor, callers: int, events: int, seconds: float) -> None:
    until = time.perf_counter() + seconds
    took: list[float] = []

    async def call(caller: int) -> None:
        turn = 0
        while (began := time.perf_counter()) < until:
            await executor.execute(Wish(COUNTERS, f"{name}-{caller}-{turn % STREAMS}", Count(events=events)))
            took.append(time.perf_counter() - began)
            turn += 1

    began, cpu = time.perf_counter(), time.process_time()
    await asyncio.gather(*(call(n) for n in range(callers)))
    wall = time.perf_counter() - began
    done = len(took) * events
    took.sort()
    cpu = (time.process_time() - cpu) / done
    half, most = took[len(took) // 2], took[int(len(took) * 0.99)]
    print(
        f"{name:<32} {done / wall:>9,.0f} events/s   p50 {half * 1e3:6.2f} ms   p99 {most * 1e3:6.2f} ms"
        f"   {cpu * 1e6:5.1f} µs of CPU here"
    )


async def main(seconds: float) -> None:
    with tempfile.TemporaryDirectory(prefix="cumulog-bench-") as folder:
        postgres = EmbeddedPostgres(Path(folder))
        postgres.start()
        pool: Any = await connect(postgres.dsn())
        try:
            await install(pool)
            executor = Executor(PostgresLog(pool))
            for callers in (1, 16, CALLERS):
                await measure(f"{callers} callers, one event each", executor, callers, 1, seconds)
            await measure(f"batches of {BATCH}, one caller", executor, 1, BATCH, seconds)
            await measure(f"batches of {BATCH}, four callers", executor, 4, BATCH, seconds)
            await executor.close()
        finally:
            await pool.close()
            postgres.stop()


if __name__ == "__main__":
    uvloop.run(main(float(sys.argv[1]) if len(sys.argv) > 1 else 5.0))

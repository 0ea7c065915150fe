"""Processes that are at one stream all the time: each comes to its turn, and few decide for nothing."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable

import asyncpg
import pytest

from bus.execute import Executor
from bus.log import Append, Stale
from bus.postgres_log import PostgresLog, connect
from tests.bus.words import Add, wish

PROCESSES, CALLERS, TIMES = 4, 4, 40


class Counting(PostgresLog):
    """It knows how many appends were tried, and how many in vain."""

    def __init__(self, pool: asyncpg.Pool) -> None:
        super().__init__(pool)
        self.tried = self.stale = 0

    async def append(self, append: Append) -> int:
        self.tried += 1
        try:
            return await super().append(append)
        except Stale:
            self.stale += 1
            raise


@pytest.fixture
async def logs(fresh_database: str, pool: asyncpg.Pool) -> AsyncIterator[list[Counting]]:
    pools = [await connect(fresh_database, maximum=3) for _ in range(PROCESSES)]
    yield [Counting(it) for it in pools]
    await asyncio.gather(*(it.close() for it in pools))


@pytest.fixture
async def executors(logs: list[Counting]) -> AsyncIterator[list[Executor]]:
    executors = [Executor(log) for log in logs]
    yield executors
    await asyncio.gather(*(it.close() for it in executors))


async def busily(call: Callable[[int, int], Awaitable[object]]) -> None:
    async def caller(process: int, nth: int) -> None:
        for time in range(TIMES):
            await call(process, nth * TIMES + time)

    await asyncio.gather(*(caller(process, nth) for process in range(PROCESSES) for nth in range(CALLERS)))


async def test_each_comes_to_its_turn(executors: list[Executor], logs: list[Counting]):
    await busily(lambda process, n: executors[process].execute(wish(f"{process}-{n}", Add()), wish("sum", Add())))
    assert (await logs[0].load(["tally/sum"]))["tally/sum"].state.count == PROCESSES * CALLERS * TIMES
    assert sum(log.stale for log in logs) < sum(log.tried for log in logs) / 4


async def test_those_at_several_do_not_wait_for_each_other_for_ever(executors: list[Executor], logs: list[Counting]):
    streams = ["a", "b", "c"]

    async def call(process: int, n: int) -> None:
        first, second = streams[n % 3], streams[(n + process) % 3]
        mine = wish(f"{process}-{n}", Add())
        await executors[process].execute(wish(first, Add()), mine, wish(second, Add()))

    await busily(call)
    found = await logs[0].load([f"tally/{it}" for it in streams])
    assert sum(it.state.count for it in found.values()) == 2 * PROCESSES * CALLERS * TIMES


async def test_who_waits_too_long_does_without(fresh_database: str, pool: asyncpg.Pool):
    impatient = await connect(fresh_database, lock_timeout="50")
    async with PostgresLog(pool).turn(["tally/a"]):
        log = PostgresLog(impatient)
        async with log.turn(["tally/b", "tally/a"]):
            executor = Executor(log)
            await executor.execute(wish("a", Add()))
            await executor.close()
    await impatient.close()

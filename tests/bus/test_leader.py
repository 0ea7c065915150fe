"""One leader at a time; another when it is gone."""

import asyncio

import asyncpg

from bus.leader import Leader
from tests.bus.conftest import until


async def test_one_leads_and_the_next_takes_over(pool: asyncpg.Pool):
    leading: list[str] = []

    def work(name: str):
        async def lead(connection: asyncpg.Connection) -> None:
            leading.append(name)
            while True:
                await connection.execute("SELECT 1")
                await asyncio.sleep(0.01)

        return lead

    leaders = [Leader(pool, "x"), Leader(pool, "x")]
    tasks = [asyncio.create_task(leader.run(work(f"{n}"))) for n, leader in enumerate(leaders)]
    await until(lambda: leading)
    await asyncio.sleep(0.1)
    assert [leader.leading for leader in leaders].count(True) == 1
    first = int(leading[0])
    tasks[first].cancel()
    await until(lambda: leaders[1 - first].leading)
    assert not leaders[first].leading
    tasks[1 - first].cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


async def test_a_lost_connection_is_lost_leadership(pool: asyncpg.Pool):
    terms = 0
    pid = 0

    async def lead(connection: asyncpg.Connection) -> None:
        nonlocal terms, pid
        terms += 1
        pid = await connection.fetchval("SELECT pg_backend_pid()")
        while True:
            await connection.execute("SELECT 1")
            await asyncio.sleep(0.01)

    leader = Leader(pool, "y")
    task = asyncio.create_task(leader.run(lead))
    await until(lambda: pid)
    before = pid
    await pool.execute("SELECT pg_terminate_backend($1)", before)
    await until(lambda: terms == 2 and pid != before)
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)


async def test_different_work_has_different_leaders(pool: asyncpg.Pool):
    async def lead(connection: asyncpg.Connection) -> None:
        await asyncio.Event().wait()

    leaders = [Leader(pool, "a"), Leader(pool, "b")]
    tasks = [asyncio.create_task(leader.run(lead)) for leader in leaders]
    await until(lambda: all(leader.leading for leader in leaders))
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)

"""What only PostgreSQL can promise: the chain, immutability, two processes at once, a server that dies mid-append."""

import asyncio
import hashlib
import json
import os
import signal
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path

import asyncpg
import pytest

from bus.execute import Context, Executor
from bus.log import COMMAND_SCOPE, Actor
from bus.postgres import EmbeddedPostgres
from bus.postgres_log import PostgresLog, connect, install
from tests.bus.test_execute import assert_dense
from tests.bus.words import Add, Rename, wish

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


@pytest.fixture
async def executor(pool: asyncpg.Pool):
    executor = Executor(PostgresLog(pool))
    yield executor
    await executor.close()


async def test_each_hash_covers_the_event_and_the_one_before(executor: Executor, pool: asyncpg.Pool):
    by = Context(Actor("ü", "p", "t"), "req-1", "because")
    await asyncio.gather(*(executor.execute(wish(f"s{n % 3}", Add(by=n)), by=by) for n in range(10)))
    await executor.execute(wish("a", Rename(name='quotes " and \\ and \u2028')), by=by)
    chain = bytes(32)
    rows = await pool.fetch("SELECT *, actor::text AS a, data::text AS d FROM events ORDER BY position")
    for row in rows:
        parts = [row["position"], row["stream"], row["version"], row["type"]]
        parts += [(row["at"] - EPOCH) // timedelta(microseconds=1), row["a"], row["correlation"], row["causation"]]
        chain = hashlib.sha256(chain + "\x1f".join(map(str, [*parts, row["d"]])).encode()).digest()
        assert row["hash"] == chain
    assert await pool.fetchrow("SELECT position, hash FROM head") == (len(rows), chain)
    assert len(rows) == 11


@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE events SET data = '{}'",
        "DELETE FROM events",
        "TRUNCATE events",
        "UPDATE events_0 SET version = 7",
        "DELETE FROM events_0",
        "TRUNCATE events_0",
    ],
)
async def test_events_are_immutable(executor: Executor, pool: asyncpg.Pool, statement: str):
    await executor.execute(wish("a", Add()))
    with pytest.raises(asyncpg.RaiseError, match="immutable"):
        await pool.execute(statement)
    assert await pool.fetchval("SELECT count(*) FROM events") == 1


async def test_installing_again_changes_nothing(executor: Executor, pool: asyncpg.Pool):
    await executor.execute(wish("a", Add()))
    await asyncio.gather(*(install(pool) for _ in range(3)))
    assert await executor.log.head() == 1


async def test_documents_are_plain_rows(executor: Executor, pool: asyncpg.Pool):
    await executor.execute(wish("a", Add(by=4)), wish("a", Rename(name="x")))
    row = await pool.fetchrow("SELECT kind, id, version, project_id, name, gone, state FROM documents")
    assert row[:6] == ("tally", "a", 2, "p1", "x", False)
    assert json.loads(row[6])["count"] == 4


async def test_room_is_made_ahead_and_old_keys_are_forgotten(executor: Executor, pool: asyncpg.Pool):
    await executor.execute(wish("a", Add()), by=Context(idempotency="old"))
    await executor.execute(wish("b", Rename(name="kept")))
    await pool.execute("UPDATE reservations SET at = now() - interval '2 days'")
    await executor.log.maintain()
    assert await executor.log.holder(COMMAND_SCOPE, "old") is None
    assert await executor.log.holder("tally name", "kept") == "tally/b"
    assert await pool.fetchval("SELECT count(*) FROM pg_inherits WHERE inhparent = 'events'::regclass") >= 3


async def test_a_name_its_holder_lets_go_of_meanwhile_is_really_taken(executor: Executor, pool: asyncpg.Pool):
    """The reservation is there or it is not; never granted without being written."""
    await executor.execute(wish("a", Rename(name="n0")))
    other = Executor(PostgresLog(pool))

    async def swap(executor: Executor, id: str, names: list[str]) -> None:
        for name in names:
            await asyncio.gather(executor.execute(wish(id, Rename(name=name))), return_exceptions=True)

    await asyncio.gather(
        swap(executor, "a", [f"n{n % 3}" for n in range(150)]), swap(other, "b", [f"n{n % 3}" for n in range(1, 151)])
    )
    names = {row[0]: row[1] for row in await pool.fetch("SELECT name, stream FROM documents")}
    held = {row[0]: row[1] for row in await pool.fetch("SELECT key, stream FROM reservations")}
    assert names == held
    await other.close()


HAMMER = """
import asyncio, sys
from bus.execute import Executor, Context
from bus.postgres_log import PostgresLog, connect
from tests.bus.words import Add, wish

async def main():
    pool = await connect(sys.argv[1], maximum=4)
    executor = Executor(PostgresLog(pool))
    done = 0
    async def one(n):
        nonlocal done
        await executor.execute(wish("hot", Add()), wish(f"s{n % 4}", Add()))
        done += 1
    for start in range(0, 300, 30):
        await asyncio.gather(*(one(n) for n in range(start, start + 30)))
    await executor.close()
    print(done)

asyncio.run(main())
"""


async def test_two_processes_hammering_one_stream(executor: Executor, pool: asyncpg.Pool, fresh_database: str):
    processes = [
        await asyncio.create_subprocess_exec(
            sys.executable, "-c", HAMMER, fresh_database, stdout=asyncio.subprocess.PIPE, cwd=Path(__file__).parents[2]
        )
        for _ in range(2)
    ]
    done = [int((await process.communicate())[0]) for process in processes]
    assert done == [300, 300]
    assert (await executor.log.load(["tally/hot"]))["tally/hot"].state.count == 600
    await assert_dense(executor.log)


async def test_a_server_that_is_killed_loses_nothing_it_acknowledged(tmp_path_factory, short_folder: Path):
    server = EmbeddedPostgres(short_folder / "killed")
    server.start()
    try:
        pool = await connect(server.dsn("postgres"), maximum=4)
        await install(pool)
        log = PostgresLog(pool)
        executor = Executor(log)
        acknowledged = 0
        stop = asyncio.Event()

        async def caller(n: int) -> None:
            nonlocal acknowledged
            while not stop.is_set():
                try:
                    await executor.execute(wish(f"s{n}", Add()))
                    acknowledged += 1
                except ConnectionError:
                    await asyncio.sleep(0.02)

        callers = [asyncio.create_task(caller(n)) for n in range(8)]
        for _ in range(2):
            before = acknowledged
            async with asyncio.timeout(60):
                while acknowledged < before + 100:  # noqa: ASYNC110
                    await asyncio.sleep(0.005)
            kill_hard(server)
            await asyncio.to_thread(server.start)
        stop.set()
        await asyncio.gather(*callers)
        await assert_dense(log)
        counts = [d.state.count for d in (await log.load([f"tally/s{n}" for n in range(8)])).values()]
        assert acknowledged <= sum(counts) <= acknowledged + 2 * 8
        await executor.close()
        await pool.close()
    finally:
        server.stop()


def kill_hard(server: EmbeddedPostgres) -> None:
    """As the machine would: the postmaster first, by signal 9."""
    assert server.pid is not None
    os.kill(server.pid, signal.SIGKILL)

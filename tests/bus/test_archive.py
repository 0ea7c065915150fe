"""Old partitions live in files, and everything that reads the log still reads them."""

from pathlib import Path

import asyncpg
import pytest

from bus import archive
from bus.log import Recorded
from bus.postgres_log import PostgresLog
from bus.rebuild import rebuild
from bus.verify import verify
from tests.bus.history import write


@pytest.fixture
async def log(pool: asyncpg.Pool) -> PostgresLog:
    """A log of a hundred and some events whose partitions hold 40 each."""
    await pool.execute("DROP TABLE events_0, events_1, events_2")
    for nth in range(5):
        end = (nth + 1) * 40 if nth < 4 else 5_000_000
        await pool.execute(f"CREATE TABLE events_{nth} PARTITION OF events FOR VALUES FROM ({nth * 40}) TO ({end})")
    return await write(pool, 25)


async def everything(log: PostgresLog, **which: frozenset[int]) -> list[Recorded]:
    events: list[Recorded] = []
    while page := await log.read(events[-1].position if events else 0, 7, **which):
        events += page
    return events


async def test_what_is_archived_is_read_as_before(log: PostgresLog, fresh_database: str, tmp_path: Path):
    before = await everything(log)
    some = frozenset({1, 5, 9})
    mine = await everything(log, partitions=some)
    story = await log.read_stream("flavor/f0")
    made = await archive.archive(fresh_database, tmp_path)
    assert [(one.first, one.last) for one in made] == [(1, 39), (40, 79)]
    assert await log.pool.fetchval("SELECT min(position) FROM events") == 80
    assert await everything(log) == before
    assert await everything(log, partitions=some) == mine
    assert await log.read_stream("flavor/f0") == story
    assert await log.read_stream("flavor/f0", 2, 1) == story[2:3]
    assert await log.read_stream("flavor/nothing") == []
    assert await log.read(38, 2) == before[38:39]
    assert await archive.archive(fresh_database, tmp_path) == []


async def test_the_whole_log_verifies_and_rebuilds(log: PostgresLog, fresh_database: str, tmp_path: Path):
    before = await verify(fresh_database)
    await archive.archive(fresh_database, tmp_path)
    after = await verify(fresh_database)
    assert (after.wrong, after.hash, after.events) == ((), before.hash, before.events)
    assert (await rebuild(fresh_database)).differences == 0
    assert (await verify(fresh_database)).good
    await write(log.pool, 3, first=100)
    assert (await verify(fresh_database)).good


async def test_what_somebody_has_yet_to_read_stays(log: PostgresLog, fresh_database: str, tmp_path: Path):
    await log.pool.execute("INSERT INTO checkpoints (consumer, partition, position) VALUES ('slow', 0, 50)")
    assert [one.last for one in await archive.archive(fresh_database, tmp_path)] == [39]
    await log.pool.execute("UPDATE checkpoints SET position = 100")
    assert await archive.archive(fresh_database, tmp_path, keep_events=60) == []
    assert [one.last for one in await archive.archive(fresh_database, tmp_path)] == [79]


async def test_a_damaged_archive_is_noticed(log: PostgresLog, fresh_database: str, tmp_path: Path):
    first, _ = await archive.archive(fresh_database, tmp_path)
    path = Path(first.path)
    good = path.read_bytes()  # noqa: ASYNC240
    path.write_bytes(good[:-20])  # noqa: ASYNC240
    [finding] = (await verify(fresh_database)).wrong
    assert "is not the file that was archived" in finding
    with pytest.raises(archive.Damaged):
        await everything(log)
    path.unlink()  # noqa: ASYNC240
    assert "cannot be read" in (await verify(fresh_database)).wrong[0]
    path.write_bytes(good)  # noqa: ASYNC240
    assert (await verify(fresh_database)).good


async def test_a_table_that_was_tampered_with_is_not_let_go(log: PostgresLog, fresh_database: str, tmp_path: Path):
    async with log.pool.acquire() as connection, connection.transaction():
        await connection.execute("SET LOCAL session_replication_role = replica")
        await connection.execute("UPDATE events SET correlation = 'forged' WHERE position = 20")
    with pytest.raises(archive.Damaged, match="does not follow"):
        await archive.archive(fresh_database, tmp_path)
    assert await log.pool.fetchval("SELECT min(position) FROM events") == 1

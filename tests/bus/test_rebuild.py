"""`rebuild` changes nothing that is right, and mends what is not."""

import asyncpg
import pytest

from bus.consumer import PROJECTIONS, Projection
from bus.execute import Executor, Wish
from bus.postgres_log import PostgresLog, install
from bus.rebuild import Unfoldable, rebuild
from bus.verify import verify
from handlers.compute.flavor import FLAVORS
from schema.compute.flavor import CreateFlavor, FlavorCreated
from schema.refusal import Conflict
from tests.bus.history import write
from tests.bus.test_verify import behind_its_back

TABLES = "SELECT stream, version, state::text, deadline, gone, name FROM documents ORDER BY stream"


@pytest.mark.parametrize("workers", [1, 2])
async def test_it_must_change_nothing(pool: asyncpg.Pool, fresh_database: str, workers: int):
    await write(pool)
    before = await pool.fetch(TABLES)
    held = await pool.fetch("SELECT * FROM reservations ORDER BY scope, key")
    report = await rebuild(fresh_database, workers=workers)
    assert (report.differences, report.documents) == (0, 40)
    assert await pool.fetch(TABLES) == before
    assert await pool.fetch("SELECT * FROM reservations ORDER BY scope, key") == held
    assert (await verify(fresh_database)).good


async def test_it_mends_what_was_damaged(pool: asyncpg.Pool, fresh_database: str):
    await write(pool)
    before = await pool.fetch(TABLES)
    await behind_its_back(
        pool,
        "DELETE FROM documents WHERE stream = 'image/image-2'",
        "UPDATE documents SET state = '{}' WHERE stream = 'flavor/f3'",
        "DELETE FROM reservations WHERE stream = 'flavor/f4'",
    )
    told = await rebuild(fresh_database, compare=True)
    assert (told.differences, told.changed) == (3, ("flavor/f3", "flavor/f4", "image/image-2"))
    assert await pool.fetchval("SELECT count(*) FROM documents") == 39
    assert (await rebuild(fresh_database)).differences == 3
    assert await pool.fetch(TABLES) == before
    assert (await verify(fresh_database)).good


async def test_the_cloud_goes_on_with_the_new_tables(pool: asyncpg.Pool, fresh_database: str):
    await write(pool)
    executor = Executor(PostgresLog(pool))
    create = CreateFlavor(name="new", vcpus=1, ram_mb=1, disk_gb=1)
    await executor.execute(Wish(FLAVORS, "new", create))
    await rebuild(fresh_database)
    await install(pool)
    with pytest.raises(Conflict):
        await executor.execute(Wish(FLAVORS, "other", create))
    await executor.execute(Wish(FLAVORS, "newer", CreateFlavor(name="newer", vcpus=1, ram_mb=1, disk_gb=1)))
    await executor.close()
    assert (await verify(fresh_database)).good
    names = {row[0] for row in await pool.fetch("SELECT indexname FROM pg_indexes WHERE tablename = 'documents'")}
    assert names >= {"documents_pkey", "documents_listed", "documents_named", "documents_due"}
    left = "SELECT count(*) FROM pg_class WHERE relname LIKE '%rebuilt%'"
    assert await pool.fetchval(left) == 0


async def test_projections_begin_anew(pool: asyncpg.Pool, fresh_database: str):
    projection = Projection(
        "test.rebuilt", version=1, reads=(FlavorCreated,), tables="CREATE TABLE IF NOT EXISTS seen (name text)"
    )
    try:
        await pool.execute(projection.tables)
        await pool.execute("INSERT INTO seen VALUES ('x')")
        await pool.execute("INSERT INTO checkpoints VALUES ($1, -1, 5, NULL)", projection.consumer)
        assert "test.rebuilt" in (await rebuild(fresh_database)).projections
    finally:
        del PROJECTIONS["test.rebuilt"]
    assert await pool.fetchval("SELECT count(*) FROM seen") == 0
    assert await pool.fetchval("SELECT position FROM checkpoints") == 0


async def test_a_log_that_cannot_be_folded_changes_nothing(pool: asyncpg.Pool, fresh_database: str):
    await write(pool)
    before = await pool.fetch(TABLES)
    await behind_its_back(pool, "DELETE FROM events WHERE stream = 'flavor/f3' AND version = 1")
    with pytest.raises(Unfoldable, match="flavor/f3 has no event of version 1"):
        await rebuild(fresh_database)
    assert await pool.fetch(TABLES) == before
    await behind_its_back(pool, "UPDATE events SET type = 'NeverHeardOf' WHERE stream = 'flavor/f3'")

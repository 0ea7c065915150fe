"""`verify` finds whatever was changed behind the log's back, and says plainly what."""

import asyncpg
import pytest

from bus.verify import verify
from tests.bus.history import write


async def behind_its_back(pool: asyncpg.Pool, *statements: str) -> None:
    async with pool.acquire() as connection, connection.transaction():
        await connection.execute("SET LOCAL session_replication_role = replica")
        for statement in statements:
            await connection.execute(statement)


async def test_an_honest_log_is_good(pool: asyncpg.Pool, fresh_database: str):
    assert (await verify(fresh_database)).good
    log = await write(pool)
    report = await verify(fresh_database)
    assert report.wrong == ()
    assert report.events == report.head == await log.head()
    assert report.documents == 40
    again = await verify(fresh_database, workers=3)
    assert (again.wrong, again.hash) == ((), report.hash)


@pytest.mark.parametrize(
    "statement, says",
    [
        ('UPDATE events SET data = data || \'{"name": "x"}\' WHERE position = 7', "the chain breaks at position 7"),
        ("UPDATE events SET at = at + interval '1 us' WHERE position = 7", "the chain breaks at position 7"),
        ('UPDATE events SET actor = \'{"user": "x"}\' WHERE position = 7', "the chain breaks at position 7"),
        ("UPDATE events SET partition = 99 WHERE position = 7", "is in partition 99"),
        ("DELETE FROM events WHERE position = 7", "position 7 is missing"),
        ("DELETE FROM events WHERE position > 50", "positions 51 to"),
        ("UPDATE head SET position = position + 1", "the head says position"),
        ("UPDATE head SET hash = sha256('')", "the head's hash is not"),
        ("UPDATE documents SET state = state || '{\"ram_mb\": 1}' WHERE stream = 'flavor/f3'", "add up to"),
        ("UPDATE documents SET name = 'x' WHERE stream = 'flavor/f3'", "has name 'x'; its events say 'flavor 3'"),
        ("UPDATE documents SET version = 9 WHERE stream = 'image/image-2'", "has version 9; its events say 2"),
        ("DELETE FROM documents WHERE stream = 'image/image-2'", "image/image-2 has 2 events, and no document"),
        (
            "UPDATE documents SET stream = 'image/ghost', id = 'ghost' WHERE stream = 'image/image-2'",
            "image/ghost has a document, and no event",
        ),
        ("DELETE FROM reservations WHERE stream = 'flavor/f3'", "should hold flavor name 'flavor 3', and does not"),
        (
            "INSERT INTO reservations VALUES ('flavor name', 'flavor 5', 'flavor/f5')",
            "flavor/f5 holds flavor name 'flavor 5', and should not",
        ),
        ("INSERT INTO parked VALUES ('reactions', 'image/x', 1, 'it broke')", "reactions has set image/x aside"),
        ("INSERT INTO checkpoints VALUES ('x', 0, 7, sha256(''))", "x stands at position 7 of another history"),
    ],
)
async def test_what_was_changed_is_found(pool: asyncpg.Pool, fresh_database: str, statement: str, says: str):
    await write(pool)
    await behind_its_back(pool, statement)
    report = await verify(fresh_database)
    assert not report.good
    assert any(says in finding for finding in report.wrong), report.wrong


async def test_a_rewritten_chain_no_longer_has_the_hash_that_was_written_down(pool: asyncpg.Pool, fresh_database: str):
    await write(pool, 2)
    before = await verify(fresh_database)
    await behind_its_back(
        pool,
        "UPDATE events SET correlation = 'forged' WHERE position = (SELECT position FROM head)",
        "UPDATE events e SET hash = sha256(b.hash || convert_to(concat_ws(E'\\x1f', e.position, e.stream, e.version,"
        " e.type, (extract(epoch FROM e.at) * 1000000)::bigint, e.actor::text, e.correlation, e.causation,"
        " e.data::text), 'UTF8')) FROM events b, head h WHERE e.position = h.position AND b.position = e.position - 1",
        "UPDATE head SET hash = (SELECT e.hash FROM events e WHERE e.position = head.position)",
    )
    after = await verify(fresh_database)
    assert after.good
    assert after.hash != before.hash

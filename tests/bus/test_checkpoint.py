"""Checkpoints: compare-and-swap, and a history that is not the one of before."""

import asyncpg
import pytest

from bus.checkpoint import WHOLE_LOG, Checkpoints, Diverged, MemoryCheckpoints, Overtaken, PostgresCheckpoints
from bus.execute import Executor
from bus.postgres_log import PostgresLog
from tests.bus.words import Add, wish


@pytest.fixture(params=["memory", "postgres"])
def checkpoints(request: pytest.FixtureRequest) -> Checkpoints:
    if request.param == "memory":
        return MemoryCheckpoints()
    return PostgresCheckpoints(request.getfixturevalue("pool"))


async def test_a_new_consumer_starts_at_the_beginning(checkpoints: Checkpoints):
    assert await checkpoints.load("c", [3, 1]) == {1: 0, 3: 0}


async def test_it_moves_from_where_it_was_only(checkpoints: Checkpoints):
    await checkpoints.load("c", [WHOLE_LOG])
    await checkpoints.move("c", {WHOLE_LOG: 0}, {WHOLE_LOG: 5})
    assert await checkpoints.load("c", [WHOLE_LOG]) == {WHOLE_LOG: 5}
    with pytest.raises(Overtaken):
        await checkpoints.move("c", {WHOLE_LOG: 0}, {WHOLE_LOG: 7})
    assert await checkpoints.load("c", [WHOLE_LOG]) == {WHOLE_LOG: 5}


async def test_partitions_move_together_or_not_at_all(checkpoints: Checkpoints):
    await checkpoints.load("c", [0, 1])
    await checkpoints.move("c", {1: 0}, {1: 9})
    with pytest.raises(Overtaken):
        await checkpoints.move("c", {0: 0, 1: 0}, {0: 4, 1: 4})
    assert await checkpoints.load("c", [0, 1]) == {0: 0, 1: 9}
    await checkpoints.move("c", {0: 0, 1: 9}, {0: 12, 1: 10})
    assert await checkpoints.load("c", [0, 1]) == {0: 12, 1: 10}


async def _restored(pool: asyncpg.Pool, statement: str) -> None:
    """As if PostgreSQL had come back with another past."""
    await pool.execute("ALTER TABLE events DISABLE TRIGGER ALL; ALTER TABLE events_0 DISABLE TRIGGER ALL")
    await pool.execute(statement)


@pytest.mark.parametrize(
    "damage",
    [
        "UPDATE events SET hash = sha256('x') WHERE position = 3",
        "DELETE FROM events WHERE position > 2; UPDATE head SET position = 2",
    ],
)
async def test_another_history_stops_the_consumer(pool: asyncpg.Pool, damage: str):
    executor = Executor(PostgresLog(pool))
    for _ in range(3):
        await executor.execute(wish("a", Add()))
    checkpoints = PostgresCheckpoints(pool)
    await checkpoints.load("c", [WHOLE_LOG])
    await checkpoints.move("c", {WHOLE_LOG: 0}, {WHOLE_LOG: 3})
    assert await checkpoints.load("c", [WHOLE_LOG]) == {WHOLE_LOG: 3}
    await _restored(pool, damage)
    with pytest.raises(Diverged, match="another history"):
        await checkpoints.load("c", [WHOLE_LOG])
    await executor.close()

"""Checkpoints: how far a consumer has come, moved by compare-and-swap so that two active ones cannot both go on."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Protocol

import asyncpg

from bus.log import PARTITIONS

WHOLE_LOG = -1
"""The partition number of a consumer that reads the whole log in order."""


class Overtaken(Exception):
    """Another consumer of this name has moved the checkpoint: whoever reads this is no longer the active one."""


class Diverged(Exception):
    """The log's history is not the one this consumer knows: a database restored or failed over to another past."""


class Checkpoints(Protocol):
    """Where a consumer's positions are kept when they need not move within somebody's transaction."""

    async def load(self, consumer: str, partitions: Iterable[int]) -> dict[int, int]: ...
    async def move(self, consumer: str, before: Mapping[int, int], after: Mapping[int, int]) -> None: ...


class PostgresCheckpoints:
    """The checkpoints table."""

    def __init__(self, pool: asyncpg.Pool) -> None:
        self.pool = pool

    async def load(self, consumer: str, partitions: Iterable[int]) -> dict[int, int]:
        """Positions by partition; a new consumer starts at 0."""
        wanted = sorted(partitions)
        await self.pool.execute(
            "INSERT INTO checkpoints (consumer, partition, position)"
            " SELECT $1, p, 0 FROM unnest($2::smallint[]) AS p ON CONFLICT DO NOTHING",
            consumer,
            wanted,
        )
        rows = await self.pool.fetch(
            "SELECT partition, position, hash FROM checkpoints WHERE consumer = $1 AND partition = ANY($2::smallint[])",
            consumer,
            wanted,
        )
        await _same_history(self.pool, consumer, rows)
        return {row[0]: row[1] for row in rows}

    async def move(self, consumer: str, before: Mapping[int, int], after: Mapping[int, int]) -> None:
        """These partitions, all or none, from where they were to where they are now. Raises Overtaken."""
        async with self.pool.acquire() as connection, connection.transaction():
            await move(connection, consumer, before, after)


async def move(connection: Any, consumer: str, before: Mapping[int, int], after: Mapping[int, int]) -> None:
    """Compare-and-swap within the caller's transaction, which Overtaken must end."""
    partitions: Sequence[int] = list(before)
    moved = await connection.fetchval(
        "WITH moved AS (UPDATE checkpoints c SET position = u.after, at = now(),"
        " hash = (SELECT e.hash FROM events e WHERE e.position = u.after)"
        " FROM unnest($2::smallint[], $3::bigint[], $4::bigint[]) AS u (partition, before, after)"
        " WHERE c.consumer = $1 AND c.partition = u.partition AND c.position = u.before RETURNING 1)"
        " SELECT count(*) FROM moved",
        consumer,
        partitions,
        [before[p] for p in partitions],
        [after[p] for p in partitions],
    )
    if moved != len(partitions):
        raise Overtaken(f"{consumer} is being worked elsewhere: its checkpoint is not {sorted(set(before.values()))}")


async def _same_history(pool: asyncpg.Pool, consumer: str, rows: Sequence[Any]) -> None:
    for row in rows:
        if row["hash"] is None:
            continue
        known = await pool.fetchval("SELECT hash FROM events WHERE position = $1", row["position"])
        lost = known is None and row["position"] > await _head(pool)
        if lost or (known is not None and known != row["hash"]):
            raise Diverged(
                f"{consumer} stands at position {row['position']} of another history: PostgreSQL was restored or failed"
                " over to a past without the newest events. Run `cumulog verify`, then `cumulog rebuild`."
            )


async def _head(pool: asyncpg.Pool) -> int:
    return int(await pool.fetchval("SELECT position FROM head"))


class MemoryCheckpoints:
    """The same in memory, for the simulation."""

    def __init__(self) -> None:
        self.positions: dict[tuple[str, int], int] = {}

    async def load(self, consumer: str, partitions: Iterable[int]) -> dict[int, int]:
        return {p: self.positions.setdefault((consumer, p), 0) for p in partitions}

    async def move(self, consumer: str, before: Mapping[int, int], after: Mapping[int, int]) -> None:
        if any(self.positions.get((consumer, p), 0) != was for p, was in before.items()):
            raise Overtaken(f"{consumer} is being worked elsewhere")
        for p in before:
            self.positions[consumer, p] = after[p]


EVERY_PARTITION = frozenset(range(PARTITIONS))
